"""A checkpoint is complete or not there; a damaged one is found, said, and passed over."""

import json
import logging
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainingArguments

from hf_geo import GeoTrainer, GeoTrainingArguments
from hf_geo.checkpoints.compatibility import IncompatibleCheckpointError
from hf_geo.checkpoints.listing import list_checkpoints
from hf_geo.checkpoints.store import (
    MANIFEST,
    STAGING,
    check_whole,
    discard,
    fault,
    newest_whole,
    publish,
    rotate,
    seal,
    staged_whole,
    tidy,
)
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
    with pytest.raises(
        IncompatibleCheckpointError, match=r"checkpoint-4' cannot be used, because scheduler.pt has 0 bytes instead of"
    ):
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
ROTATIONS = [
    {"save_total_limit": 2},
    {"save_total_limit": 1, "load_best_model_at_end": True},
    {"save_total_limit": 1, **BEST},
    {"save_total_limit": 2, **BEST},
]


@pytest.mark.parametrize("rotation", ROTATIONS, ids=str)
def test_what_is_kept_is_what_transformers_keeps(tmp_path, rotation: dict) -> None:
    kept = {}
    for trainer, arguments in ((Trainer, TrainingArguments), (GeoTrainer, GeoTrainingArguments)):
        torch.manual_seed(0)
        model, data = make_problem("points")
        folder = tmp_path / trainer.__name__
        every = {"eval_strategy": "steps", "eval_steps": 1, "save_steps": 1}
        made = trainer(
            model, arguments(**settings(folder, optim="sgd", **rotation) | every), train_dataset=data, eval_dataset=data
        )
        made.train()
        best = made.state.best_model_checkpoint
        names = {path.name for path in folder.iterdir()}
        kept[trainer] = names, best and Path(best).relative_to(folder), flat(model).tolist()
        states = [json.loads((path / "trainer_state.json").read_text()) for path in list_checkpoints(folder)]
        assert all(state["best_model_checkpoint"] in (None, best) for state in states if best)
    assert kept[GeoTrainer] == kept[Trainer]


class Crash(BaseException):
    """Stands for the end of the process: nothing after it runs."""


class Crashing:
    """Ends what is done inside before its n-th operation on files; `operations` counts them."""

    def __init__(self) -> None:
        self.left: int | None = None
        sys.addaudithook(self._hook)

    def _hook(self, event: str, _: tuple) -> None:
        if self.left is not None and event in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link"):
            self.left -= 1
            if self.left < 0:
                raise Crash

    def instants(self, prepare: Callable[[], object], action: Callable[[], object]) -> Iterator[int]:
        """Does it again and again, each time ended one operation later, until it comes to its end."""
        for instant in range(10_000):
            prepare()
            if self.runs(action, instant):
                return
            yield instant

    def runs(self, action: Callable[[], object], operations: int) -> bool:
        """Whether it comes to its end before so many operations on files."""
        self.left = operations
        try:
            action()
        except Crash:
            return False
        finally:
            self.left = None
        return True


CRASHING = Crashing()


def write_checkpoint(folder: Path, content: str) -> None:
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text(json.dumps({"content": content}))
    (folder / "shards").mkdir()
    (folder / "shards" / "0.distcp").write_text(content)


def content(checkpoint: Path) -> str:
    assert fault(checkpoint) is None
    return (checkpoint / "shards" / "0.distcp").read_text()


def test_all_of_a_checkpoint_is_flushed_before_it_has_its_place(tmp_path, flushed) -> None:
    staged = tmp_path / STAGING / "checkpoint-2"
    write_checkpoint(staged, "new")
    publish(tmp_path, "checkpoint-2")
    files = ("trainer_state.json", "shards/0.distcp", MANIFEST)
    assert {*flushed[:-1]} == {staged, staged / "shards", *(staged / name for name in files)}
    assert flushed[-1] == tmp_path


@pytest.mark.parametrize("replaced", (False, True))
def test_publishing_may_end_at_any_instant(tmp_path, replaced: bool) -> None:
    final = tmp_path / "checkpoint-2"

    def prepare() -> None:
        shutil.rmtree(tmp_path)
        if replaced:
            write_checkpoint(final, "old")
            seal(final)
        write_checkpoint(tmp_path / STAGING / "checkpoint-2", "new")

    seen = set()
    for _ in CRASHING.instants(prepare, lambda: publish(tmp_path, "checkpoint-2")):
        before = content(final) if final.exists() else None
        assert before or not replaced or staged_whole(tmp_path)
        tidy(tmp_path)
        after = content(final) if final.exists() else None
        assert after or not replaced
        seen.add((before, after))
        assert not (tmp_path / STAGING).exists()
    assert content(final) == "new"
    old = "old" if replaced else None
    assert {(old, old), ("new", "new"), (None, "new")} == seen


def test_removing_may_end_at_any_instant(tmp_path) -> None:
    def prepare() -> None:
        shutil.rmtree(tmp_path)
        for step in (1, 2, 3):
            write_checkpoint(tmp_path / f"checkpoint-{step}", str(step))
            seal(tmp_path / f"checkpoint-{step}")

    for _ in CRASHING.instants(prepare, lambda: rotate(tmp_path, 1, [tmp_path / "checkpoint-3"])):
        assert [content(path) for path in list_checkpoints(tmp_path)] in (["1", "2", "3"], ["2", "3"], ["3"])
        tidy(tmp_path)
        assert not (tmp_path / STAGING).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]
    discard(tmp_path / "checkpoint-3")
    assert not list(tmp_path.iterdir())


def test_the_oldest_by_time_goes_first_where_a_run_went_back_to_an_earlier_step(tmp_path) -> None:
    for time, step in enumerate((2, 3, 1)):
        write_checkpoint(tmp_path / f"checkpoint-{step}", str(step))
        os.utime(tmp_path / f"checkpoint-{step}", (time, time))
    rotate(tmp_path, 2, [])
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-1", "checkpoint-3"]
