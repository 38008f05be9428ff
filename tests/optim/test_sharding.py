"""Four processes with distributed tensors (FSDP2, HSDP, tensor parallelism) take the steps of one, and share its checkpoints."""

import os
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from tests.cases import Case
from tests.optim import sharded

SHARDABLE = pytest.mark.parametrize("case", [c for c in sharded.ROWS if c.shardable], ids=str)
NOT_SHARDABLE = pytest.mark.parametrize("case", [c for c in sharded.ROWS if not c.shardable], ids=str)
each_training = pytest.mark.parametrize("what", [*sharded.LAYOUTS, "training"])
TOLERANCE = 1e-10  # in float64
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where processes have left their outcomes and checkpoints; test workers share one run of theirs."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    folder = root / "sharded"
    with FileLock(root / "sharded.lock"):
        if not folder.exists():
            folder.mkdir()
            for case in sharded.SAVED:
                sharded.save(case, *sharded.trained(case, sharded.HALF), folder / "one", alone=True)
            torch.multiprocessing.start_processes(sharded.work, (folder,), nprocs=sharded.RANKS, start_method="fork")
    return folder


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> list[dict]:
    """By rank, then by row: distances to the single process's parameters, or the text of a refusal."""
    return [torch.load(folder / f"outcomes-{rank}.pt") for rank in range(sharded.RANKS)]


def assert_equal(outcomes: list[dict], case: Case, what: str) -> None:
    """Asserts that every process found its parameters equal, and met no error."""
    found = [by_rank[case.id][what] for by_rank in outcomes]
    assert all(isinstance(d, float) and d <= TOLERANCE for d in found), found


@SHARDABLE
@each_training
def test_shards_step_like_whole_tensors(outcomes, case: Case, what: str):
    assert_equal(outcomes, case, what)


@pytest.mark.parametrize("case", sharded.FUSED_ROWS, ids=str)
def test_fused_kernels_step_on_shards_as_on_whole_tensors(outcomes, case: Case):
    assert_equal(outcomes, case, "training")


@NOT_SHARDABLE
@each_training
def test_a_rule_that_needs_whole_tensors_refuses_shards(outcomes, case: Case, what: str):
    for by_rank in outcomes:
        assert "omega" in by_rank[case.id][what]
        assert "shard" in by_rank[case.id][what]


@NOT_SHARDABLE
def test_an_axis_of_one_process_cuts_nothing(outcomes, case: Case):
    assert_equal(outcomes, case, "uncut")


@pytest.mark.parametrize("case", sharded.SAVED, ids=str)
@pytest.mark.parametrize("layout", sharded.LAYOUTS)
def test_checkpoints_of_all_layouts_and_of_one_process_are_interchangeable(
    outcomes, folder: Path, case: Case, layout: str
):
    assert_equal(outcomes, case, f"resumed {layout}")
    model = sharded.Mixed()
    optimizer = case.make(list(model.parameters()))
    sharded.load(case, model, optimizer, folder / layout, alone=True)
    sharded.steps(case, optimizer, model, sharded.HALF, sharded.STEPS)
    assert sharded.distance(model, sharded.trained(case)[0]) <= TOLERANCE


@pytest.mark.parametrize("placement", ["Partial(sum)", "Unknown()"])
def test_other_placements_are_refused_before_anything_moves(outcomes, placement: str):
    for by_rank in outcomes:
        for case in sharded.ROWS:
            text = by_rank[case.id][placement]
            assert text.startswith("RuntimeError: A parameter of shape (5, 19) has the placement"), (case.id, text)
            assert placement in text
            assert "redistribute" in text


@pytest.mark.parametrize("keep_originals", [False, True])
def test_flattened_parameters_are_refused(outcomes, keep_originals: bool):
    for by_rank in outcomes:
        assert "flattened" in by_rank["flattened"][str(keep_originals)]
        assert "fully_shard" in by_rank["flattened"][str(keep_originals)]
