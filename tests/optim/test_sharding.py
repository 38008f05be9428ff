"""Two processes with FSDP2 or otherwise distributed tensors take the steps of one, and their checkpoints are interchangeable."""

import os
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from tests.cases import CASES, Case
from tests.optim import sharded

SHARDABLE = pytest.mark.parametrize("case", [c for c in CASES if c.shardable], ids=str)
each_case = pytest.mark.parametrize("case", CASES, ids=str)
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
            for case in CASES:
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
@each_layout
def test_shards_step_like_whole_tensors(outcomes, case: Case, layout: str):
    distances = found(outcomes, case, layout)
    assert equal(distances)


@pytest.mark.parametrize("case", [c for c in CASES if not c.shardable], ids=str)
@pytest.mark.parametrize("what", [*sharded.LAYOUTS, "training"])
def test_a_rule_that_needs_whole_tensors_refuses_shards(outcomes, case: Case, what: str):
    for text in found(outcomes, case, what):
        assert "omega" in text
        assert "shard" in text


@SHARDABLE
def test_training_with_fully_shard_is_training_alone(outcomes, case: Case):
    distances = found(outcomes, case, "training")
    assert equal(distances)


@SHARDABLE
@each_layout
def test_a_checkpoint_of_two_resumes_alone(outcomes, folder: Path, case: Case, layout: str):
    distances = found(outcomes, case, f"saved {layout}")
    assert equal(distances)
    model = sharded.Mixed()
    optimizer = case.make(list(model.parameters()))
    sharded.load(case, model, optimizer, folder / f"two-{layout}", alone=True)
    sharded.steps(case, optimizer, model, sharded.HALF, sharded.STEPS)
    assert sharded.distance(model, sharded.trained(case)[0]) <= TOLERANCE


@SHARDABLE
@each_layout
def test_a_checkpoint_of_one_resumes_on_two(outcomes, case: Case, layout: str):
    distances = found(outcomes, case, f"resumed {layout}")
    assert equal(distances)


@each_case
@pytest.mark.parametrize("keep_originals", [False, True])
def test_flattened_parameters_are_refused(outcomes, case: Case, keep_originals: bool):
    for text in found(outcomes, case, f"flattened {keep_originals}"):
        assert "flattened" in text
        assert "fully_shard" in text
