"""`scripts/benchmark.py optim` has a row for every method, with the traffic that can be told beforehand."""

import importlib
import json
from types import ModuleType

import pytest
import torch

from hf_geo.optim import list_optimizers
from tests.paths import REPOSITORY
from tests.scripts import script

SHAPES = [(64, 32, 3, 3), (64,), (10, 64), ()]
NUMBERS = sum(torch.Size(shape).numel() for shape in SHAPES)
ROWS = 64 + 10  # second moments of the two weights, one a filter


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    module = importlib.import_module("benchmark_optim")
    monkeypatch.setitem(module.NETWORKS, "resnet18", lambda: SHAPES)
    return module


def test_every_method_is_measured_beside_torch_s(benchmark: ModuleType, capsys) -> None:
    assert script("benchmark")(["optim", "--networks", "resnet18", "--rounds", 2, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["resnet18"]
    assert list(rows) == [*benchmark.REFERENCES, *list_optimizers()]
    assert rows["adamw"]["adamw"] == rows["sgd"]["sgd"] == 1.0
    assert all(row["ms"] > 0 and row["limit"] > 0 for row in rows.values())

    moved = {name: row["MiB moved"] * 2**20 / 4 for name, row in rows.items()}
    assert moved["fromage"] == pytest.approx(3 * NUMBERS)
    assert moved["alig"] == moved["sgd"] == pytest.approx(5 * NUMBERS, rel=1e-3)
    assert moved["adamw"] == pytest.approx(7 * NUMBERS, rel=1e-3)
    assert moved["adamsrt"] == pytest.approx(5 * NUMBERS + 2 * (ROWS + 64), rel=1e-3)


def test_networks_have_their_published_sizes(benchmark: ModuleType) -> None:
    sizes = {name: sum(torch.Size(s).numel() for s in shapes()) for name, shapes in benchmark.NETWORKS.items()}
    assert sizes["vit_s"] == 22_050_664
    assert sizes["wrn_28_10"] == 36_479_194
    assert sizes["wikitext2"] == pytest.approx(13.8e6, rel=0.01)
