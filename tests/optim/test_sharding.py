"""Two processes with FSDP2 or otherwise distributed tensors take the steps of one, and their checkpoints are interchangeable."""

import os
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from tests.cases import PATHS, Case
from tests.optim import sharded

SHARDABLE = pytest.mark.parametrize("case", [c for c in PATHS if c.shardable], ids=str)
each_layout = pytest.mark.parametrize("layout", sharded.LAYOUTS)
TOLERANCE = 1e-10  # in float64
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where two processes have left their outcomes and checkpoints; test workers share one run of theirs."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    folder = root / "sharded"
    with FileLock(root / "sharded.lock"):
        if not folder.exists():
            folder.mkdir()
            for case in PATHS:
                if case.shardable:
                    sharded.save(case, *sharded.trained(case, sharded.HALF), folder / "one", alone=True)
            torch.multiprocessing.spawn(sharded.work, (folder,), nprocs=sharded.RANKS)
    return folder


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> list[dict]:
    """By rank, then by row: distances to the single process's parameters, or the text of a refusal."""
    return [torch.load(folder / f"outcomes-{rank}.pt") for rank in range(sharded.RANKS)]


def found(outcomes: list[dict], case: Case, what: str) -> list:
    return [by_rank[case.id][what] for by_rank in outcomes]


def equal(distances: list) -> bool:
    """Whether every process found its parameters equal; not so where one met an error."""
    return all(isinstance(d, float) and d <= TOLERANCE for d in distances)


@SHARDABLE
def test_shards_step_like_whole_tensors(outcomes, case: Case):
    for what in (*sharded.LAYOUTS, "training"):
        assert equal(found(outcomes, case, what)), what


@pytest.mark.parametrize("case", [c for c in PATHS if not c.shardable], ids=str)
@pytest.mark.parametrize("what", [*sharded.LAYOUTS, "training"])
def test_a_rule_that_needs_whole_tensors_refuses_shards(outcomes, case: Case, what: str):
    for text in found(outcomes, case, what):
        assert "omega" in text
        assert "shard" in text


@SHARDABLE
@each_layout
def test_checkpoints_of_one_and_of_two_are_interchangeable(outcomes, folder: Path, case: Case, layout: str):
    assert equal(found(outcomes, case, f"resumed {layout}"))
    model = sharded.Mixed()
    optimizer = case.make(list(model.parameters()))
    sharded.load(case, model, optimizer, folder / f"two-{layout}", alone=True)
    sharded.steps(case, optimizer, model, sharded.HALF, sharded.STEPS)
    assert sharded.distance(model, sharded.trained(case)[0]) <= TOLERANCE


@pytest.mark.parametrize("keep_originals", [False, True])
def test_flattened_parameters_are_refused(outcomes, keep_originals: bool):
    for by_rank in outcomes:
        assert "flattened" in by_rank["flattened"][str(keep_originals)]
        assert "fully_shard" in by_rank["flattened"][str(keep_originals)]
