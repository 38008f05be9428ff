"""A run's folder and what of its settings others may see."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from hf_geo import GeoTrainingArguments
from hf_geo.data.config import DataArguments
from hf_geo.explore.space import check_space
from hf_geo.models.config import ModelArguments
from hf_geo.runs.figures import draw_geometry, draw_training_curves
from hf_geo.runs.folder import check_output_dir, hardware, public_settings, remove_checkpoints

SHOWN = [
    ("/home/ada/net", "net"),
    ("~/net", "net"),
    ("../nets/net", "net"),
    ("local-dir:/home/ada/net", "local-dir:net"),
    ("weights=/home/ada/w.pth,drop_rate=0.1", "weights=w.pth,drop_rate=0.1"),
    ("hf-hub:timm/resnet18.a1_in1k", "hf-hub:timm/resnet18.a1_in1k"),
    ("https://example.org/a/b", "https://example.org/a/b"),
    ("resnet18", "resnet18"),
]


@pytest.mark.parametrize(("value", "shown"), SHOWN)
def test_paths_of_the_machine_are_not_shown(value: str, shown: str) -> None:
    assert public_settings(ModelArguments(model=value, model_args=value))["model"] == shown
    args = GeoTrainingArguments("unused", lr_scheduler_kwargs={"file": value})
    assert public_settings(args)["lr_scheduler_kwargs"] == {"file": shown}


@pytest.mark.parametrize(("name", "shown"), [("docs", "docs"), ("birds", "./birds"), (None, None)])
def test_embedded_data_keep_their_name_beside_a_folder_of_that_name(tmp_path, monkeypatch, name, shown) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("docs", "birds"):
        (tmp_path / folder).mkdir()
    assert public_settings(DataArguments(dataset=name))["dataset"] == shown
    if name is not None:
        with pytest.raises(ValueError, match="on this machine alone") if shown == "./birds" else nullcontext():
            check_space(tmp_path / "new", DataArguments(dataset=name))


def test_the_account_is_not_shown() -> None:
    names = {"run_name": "ada", "project": "ada", "hub_model_id": "ada/x", "trackio_space_id": "ada/y"}
    args = GeoTrainingArguments("/home/ada/run", hub_token="hf_ada", **names)
    assert "ada" not in str(public_settings(args)).replace("adamw", "").replace("adam_", "").replace("adafactor", "")
    assert public_settings(args, only={"seed", "hub_token"}) == {"seed": 42}


def test_only_checkpoints_are_removed(tmp_path) -> None:
    """Results stay until the new ones replace them."""
    (tmp_path / "README.md").write_text("mine")
    for name in ("figures", "checkpoint-2", "checkpoint-notes"):
        (tmp_path / name).mkdir()
    remove_checkpoints(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "figures", "checkpoint-notes"}


def test_what_a_killed_run_has_finished_counts(tmp_path) -> None:
    (tmp_path / "_staging" / "checkpoint-2").mkdir(parents=True)  # not finished
    assert check_output_dir(tmp_path, overwrite=False, resume=None) is None
    with pytest.raises(ValueError, match="no checkpoint in"):
        check_output_dir(tmp_path, overwrite=False, resume="true")
    (tmp_path / "_result").mkdir()
    with pytest.raises(ValueError, match="holds a finished run"):
        check_output_dir(tmp_path, overwrite=False, resume=None)


@pytest.mark.parametrize("weights", ["model.safetensors", "model-00001-of-00002.safetensors"])
def test_not_to_resume_does_not_mean_to_overwrite(tmp_path, weights: str) -> None:
    assert check_output_dir(tmp_path, overwrite=False, resume="false") is None
    (tmp_path / weights).touch()
    with pytest.raises(ValueError, match="holds a finished run"):
        check_output_dir(tmp_path, overwrite=False, resume="false")


def test_the_hardware_is_what_was_used() -> None:
    assert "CPU cores" in hardware(1, torch.device("cpu")) and "(2 processes)" in hardware(2, torch.device("cpu"))


def test_names_are_no_formulas(tmp_path: Path) -> None:
    """A `$` in a data set's name is matplotlib's sign for mathematics."""
    log = [{"step": 1, "loss": 1.0}, {"step": 2, "geometry/angle/w": 0.1}]
    title = r"my$\wrong{$data"
    draw_training_curves(log, "accuracy", tmp_path / "training.png", title)
    assert draw_geometry(log, tmp_path / "geometry.png", title)
    assert all(imread(tmp_path / name).std() > 0 for name in ("training.png", "geometry.png"))
