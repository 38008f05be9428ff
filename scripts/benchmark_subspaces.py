"""The cost of a subspace: of a training step and its memory compared with the plain network, and of a walk.

Steps of the plain network, a line and a simplex of five points are timed in turn. Times are processor time on a CPU, so that
other programs do not count, and wall time on a GPU.

A walk is compared with the paper's loop, which takes norm statistics from the whole training set and evaluates, for two
networks at each of 22 steps along a line. Both take time linear in the number of batches: they are measured on a few, of JPEG
files that are decoded as they are read, and extrapolated to CIFAR-10's 50,000 training and 10,000 test images.
"""

import argparse
import io
import statistics
from collections.abc import Callable

import timm
import torch
import torch.nn.functional as F
from benchmark_language import PeakMemory, seconds
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

import hf_geo.models.cifar  # noqa: F401  (its names in timm)
from hf_geo.cli.options import at_least, device
from hf_geo.evaluation import recalibrate_norms
from hf_geo.evaluation.walk import RECALIBRATION_BATCHES, walk
from hf_geo.subspaces import Subspace, SubspaceConfig, draw_generator

SHAPES = {"plain": None, "line": SubspaceConfig("line"), "simplex of 5": SubspaceConfig("simplex", 5)}
# Sizes at which subspaces are usually trained: network, pixels, batch.
SETTINGS = {
    "cifar_resnet20": ("cifar_resnet20", 32, 128),
    "resnet18": ("resnet18", 224, 32),
}
TRAIN_IMAGES, TEST_IMAGES = 50_000, 10_000
LOOP_STEPS, POSITIONS = 22, 21


class Step:
    """A training step with SGD and momentum, at a new position each time.

    Args:
        make: Makes the network.
        config: None for the plain network.
        images, labels: The batch, on the device to train on.
    """

    def __init__(
        self, make: Callable[[], nn.Module], config: SubspaceConfig | None, images: Tensor, labels: Tensor
    ) -> None:
        self.model = make()
        self.subspace = None if config is None else Subspace.attach(self.model, config, model_init=make)
        self.model.to(images.device)
        self.batch = images, labels
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9)
        self.count = 0

    def __call__(self) -> None:
        images, labels = self.batch
        generator = draw_generator(0, self.count)
        if self.subspace is not None:
            self.subspace.sample(generator)
        loss = F.cross_entropy(self.model(images), labels)
        if self.subspace is not None:
            loss = loss + self.subspace.config.beta * self.subspace.regularizer(generator=generator)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.count += 1


def measure_steps(make: Callable[[], nn.Module], images: Tensor, labels: Tensor, rounds: int) -> dict[str, dict]:
    """Times steps in turn.

    Returns:
        For each of `SHAPES`: `seconds` of a step (median), its `ratio` to the plain one (median over rounds), and in MiB the
        `parameters` and the `peak` that a step needs in addition, gradients and optimizer state included.
    """
    steps = {name: Step(make, config, images, labels) for name, config in SHAPES.items()}
    found = {}
    for name, step in steps.items():
        with PeakMemory(step.model) as memory:
            step()
        size = sum(p.numel() * p.element_size() for p in step.model.parameters())
        found[name] = {"parameters": size / 2**20, "peak": memory.peak / 2**20}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name in list(steps) if turn % 2 else list(steps)[::-1]:
            times[name].append(seconds(steps[name], images.device))
    for name, values in times.items():
        found[name]["seconds"] = statistics.median(values[1:])  # the first round warms up
        pairs = zip(values[1:], times["plain"][1:], strict=True)
        found[name]["ratio"] = statistics.median(a / b for a, b in pairs)
    return found


