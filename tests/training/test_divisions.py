"""However an update is divided over micro-batches and processes, its gradient is the mean over its samples or label tokens."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.launching import launch_or_fail
from tests.training.run_divisions import DIVISIONS, EVALUATED, KINDS, ROWS, by_hand, make_model

SCRIPT = Path(__file__).with_name("run_divisions.py")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("divisions")
    for processes in DIVISIONS:
        launch_or_fail(SCRIPT, folder / f"{processes}.safetensors", processes=processes)
    return load_file(folder / "1.safetensors") | load_file(folder / "2.safetensors")


@pytest.mark.parametrize(("kind", "name"), ROWS, ids=[f"{kind}-{name}" for kind, name in ROWS])
def test_the_same_update_however_divided(trained, kind: str, name: str) -> None:
    weights, losses = by_hand(kind, name)
    for processes, divisions in DIVISIONS.items():
        for batch, accumulation in divisions:
            way = f"{kind}/{name}/{processes} x {batch} x {accumulation}"
            torch.testing.assert_close(
                trained[way], weights, rtol=0, atol=1e-6, msg=lambda text, way=way: f"{way}: {text}"
            )
            torch.testing.assert_close(trained[f"{way}/losses"].double(), losses.double(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", EVALUATED)
def test_the_same_evaluation_with_any_number_of_processes(trained, kind: str) -> None:
    with torch.no_grad():
        loss = make_model(kind).eval()(**{name: values[:16] for name, values in KINDS[kind].data.items()})["loss"]
    for processes in DIVISIONS:
        assert trained[f"{kind}/{processes}/evaluated"].item() == pytest.approx(loss.item(), abs=1e-6)
