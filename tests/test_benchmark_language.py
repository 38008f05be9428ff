"""The language benchmark compares like with like, and its memory count is right."""

import importlib.util

import torch
from torch import nn
from torch.nn import functional as F

from hf_geo.models import WordTransformerConfig, WordTransformerForCausalLM
from tests.models.language_cases import pytorch_name
from tests.paths import REPOSITORY

spec = importlib.util.spec_from_file_location("benchmark_language", REPOSITORY / "scripts" / "benchmark_language.py")
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)

SMALL = WordTransformerConfig(vocab_size=3000, d_model=16, d_hid=16)


def test_both_networks_compute_the_same_loss_and_gradients() -> None:
    config = WordTransformerConfig(vocab_size=50, d_model=8, d_hid=8, dropout=0.0)
    ours, example = WordTransformerForCausalLM(config).train(), benchmark.ExampleTransformer(config).train()
    weights = {pytorch_name(name): tensor for name, tensor in ours.state_dict().items()}
    example.load_state_dict(weights | {"positions": example.positions})
    words = torch.randint(50, (4, 8))
    found = ours(input_ids=words, labels=words).loss
    expected = F.nll_loss(example(words.T[:-1]).flatten(0, 1), words.T[1:].flatten())
    torch.testing.assert_close(found, expected)
    found.backward()
    expected.backward()
    gradients = {name: p.grad for name, p in example.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[pytorch_name(name)], rtol=1e-4, atol=1e-6)


def test_a_step_needs_less_memory_than_the_examples() -> None:
    found = benchmark.measure(SMALL, columns=20, bptt=35, rounds=2)
    logits = 20 * 35 * 3000 * 4 / 2**20
    assert found["example MiB"] > 3 * logits  # log-probabilities, their gradient, the logits' gradient
    assert found["hf_geo MiB"] < 0.6 * found["example MiB"]
    assert found["ratio"] > 0 and found["hf_geo words/s"] > 0


def test_the_memory_count() -> None:
    before = nn.Linear(4, 4)
    with benchmark.PeakMemory(before) as memory:
        first = torch.zeros(1000)
        second = first + 1
        del first
        third = second * 2
        before.weight.data.mul_(2)  # was there before
        second.view(10, 100).add_(1)  # makes nothing
        del second, third
    assert memory.peak == 8000 and memory.bytes == 0