class Photographs(Dataset):
    """Encoded colour images and their labels."""

    def __init__(self, count: int, pixels: int) -> None:
        coarse = torch.rand(count, 3, pixels // 4, pixels // 4)
        smooth = F.interpolate(coarse, size=(pixels, pixels), mode="bilinear")
        self.files = [io.BytesIO() for _ in smooth]
        for file, image in zip(self.files, smooth, strict=True):
            to_pil_image(image).save(file, "JPEG")
        self.labels = torch.randint(10, (count,)).tolist()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return pil_to_tensor(Image.open(self.files[index])).float() / 127.5 - 1, self.labels[index]


def measure_walk(
    make: Callable[[], nn.Module], pixels: int, batch: int, batches: int, device: torch.device
) -> dict[str, float]:
    """Times the paper's loop and a walk by batch, and extrapolates both to CIFAR-10.

    Returns:
        Seconds of the `loop`, of the `full` walk (statistics of the whole training set) and of the `default` one.
    """
    subspace = Subspace.attach(make(), SHAPES["line"], model_init=make)
    subspace.model.to(device)
    data = DataLoader(Photographs(batch * batches, pixels), batch_size=batch)
    rows = [subspace.config.shape.coefficients(t) for t in torch.linspace(0, 1, POSITIONS, dtype=torch.float64)]
    pairs = [(i, POSITIONS - 1 - i) for i in range(POSITIONS // 2)]

    def evaluate() -> None:
        with torch.no_grad():
            for inputs, targets in data:
                logits, targets = subspace.model.eval()(inputs.to(device)), targets.to(device)
                F.cross_entropy(logits, targets).item()
                (logits.argmax(-1) == targets).sum().item()

    def timed(call: Callable[[], object]) -> float:
        return seconds(call, device) / batches

    walk(subspace, rows[:2], data, data)  # warms up
    loop_recalibrates, loop_evaluates = timed(lambda: recalibrate_norms(subspace.model, data)), timed(evaluate)
    evaluates = timed(lambda: walk(subspace, rows, data, None, ensembles=pairs))
    recalibrates = timed(lambda: walk(subspace, rows, data, data, ensembles=pairs)) - evaluates
    train, test = TRAIN_IMAGES / batch, TEST_IMAGES / batch
    return {
        "loop": LOOP_STEPS * 2 * (train * loop_recalibrates + test * loop_evaluates),
        "full": train * recalibrates + test * evaluates,
        "default": RECALIBRATION_BATCHES * recalibrates + test * evaluates,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this benchmark."""
    parser.add_argument("--networks", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="Networks to train.")
    parser.add_argument("--rounds", type=at_least(1), default=10, help="Steps of each that are timed.")
    parser.add_argument(
        "--batches", type=at_least(0), default=4, help="Batches of a walk that are timed; 0 skips walks."
    )
    parser.add_argument(
        "--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu", help="Where to run."
    )


def run(args: argparse.Namespace) -> None:
    """Measures and prints."""
    for network in args.networks:
        name, pixels, batch = SETTINGS[network]
        torch.manual_seed(0)
        images = torch.randn(batch, 3, pixels, pixels, device=args.device)
        labels = torch.randint(10, (batch,), device=args.device)

        def make(name: str = name) -> nn.Module:
            return timm.create_model(name, num_classes=10)

        print(f"{network}, {pixels} px, batch {batch}, {args.device}")
        for shape, row in measure_steps(make, images, labels, args.rounds).items():
            print(
                f"  {shape:13s} {1000 * row['seconds']:9.1f} ms/step  {row['ratio']:5.3f} x plain"
                f"  {row['parameters']:8.1f} MiB of parameters  {row['peak']:8.1f} MiB beside them at the peak"
            )
        if args.batches and network == args.networks[0]:
            found = measure_walk(make, pixels, batch, args.batches, images.device)
            print(f"  walk of {POSITIONS} positions on CIFAR-10: the paper's loop {found['loop']:,.0f} s")
            for which, words in (("full", "all training images"), ("default", f"{RECALIBRATION_BATCHES} batches")):
                print(
                    f"    norm statistics of {words:20s} {found[which]:8,.0f} s  {found['loop'] / found[which]:5.2f} x"
                )
