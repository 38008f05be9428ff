"""Two processes, sharded or replicated, each at its own position, train like one that does the work of both."""

import os
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from hf_geo.subspaces import Subspace
from tests.subspaces import distributed

each = pytest.mark.parametrize(
    ("way", "network"),
    [
        ("sharded", "normed"),
        ("sharded", "tied"),
        ("sharded apart", "tied"),
        ("replicated", "tied"),
        ("replicated", "convolutions"),
    ],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have left their outcomes; test workers share one run of theirs."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    folder = root / "subspaces-distributed"
    with FileLock(root / "subspaces-distributed.lock"):
        if not folder.exists():
            folder.mkdir()
            torch.multiprocessing.spawn(distributed.work, (folder,), nprocs=distributed.RANKS)
    return folder


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> list[dict]:
    return [torch.load(folder / f"outcomes-{rank}.pt") for rank in range(distributed.RANKS)]


@each
def test_training_is_that_of_one_process(outcomes: list[dict], way: str, network: str) -> None:
    assert all(outcome[way][network]["distance"] < 1e-12 for outcome in outcomes)


@each
def test_each_rank_runs_at_its_own_positions(outcomes: list[dict], way: str, network: str) -> None:
    drawn = [row for outcome in outcomes for row in outcome[way][network]["coefficients"]]
    assert len({tuple(row) for row in drawn}) == distributed.RANKS * distributed.STEPS


@pytest.mark.parametrize("network", ["normed", "tied"])
def test_shards_are_saved_whole_by_the_first_process(folder: Path, outcomes: list[dict], network: str) -> None:
    assert not (folder / f"saved-{network}-1").exists()
    plain = distributed.NETWORKS[network]().double()
    assert distributed.distance(Subspace.load(folder / f"saved-{network}-0", plain), distributed.alone(network)) < 1e-12
