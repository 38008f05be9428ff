"""An update's gradient and loss are means over its samples, however they are divided: ragged parts, every kind of model."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.launching import launch_or_fail
from tests.training.run_update_means import KINDS, OPTIMS, WAYS

SCRIPT = Path(__file__).with_name("run_update_means.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("means")
    for processes in WAYS:
        launch_or_fail(SCRIPT, folder / f"{processes}.safetensors", processes=processes)
    return load_file(folder / "1.safetensors") | load_file(folder / "2.safetensors")


@pytest.mark.parametrize("optim", OPTIMS)
@pytest.mark.parametrize("kind", KINDS)
def test_divided_updates_are_the_same(found, kind: str, optim: str) -> None:
    whole, *others = [way for ways in WAYS.values() for way in ways]
    for way in others:
        for what in ("weights", "loss"):
            expected = found[f"{kind}/{optim}/{whole}/{what}"]
            torch.testing.assert_close(
                found[f"{kind}/{optim}/{way}/{what}"], expected, rtol=0, atol=1e-6, msg=lambda m, w=way: f"{w}: {m}"
            )
