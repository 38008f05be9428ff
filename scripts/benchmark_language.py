"""Words per second of our word-level Transformer, compared with PyTorch's word-language-model example.

Steps of both are timed in turn, on the same batches and with the same SGD. The example is reimplemented from its
description: `nn.TransformerEncoder` with a mask, `log_softmax` over the whole vocabulary, `NLLLoss`, plain SGD with the
gradient clipped at 0.25. Times are processor time on a CPU, so that other programs do not count, and wall time on a GPU.
"""

import argparse
import functools
import math
import statistics
import time
import weakref
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_geo.cli.options import at_least, device
from hf_geo.models import WordTransformerConfig, WordTransformerForCausalLM
from hf_geo.models.word_transformer import sinusoids

CLIP, LEARNING_RATE = 0.25, 0.1
NAMES = ("example", "hf_geo")


class ExampleTransformer(nn.Module):
    """The example's network: from words (length, columns) to log-probabilities (length, columns, vocabulary) of the next."""

    def __init__(self, config: WordTransformerConfig, longest: int = 5000):
        super().__init__()
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.register_buffer("positions", sinusoids(torch.arange(longest), config.d_model)[:, None])
        self.dropout = nn.Dropout(config.dropout)
        layer = nn.TransformerEncoderLayer(config.d_model, config.nhead, config.d_hid, config.dropout)
        self.encoder = nn.TransformerEncoder(layer, config.nlayers, enable_nested_tensor=False)
        self.decoder = nn.Linear(config.d_model, config.vocab_size)
        for parameter in (self.embedding.weight, self.decoder.weight):
            nn.init.uniform_(parameter, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)

    def forward(self, words: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(len(words), device=words.device)
        embedded = self.embedding(words) * math.sqrt(self.embedding.embedding_dim) + self.positions[: len(words)]
        return F.log_softmax(self.decoder(self.encoder(self.dropout(embedded), mask=mask)), dim=-1)


def make_step(
    name: str, config: WordTransformerConfig, device: str, mixed: bool
) -> tuple[nn.Module, Callable[[Tensor], None]]:
    """Makes the network of one of `NAMES`, and its training step on words of shape (columns, bptt + 1)."""
    torch.manual_seed(0)
    network = ExampleTransformer(config) if name == "example" else WordTransformerForCausalLM(config)
    network.to(device).train()

    def loss_of(words: Tensor) -> Tensor:
        if name == "hf_geo":
            return network(input_ids=words, labels=words).loss
        columns = words.T.contiguous()
        scores = network(columns[:-1])
        return F.nll_loss(scores.view(-1, config.vocab_size), columns[1:].reshape(-1))

    def step(words: Tensor) -> None:
        network.zero_grad()
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=mixed):
            loss = loss_of(words)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(parameter.grad, alpha=-LEARNING_RATE)

    return network, step


def seconds(
    call: Callable[[], object], device: str, count: int = 1, cpu_clock: Callable[[], float] = time.process_time
) -> float:
    """Times one of `count` calls in a row: on a GPU by wall time until their work is done, else by `cpu_clock`."""
    is_cuda = torch.device(device).type == "cuda"
    clock = time.perf_counter if is_cuda else cpu_clock
    if is_cuda:
        torch.cuda.synchronize(device)
    start = clock()
    for _ in range(count):
        call()
    if is_cuda:
        torch.cuda.synchronize(device)
    return (clock() - start) / count


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that operations allocate, until they are freed.

    Args:
        before: Its parameters and buffers are not counted.

    Attributes:
        bytes: Bytes allocated now.
        peak: The most bytes that were allocated at a time.
    """

    def __init__(self, before: nn.Module):
        super().__init__()
        self.known = {p.untyped_storage()._cdata for p in (*before.parameters(), *before.buffers())}
        self.bytes = self.peak = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.known:
            self.known.add(storage._cdata)
            self.bytes += storage.nbytes()
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self._remove, storage._cdata, storage.nbytes())

    def _remove(self, identity: int, size: int) -> None:
        self.known.discard(identity)
        self.bytes -= size


def measure(
    config: WordTransformerConfig,
    *,
    columns: int = 20,
    bptt: int = 35,
    rounds: int = 15,
    device: str = "cpu",
    mixed: bool = False,
) -> dict[str, float]:
    """Times steps of both networks in turn.

    Returns:
        Words per second of "example" and "hf_geo" (medians), their "ratio" (median over rounds), and the memory in MiB that
        a step of each needs at its peak in addition to the network.
    """
    words = torch.randint(config.vocab_size, (columns, bptt + 1), generator=torch.Generator().manual_seed(0)).to(device)
    networks, steps = {}, {}
    for name in NAMES:
        networks[name], steps[name] = make_step(name, config, device, mixed)
    times: dict[str, list[float]] = {name: [] for name in NAMES}
    for turn in range(rounds + 2):
        for name in NAMES if turn % 2 else NAMES[::-1]:
            times[name].append(seconds(functools.partial(steps[name], words), device))
    times = {name: values[2:] for name, values in times.items()}  # the first two rounds warm up
    found = {f"{name} words/s": columns * bptt / statistics.median(values) for name, values in times.items()}
    found["ratio"] = statistics.median(a / b for a, b in zip(*times.values(), strict=True))
    for name, network in networks.items():
        network.zero_grad()
        with PeakMemory(network) as memory:
            steps[name](words)
        found[f"{name} MiB"] = memory.peak / 2**20
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this benchmark."""
    parser.add_argument("--columns", type=at_least(1), default=20, help="Rows of a batch (the paper's 20).")
    parser.add_argument("--bptt", type=at_least(1), default=35, help="Words of a window (the paper's 35).")
    parser.add_argument(
        "--vocab_size", type=at_least(1), default=33_278, help="Size of the vocabulary (WikiText-2's 33,278)."
    )
    parser.add_argument("--rounds", type=at_least(1), default=15, help="Steps of each that are timed.")
    parser.add_argument(
        "--threads",
        type=at_least(1),
        default=1,
        help="CPU threads. The processor time of several includes their waits.",
    )
    parser.add_argument(
        "--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu", help="Where to run."
    )
    parser.add_argument("--bf16", action="store_true", help="Under autocast to bfloat16.")


def run(args: argparse.Namespace) -> None:
    """Measures and prints."""
    torch.set_num_threads(args.threads)
    config = WordTransformerConfig(vocab_size=args.vocab_size)
    found = measure(
        config, columns=args.columns, bptt=args.bptt, rounds=args.rounds, device=args.device, mixed=args.bf16
    )
    for name in NAMES:
        print(
            f"{name:8s} {found[f'{name} words/s']:10,.0f} words/s {found[f'{name} MiB']:8,.0f} MiB at the peak of a step"
        )
    print(f"ratio    {found['ratio']:10.2f}")
