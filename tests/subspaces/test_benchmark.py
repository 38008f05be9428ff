"""What a subspace may cost in memory, measured as scripts/benchmark_subspaces.py does, and that it measures at all."""

import importlib
from types import ModuleType

import pytest
import timm
import torch
from torch import nn

from tests.paths import REPOSITORY


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    return importlib.import_module("benchmark_subspaces")


def make() -> nn.Module:
    return timm.create_model("test_resnet", num_classes=10)


def test_memory_grows_by_points_gradients_and_state_and_the_combined_weights(benchmark: ModuleType) -> None:
    images, labels = torch.randn(2, 3, 32, 32), torch.randint(10, (2,))
    found = benchmark.measure_steps(make, images, labels, rounds=1)
    plain = found["plain"]
    for name, points in (("line", 2), ("simplex of 5", 5)):
        row = found[name]
        assert row["parameters"] == pytest.approx(points * plain["parameters"])
        # Gradients and momenta of the further points, and the combined weights that the network runs with.
        further = (2 * (points - 1) + 1) * plain["parameters"]
        assert row["peak"] < plain["peak"] + 1.05 * further
        assert row["seconds"] > 0


def test_a_walk_is_faster_than_the_papers_loop(benchmark: ModuleType) -> None:
    found = benchmark.measure_walk(make, 32, 64, 2, torch.device("cpu"))
    assert found["loop"] > 1.5 * found["full"] > 3 * found["default"]
