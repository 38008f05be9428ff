"""A checkpoint is complete or not there; a damaged one is found, said, and passed over."""

import json
import logging
import random
import shutil
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainingArguments

from hf_geo import GeoTrainer, GeoTrainingArguments
from hf_geo.checkpoints.compatibility import IncompatibleCheckpointError
from hf_geo.checkpoints.listing import list_checkpoints
from hf_geo.checkpoints.store import MANIFEST, STAGING, check_whole, fault, newest_whole
from tests.training.problems import flat, make_problem

POSITIONS = {"manifest.json": 200}  # all files have one rule, and the manifest its own
FILES = ("manifest.json", "model.safetensors", "optimizer.pt", "rng_state.pth", "scheduler.pt", "trainer_state.json")


def settings(folder: Path, **changes) -> dict:
    common = {"max_steps": 6, "save_steps": 2, "logging_strategy": "no", "disable_tqdm": True, "use_cpu": True}
    return {"output_dir": str(folder), **common, **changes}


def train(folder: Path, resume: str | bool | None = None, **changes) -> torch.Tensor:
    model, data = make_problem("points", dropout=0.3)
    args = GeoTrainingArguments(**settings(folder, optim="fromage", **changes))
    GeoTrainer(model, args, train_dataset=data, eval_dataset=data).train(resume_from_checkpoint=resume)
    return flat(model)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(folder)
    return folder


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> torch.Tensor:
    return train(tmp_path_factory.mktemp("unbroken"))


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_a_checkpoint_is_listed_in_full(run) -> None:
    for checkpoint in list_checkpoints(run):
        listed = json.loads((checkpoint / MANIFEST).read_text())["files"]
        assert {*listed, MANIFEST} == set(FILES) == {path.name for path in checkpoint.iterdir()}
    assert not (run / STAGING).exists()


@pytest.mark.parametrize("name", FILES)
def test_every_truncation_and_bit_flip_is_found(copy, name: str, caplog) -> None:
    path = copy / "checkpoint-6" / name
    content = path.read_bytes()
    draw = random.Random(name)
    positions = draw.sample(range(len(content)), POSITIONS.get(name, 25))
    for position in positions:
        flipped = bytearray(content)
        flipped[position] ^= 1 << draw.randrange(8)
        for damaged in (content[:position], bytes(flipped)):
            path.write_bytes(damaged)
            caplog.clear()
            assert newest_whole(copy).name == "checkpoint-4", (position, damaged == content[:position])
            assert name == MANIFEST or f"{name} has" in caplog.text or f"content of {name} has changed" in caplog.text
    path.write_bytes(content)
    assert newest_whole(copy).name == "checkpoint-6"


def test_training_goes_on_from_the_last_whole_one(copy, unbroken, caplog) -> None:
    with open(copy / "checkpoint-6" / "optimizer.pt", "r+b") as file:
        file.truncate(100)
    (copy / "checkpoint-4" / "rng_state.pth").unlink()
    leftover = copy / STAGING / "checkpoint-6"
    leftover.mkdir(parents=True)
    (leftover / "model.safetensors").write_bytes(b"half")
    with caplog.at_level(logging.WARNING, "hf_geo"):
        weights = train(copy, resume=True)
    assert "checkpoint-6 is skipped, because optimizer.pt has 100 bytes instead of " in caplog.text
    assert "checkpoint-4 is skipped, because rng_state.pth is missing." in caplog.text
    assert torch.equal(weights, unbroken)
    assert [fault(path) for path in list_checkpoints(copy)] == [None, None, None] and not (copy / STAGING).exists()


def test_a_finished_run_is_not_trained_further(copy, unbroken) -> None:
    """transformers would: where a run ends within an epoch, its own Trainer makes one update more."""
    assert torch.equal(train(copy, resume=True), unbroken)
    assert list_checkpoints(copy)[-1].name == "checkpoint-6"


def test_a_damaged_checkpoint_is_refused_by_name(copy) -> None:
    (copy / "checkpoint-4" / "scheduler.pt").write_bytes(b"")
    message = "checkpoint-4' cannot be used, because scheduler.pt has 0 bytes instead of"
    with pytest.raises(IncompatibleCheckpointError, match=message):
        train(copy, resume=str(copy / "checkpoint-4"))
    for checkpoint in list_checkpoints(copy):
        (checkpoint / "model.safetensors").unlink()
    with pytest.raises(IncompatibleCheckpointError, match="There is no whole checkpoint in"):
        train(copy, resume=True)


@pytest.fixture
def plain(tmp_path) -> Path:
    """A run of transformers' own Trainer."""
    model, data = make_problem("points", dropout=0.3)
    Trainer(model, TrainingArguments(**settings(tmp_path / "plain", optim="sgd")), train_dataset=data).train()
    return tmp_path / "plain"


def test_a_checkpoint_of_transformers_is_resumed_with_a_note(plain, caplog) -> None:
    with caplog.at_level(logging.WARNING, "hf_geo"):
        assert check_whole(plain / "checkpoint-4").name == "checkpoint-4"
    assert "checkpoint-4 was written without checksums" in caplog.text
    unfinished = plain / "checkpoint-6"
    for path in unfinished.iterdir():
        content = path.read_bytes()
        for kept in (None, 0, len(content) // 2, len(content) - 2):
            path.unlink()
            if kept is not None:
                path.write_bytes(content[:kept])
            if kept is not None or path.name == "trainer_state.json":
                assert newest_whole(plain).name == "checkpoint-4", (path.name, kept)
            path.write_bytes(content)
    assert newest_whole(plain) == unfinished


BEST = {"load_best_model_at_end": True, "greater_is_better": True}


@pytest.mark.parametrize("rotation", [{"save_total_limit": 2}, {"save_total_limit": 1, **BEST}], ids=str)
def test_what_is_kept_is_what_transformers_keeps(tmp_path, rotation: dict) -> None:
    kept = {}
    for trainer, arguments in ((Trainer, TrainingArguments), (GeoTrainer, GeoTrainingArguments)):
        torch.manual_seed(0)
        model, data = make_problem("points")
        folder = tmp_path / trainer.__name__
        every = {"eval_strategy": "steps", "eval_steps": 1, "save_steps": 1}
        args = arguments(**settings(folder, optim="sgd", **rotation, **every))
        made = trainer(model, args, train_dataset=data, eval_dataset=data)
        made.train()
        best = made.state.best_model_checkpoint
        names = {path.name for path in folder.iterdir()}
        kept[trainer] = names, best and Path(best).relative_to(folder), flat(model).tolist()
        states = [json.loads((path / "trainer_state.json").read_text()) for path in list_checkpoints(folder)]
        assert all(state["best_model_checkpoint"] in (None, best) for state in states if best)
    assert kept[GeoTrainer] == kept[Trainer]
