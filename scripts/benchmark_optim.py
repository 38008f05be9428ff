"""Milliseconds of an optimizer step, compared with torch's fused AdamW and SGD.

Steps of all are timed in turn. Every optimizer has weights and gradients of its own, of a network's shapes; methods with a
geometry treat weights with two or more axes by filter. The limit is the time that moving each weight, gradient and state once
takes at the bandwidth of a copy measured in the same run. Extra memory is the peak of a step beyond weights, gradients and
state.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import timm
import torch
from benchmark_language import PeakMemory, seconds
from torch import Tensor, nn

from hf_geo.cli.options import at_least, device
from hf_geo.models import WordTransformerConfig, WordTransformerForCausalLM
from hf_geo.optim import create_optimizer, get_method, list_optimizers

REFERENCES = {
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True),
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True),
}
WARM_UP = 3


def wide_resnet(depth: int = 28, width: int = 10) -> list[tuple[int, ...]]:
    """Returns the shapes of a wide residual network's parameters (Zagoruyko & Komodakis 2016) for 10 classes."""
    shapes, inputs = [(16, 3, 3, 3)], 16
    for channels in (16 * width, 32 * width, 64 * width):
        for block in range((depth - 4) // 6):
            shapes += [
                (inputs,),
                (inputs,),
                (channels, inputs, 3, 3),
                (channels,),
                (channels,),
                (channels, channels, 3, 3),
            ]
            if block == 0:
                shapes.append((channels, inputs, 1, 1))
            inputs = channels
    return [*shapes, (inputs,), (inputs,), (10, inputs), (10,)]


def timm_shapes(name: str) -> list[tuple[int, ...]]:
    """Returns the shapes of a timm model's parameters."""
    with torch.device("meta"):
        return [tuple(p.shape) for p in timm.create_model(name).parameters()]


def word_transformer() -> list[tuple[int, ...]]:
    """Returns the shapes of the word-level Transformer's parameters for WikiText-2."""
    model = WordTransformerForCausalLM(WordTransformerConfig(vocab_size=33_278))
    return [tuple(p.shape) for p in model.parameters()]


NETWORKS: dict[str, Callable[[], list[tuple[int, ...]]]] = {
    "resnet18": lambda: timm_shapes("resnet18"),
    "vit_s": lambda: timm_shapes("vit_small_patch16_224"),
    "wrn_28_10": wide_resnet,
    "wikitext2": word_transformer,
}


def make(name: str, shapes: list[tuple[int, ...]], device: str) -> tuple[torch.optim.Optimizer, Callable[[], object]]:
    """Makes an optimizer over weights of the given shapes with gradients, and its step."""
    torch.manual_seed(0)
    model = nn.ParameterList(torch.randn(shape, device=device) * 0.05 + 0.01 for shape in shapes)
    for p in model:
        p.grad = torch.randn_like(p) * 0.01
    if name in REFERENCES:
        optimizer = REFERENCES[name](model)
    else:
        # SGD-G's orthogonality term is left out: it is a matrix product, whose cost would hide the step's.
        geometry = {str(i): (0,) for i, p in enumerate(model) if p.ndim > 1 and p[0].numel() > 1}
        method = get_method(name)
        on_spheres = method.geometry and any(method.geometry(model[int(i)].shape, (0,)) for i in geometry)
        plain = {"geometry": {"omega": 0.0}} if on_spheres and "omega" in method.arguments else {}
        optimizer = create_optimizer(name, model, invariant=geometry, group_settings=plain)
    loss = torch.tensor(1.0, device=device)
    if name in list_optimizers() and get_method(name).needs_loss:
        return optimizer, lambda: optimizer.step(lambda: loss)
    return optimizer, optimizer.step


def tensors(optimizer: torch.optim.Optimizer) -> tuple[list[Tensor], list[Tensor]]:
    """Returns an optimizer's parameters, and the tensors of its state other than single numbers."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = [v for entry in optimizer.state.values() for v in entry.values() if isinstance(v, Tensor) and v.numel() > 1]
    return parameters, state


def measure(network: str, methods: list[str], rounds: int, device: str) -> dict[str, dict[str, float]]:
    """Times the steps of all methods and references in turn.

    Returns:
        By name: "ms" (median), "adamw" and "sgd" (median over rounds of the ratio to these), "MiB moved", "limit" (ratio to the
        time that moving them takes), and "MiB extra" at the peak of a step.
    """
    shapes = NETWORKS[network]()
    made = {name: make(name, shapes, device) for name in (*REFERENCES, *methods)}
    source = torch.randn(sum(torch.Size(s).numel() for s in shapes), device=device)
    target = torch.empty_like(source)
    times: dict[str, list[float]] = {name: [] for name in (*made, "copy")}
    for _ in range(rounds + WARM_UP):
        for name, (_, step) in made.items():
            times[name].append(seconds(step, device, time.perf_counter))
        times["copy"].append(seconds(lambda: target.copy_(source), device, time.perf_counter))
    times = {name: values[WARM_UP:] for name, values in times.items()}
    bandwidth = 2 * source.nbytes / statistics.median(times["copy"])

    found = {}
    for name, (optimizer, step) in made.items():
        parameters, state = tensors(optimizer)
        moved = sum(3 * p.nbytes for p in parameters) + sum(2 * t.nbytes for t in state)
        with PeakMemory(nn.ParameterList([*parameters, *(nn.Parameter(p.grad) for p in parameters)])) as memory:
            memory.known |= {t.untyped_storage()._cdata for t in state}
            step()
        median = statistics.median(times[name])
        found[name] = {
            "ms": 1000 * median,
            **{r: statistics.median(a / b for a, b in zip(times[name], times[r], strict=True)) for r in REFERENCES},
            "MiB moved": moved / 2**20,
            "limit": median / (moved / bandwidth),
            "MiB extra": memory.peak / 2**20,
        }
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this benchmark."""
    parser.add_argument(
        "--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="Networks whose shapes are used."
    )
    parser.add_argument(
        "--methods", nargs="+", choices=list_optimizers(), default=list_optimizers(), help="Methods to measure."
    )
    parser.add_argument("--rounds", type=at_least(1), default=30, help="Steps of each that are timed.")
    parser.add_argument("--threads", type=at_least(1), default=None, help="CPU threads (default: torch's).")
    parser.add_argument(
        "--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu", help="Where to run."
    )
    parser.add_argument("--json", action="store_true", help="Print everything as JSON instead of tables.")


def run(args: argparse.Namespace) -> None:
    """Measures and prints."""
    if args.threads:
        torch.set_num_threads(args.threads)
    threads, settings = torch.get_num_threads(), (args.methods, args.rounds, args.device)
    if len(args.networks) == 1:
        found = {args.networks[0]: measure(args.networks[0], *settings)}
    else:
        # Each in a process of its own: steps take up to a third longer in memory that was used before.
        alone = {"max_tasks_per_child": 1, "mp_context": get_context("spawn")}
        with ProcessPoolExecutor(1, initializer=torch.set_num_threads, initargs=(threads,), **alone) as pool:
            found = {network: pool.submit(measure, network, *settings).result() for network in args.networks}
    if args.json:
        print(json.dumps(found, indent=2))
        return
    for network, rows in found.items():
        place = args.device if args.device != "cpu" else f"CPU, {threads} threads"
        print(f"{network}, {place}, medians of {args.rounds} steps of each in turn")
        print("  optimizer   ms/step   x AdamW   x SGD   MiB moved   x limit   MiB extra")
        for name, row in rows.items():
            print(
                f"  {name:9s} {row['ms']:9.2f} {row['adamw']:9.2f} {row['sgd']:7.2f} {row['MiB moved']:11.1f} "
                f"{row['limit']:9.2f} {row['MiB extra']:11.2f}"
            )
