"""Two processes, sharded or replicated, each at its own position, train like one that does the work of both."""

from pathlib import Path

import pytest
import torch

from hf_geo.subspaces import Subspace
from tests.subspaces import distributed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have left their outcomes."""
    folder = tmp_path_factory.mktemp("distributed")
    torch.multiprocessing.start_processes(distributed.work, (folder,), nprocs=distributed.RANKS, start_method="fork")
    return folder


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> list[dict]:
    return [torch.load(folder / f"outcomes-{rank}.pt") for rank in range(distributed.RANKS)]


WAYS = {"sharded": ("normed", "tied"), "sharded apart": ("tied",), "replicated": ("tied", "convolutions")}


@pytest.mark.parametrize(("way", "network"), [(way, network) for way, networks in WAYS.items() for network in networks])
def test_training_at_each_ranks_own_positions_is_that_of_one_process(outcomes, way: str, network: str) -> None:
    assert all(outcome[way][network]["distance"] < 1e-12 for outcome in outcomes)
    drawn = [row for outcome in outcomes for row in outcome[way][network]["coefficients"]]
    assert len({tuple(row) for row in drawn}) == distributed.RANKS * distributed.STEPS


@pytest.mark.parametrize("network", ["normed", "tied"])
def test_cosine_and_distance_of_sharded_points_are_those_of_whole_ones(outcomes: list[dict], network: str) -> None:
    for outcome in outcomes:
        shown, expected = outcome["sharded"][network]["compared"]
        assert shown == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("network", ["normed", "tied"])
def test_shards_are_saved_whole_by_the_first_process(folder: Path, outcomes: list[dict], network: str) -> None:
    assert not (folder / f"saved-{network}-1").exists()
    plain = distributed.NETWORKS[network]().double()
    assert distributed.distance(Subspace.load(folder / f"saved-{network}-0", plain), distributed.alone(network)) < 1e-12
