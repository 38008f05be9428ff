"""The Differentiable Neural Computer written out in loops over numbers, from the equations of Graves et al. 2016 (methods).

For one sequence and one write head, in double precision, with NumPy alone.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    powers = np.exp(x - x.max())
    return powers / powers.sum()


def cosine(a, b):
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return a @ b / lengths if lengths else 0.0


def content_weighting(memory, key, strength):
    return softmax(np.array([strength * cosine(key, row) for row in memory]))


def retention(free, reads):
    kept = np.ones(len(reads[0]))
    for gate, weights in zip(free, reads, strict=True):
        kept = kept * (1 - gate * weights)
    return kept


def usage(used, written, kept):
    return (used + written - used * written) * kept


def allocation_weighting(used):
    weights, full = np.zeros(len(used)), 1.0
    for location in sorted(range(len(used)), key=lambda i: used[i]):
        weights[location] = (1 - used[location]) * full
        full *= used[location]
    return weights


def write(memory, weights, erase, word):
    return memory * (1 - np.outer(weights, erase)) + np.outer(weights, word)


def temporal_links(links, precedence, weights):
    after = np.zeros_like(links)
    for i in range(len(links)):
        for j in range(len(links)):
            if i != j:
                after[i, j] = (1 - weights[i] - weights[j]) * links[i, j] + weights[i] * precedence[j]
    return after


def next_precedence(precedence, weights):
    return (1 - weights.sum()) * precedence + weights


def read_weighting(links, previous, content, modes):
    return modes[0] * (links.T @ previous) + modes[1] * content + modes[2] * (links @ previous)


def run(weights, config, inputs):
    """The logits of a sequence (steps, input_size), given a network's weights by name as arrays, without clipping."""
    locations, word, heads, units = config.memory_size, config.word_size, config.num_read_heads, config.hidden_size
    hidden, cell = np.zeros(units), np.zeros(units)
    memory, used, precedence = np.zeros((locations, word)), np.zeros(locations), np.zeros(locations)
    links, written = np.zeros((locations, locations)), np.zeros(locations)
    reads, found = np.zeros((heads, locations)), np.zeros((heads, word))
    answers = []
    for x in inputs:
        seen = np.concatenate([x, found.ravel(), hidden])
        i, f, o, s = np.split(weights["cell.gates.weight"] @ seen + weights["cell.gates.bias"], 4)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(s)
        hidden = sigmoid(o) * np.tanh(cell)
        vector = list(weights["cell.interface.weight"] @ hidden + weights["cell.interface.bias"])

        def take(*shape, vector=vector):
            size = int(np.prod(shape))
            part, vector[:] = np.array(vector[:size]), vector[size:]
            return part.reshape(shape)

        read_keys, write_key, words, erase = take(heads, word), take(word), take(word), sigmoid(take(word))
        free, allocation_gate, write_gate = sigmoid(take(heads)), sigmoid(take()), sigmoid(take())
        strengths, write_strength = 1 + np.log1p(np.exp(take(heads))), 1 + np.log1p(np.exp(take()))
        modes = [softmax(row) for row in take(heads, 3)]
        assert not vector

        used = usage(used, written, retention(free, reads))
        content = content_weighting(memory, write_key, write_strength)
        allocated = allocation_weighting(used)
        written = write_gate * (allocation_gate * allocated + (1 - allocation_gate) * content)
        memory = write(memory, written, erase, words)
        links = temporal_links(links, precedence, written)
        precedence = next_precedence(precedence, written)
        reads = np.array(
            [
                read_weighting(links, reads[h], content_weighting(memory, read_keys[h], strengths[h]), modes[h])
                for h in range(heads)
            ]
        )
        found = reads @ memory
        answers.append(weights["output.weight"] @ np.concatenate([hidden, found.ravel()]) + weights["output.bias"])
    return np.array(answers)
