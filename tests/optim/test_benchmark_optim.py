"""`scripts/benchmark.py optim` has a row for every method, with the traffic that can be told beforehand."""

import importlib
import json

import pytest

from hf_geo.optim import list_optimizers
from tests.paths import REPOSITORY
from tests.scripts import script

PARAMETERS = 272_474  # of a CIFAR ResNet-20
FILTERS = 688 + 10  # of its convolutions and its classifier, one second moment each


def test_every_method_is_measured_beside_torch_s(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    module = importlib.import_module("benchmark_optim")
    monkeypatch.setitem(module.NETWORKS, "cifar_resnet20", (32, 2, 2))
    assert script("benchmark")(["optim", "--networks", "cifar_resnet20", "--rounds", 1, "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)["cifar_resnet20"]

    rows = tables["steps"]
    assert list(rows) == [*module.REFERENCES, *list_optimizers()]
    assert rows["adamw"]["adamw"] == rows["muon"]["muon"] == 1.0
    assert all(row["ms"] > 0 for row in rows.values())
    moved = {name: row["MiB"] * 2**20 / 4 for name, row in rows.items()}
    assert moved["fromage"] == pytest.approx(3 * PARAMETERS)
    assert moved["alig"] == pytest.approx(5 * PARAMETERS)
    assert moved["adamw"] == moved["foreach"] == pytest.approx(7 * PARAMETERS, rel=1e-3)
    assert moved["adamsrt"] == pytest.approx(5 * PARAMETERS + 2 * FILTERS, rel=3e-2)

    assert list(tables["training"]) == ["ms", *list_optimizers()]
    assert all(value > 0 for value in tables["training"].values())
