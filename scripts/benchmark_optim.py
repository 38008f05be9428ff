"""Time of optimizer steps and of whole training steps, compared with torch's AdamW and Muon.

All are timed in turn, on weights of their own. Methods with a geometry treat weights with two or more axes by filter.

The first table gives optimizer steps on a network's weights, with gradients that stay: milliseconds, ratios to torch's fused
AdamW, its foreach AdamW and its Muon (of weights as matrices, with fused AdamW for the rest), kernels launched, and the time
of these kernels over the time that moving each weight, gradient and state once takes at the bandwidth of a copy measured in
the same run. The second gives training steps (forward, backward, optimizer step) as ratios to those with fused AdamW.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import timm
import torch
from benchmark_language import seconds
from torch import Tensor, nn
from torch.nn import functional as F

import hf_geo.models  # noqa: F401 - registers cifar_resnet20
from hf_geo.cli.options import at_least, device
from hf_geo.optim import create_optimizer, get_method, list_optimizers

# By name: image size, and number of images of a batch on a GPU and on a CPU.
NETWORKS = {
    "cifar_resnet20": (32, 128, 128),
    "resnet18": (224, 64, 4),
    "resnet50": (224, 64, 4),
    "vit_small_patch16_224": (224, 64, 4),
    "vit_base_patch16_224": (224, 64, 2),
}
REFERENCES = ("adamw", "foreach", "muon")
WARM_UP = 3
IN_A_ROW = {"cuda": 20, "cpu": 1}  # optimizer steps that are timed together


def muon(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of a model, AdamW for the rest."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim != 2]
    return [torch.optim.Muon(matrices, lr=1e-3), torch.optim.AdamW(rest, lr=1e-3, fused=True)]


def make_optimizers(name: str, model: nn.Module) -> list[torch.optim.Optimizer]:
    """The optimizer of a method or reference."""
    if name == "muon":
        return muon(model)
    if name in REFERENCES:
        return [torch.optim.AdamW(model.parameters(), lr=1e-3, **{"fused" if name == "adamw" else "foreach": True})]
    # SGD-G's orthogonality term is left out: it is a matrix product, whose cost would hide the step's.
    names = {key: (0,) for key, p in model.named_parameters() if p.ndim > 1 and p[0].numel() > 1}
    shapes = dict(model.named_parameters())
    method = get_method(name)
    on_spheres = method.geometry and any(method.geometry(shapes[key].shape, (0,)) for key in names)
    plain = {"geometry": {"omega": 0.0}} if on_spheres and "omega" in method.arguments else {}
    return [create_optimizer(name, model, invariant=names, group_settings=plain)]


def step_of(name: str, optimizers: list[torch.optim.Optimizer], loss: Tensor) -> None:
    """Takes the step of a method or reference."""
    for optimizer in optimizers:
        if name in list_optimizers() and get_method(name).needs_loss:
            optimizer.step(lambda: loss)
        else:
            optimizer.step()


def weights_like(network: str, name: str, device: str) -> nn.ParameterList:
    """Weights of a network's shapes with gradients; Muon takes those of convolutions as matrices."""
    with torch.device("meta"):
        shapes = [p.shape for p in timm.create_model(network).parameters()]
    torch.manual_seed(0)
    weights = nn.ParameterList(torch.randn(shape, device=device) * 0.05 + 0.01 for shape in shapes)
    if name == "muon":
        weights = nn.ParameterList(p.detach().flatten(1) if p.ndim > 2 else p for p in weights)
    for p in weights:
        p.grad = torch.randn_like(p) * 0.01
    return weights


def bytes_needed(optimizers: list[torch.optim.Optimizer]) -> int:
    """Bytes of a step that reads each weight, gradient and state once, and writes all but the gradients."""
    total = 0
    for optimizer in optimizers:
        total += sum(3 * p.nbytes for group in optimizer.param_groups for p in group["params"])
        total += sum(2 * v.nbytes for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor))
    return total


def kernels(call: Callable[[], Any]) -> tuple[int, float]:
    """The number of kernels that a call launches, and their seconds."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    events = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA and "Mem" not in e.name]
    return len(events), sum(e.time_range.elapsed_us() for e in events) / 1e6


def interleaved(calls: dict[str, Callable[[], Any]], device: str, rounds: int, count: int) -> dict[str, list[float]]:
    """Seconds of each call in every round, all in turn."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + WARM_UP):
        for name, call in calls.items():
            times[name].append(seconds(call, device, count, time.perf_counter))
    return {name: values[WARM_UP:] for name, values in times.items()}


