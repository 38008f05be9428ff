"""However an update's batch is divided and whichever loop runs it, the weights come out the same."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_geo.optim import list_optimizers
from tests.training.launching import launch_or_fail

SCRIPT = Path(__file__).with_name("run_trajectories.py")
SPLITS = {"points": ("1 x 4 x 2", "2 x 4 x 1", "2 x 2 x 2"), "sentences": ("1 x 4 x 2", "2 x 4 x 1", "2 x 2 x 2")}
THEIRS = ("transformers 8 x 1", "transformers 4 x 2")
LOOPS = {"points": (*THEIRS, "accelerate", "torch"), "sentences": THEIRS}
ROWS = [(kind, way) for kind in SPLITS for way in (*SPLITS[kind], *LOOPS[kind])]


@pytest.fixture(scope="module")
def trajectories(tmp_path_factory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("trajectories")
    for processes in (1, 2):
        launch_or_fail(SCRIPT, folder / f"{processes}.safetensors", processes=processes)
    return load_file(folder / "1.safetensors") | load_file(folder / "2.safetensors")


@pytest.mark.parametrize("name", list_optimizers())
@pytest.mark.parametrize(("kind", "way"), ROWS, ids=[f"{kind}-{way}" for kind, way in ROWS])
def test_same_weights(trajectories, kind: str, way: str, name: str) -> None:
    whole = trajectories[f"{kind}/{name}/1 x 8 x 1"]
    torch.testing.assert_close(trajectories[f"{kind}/{name}/{way}"], whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", list_optimizers())
@pytest.mark.parametrize("kind", SPLITS)
def test_training_moves_the_weights(trajectories, kind: str, name: str) -> None:
    others = [trajectories[f"{kind}/{other}/1 x 8 x 1"] for other in list_optimizers() if other != name]
    same = [torch.equal(trajectories[f"{kind}/{name}/1 x 8 x 1"], other) for other in others]
    assert whole_moved(trajectories, kind, name) and sum(same) <= 1  # plain AdamS and AdamSRT are both Adam


def whole_moved(trajectories: dict[str, torch.Tensor], kind: str, name: str) -> bool:
    from tests.training.problems import flat, make_problem

    return (trajectories[f"{kind}/{name}/1 x 8 x 1"] - flat(make_problem(kind)[0])).abs().max() > 1e-3