def ratio(times: dict[str, list[float]], name: str, reference: str) -> float:
    """The median over rounds of the ratio of two times."""
    return statistics.median(a / b for a, b in zip(times[name], times[reference], strict=True))


def measure_steps(network: str, methods: list[str], rounds: int, device: str) -> dict[str, dict[str, float]]:
    """Times optimizer steps.

    Returns:
        By name: "ms", ratios to the references, "MiB" that have to move, and on a GPU "launches" and "x moving".
    """
    is_cuda = torch.device(device).type == "cuda"
    loss = torch.tensor(1.0, device=device)
    made = {n: make_optimizers(n, weights_like(network, n, device)) for n in (*REFERENCES, *methods)}
    calls: dict[str, Callable[[], Any]] = {n: lambda n=n: step_of(n, made[n], loss) for n in made}
    times = interleaved(calls, device, rounds, IN_A_ROW["cuda" if is_cuda else "cpu"])
    found = {}
    if is_cuda:
        source = torch.randn(1 << 28, device=device)
        target = torch.empty_like(source)
        copies = [seconds(lambda: target.copy_(source), device, 5) for _ in range(5)]
        bandwidth = 2 * source.nbytes / min(copies)
    for name, optimizers in made.items():
        found[name] = {"ms": 1000 * statistics.median(times[name]), **{r: ratio(times, name, r) for r in REFERENCES}}
        found[name]["MiB"] = bytes_needed(optimizers) / 2**20
        if is_cuda:
            count, busy = kernels(calls[name])
            found[name] |= {"launches": count, "x moving": busy * bandwidth / bytes_needed(optimizers)}
    return found


def measure_training(network: str, methods: list[str], rounds: int, device: str) -> dict[str, float]:
    """Times training steps on random images, in bfloat16 on a GPU; returns ratios to those with fused AdamW."""
    is_cuda = torch.device(device).type == "cuda"
    size, on_gpu, on_cpu = NETWORKS[network]
    images = torch.randn(on_gpu if is_cuda else on_cpu, 3, size, size, device=device)
    labels = torch.arange(len(images), device=device) % 10

    def make_call(name: str) -> Callable[[], None]:
        torch.manual_seed(0)
        model = timm.create_model(network, num_classes=10).to(device).train()
        optimizers = make_optimizers(name, model)

        def call() -> None:
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=is_cuda):
                loss = F.cross_entropy(model(images), labels)
            loss.backward()
            step_of(name, optimizers, loss.detach())
            for optimizer in optimizers:
                optimizer.zero_grad()

        return call

    times = interleaved({n: make_call(n) for n in ("adamw", *methods)}, device, rounds, 5 if is_cuda else 1)
    return {"ms": 1000 * statistics.median(times["adamw"]), **{n: ratio(times, n, "adamw") for n in methods}}


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {"steps": measure_steps, "training": measure_training}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this benchmark."""
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="Networks.")
    parser.add_argument(
        "--methods", nargs="+", choices=list_optimizers(), default=list_optimizers(), help="Methods to measure."
    )
    parser.add_argument("--tables", nargs="+", choices=MEASURES, default=list(MEASURES), help="Tables to make.")
    parser.add_argument("--rounds", type=at_least(1), default=30, help="How often each is timed.")
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
    found: dict[str, dict[str, Any]] = {}
    for network in args.networks:
        if args.device != "cpu" or len(args.networks) == 1:
            found[network] = {table: MEASURES[table](network, *settings) for table in args.tables}
            continue
        # Each in a process of its own: steps take up to a third longer in memory that was used before.
        with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
            found[network] = {t: pool.submit(MEASURES[t], network, *settings).result() for t in args.tables}
    if args.json:
        print(json.dumps(found, indent=2))
        return
    place = torch.cuda.get_device_name(args.device) if args.device != "cpu" else f"CPU, {threads} threads"
    for network, tables in found.items():
        print(f"{network}, {place}, medians of {args.rounds} rounds")
        if "steps" in tables:
            columns = ["ms", *REFERENCES, "MiB", *(["launches", "x moving"] if args.device != "cpu" else [])]
            print("  optimizer " + "".join(f"{column:>10s}" for column in columns))
            for name, row in tables["steps"].items():
                print(f"  {name:10s}" + "".join(f"{row[column]:10.4g}" for column in columns))
        if "training" in tables:
            row = tables["training"]
            print(f"  training step with fused AdamW {row['ms']:.2f} ms; with others, as a multiple of it:")
            print("  " + "  ".join(f"{name} {row[name]:.3f}" for name in args.methods))
