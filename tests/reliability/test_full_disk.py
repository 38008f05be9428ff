"""A disk that is full, over a limit, read-only or forbidden: said in a sentence, nothing half-written stays, training goes on."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_geo.checkpoints.listing import list_checkpoints
from hf_geo.checkpoints.store import MANIFEST, fault
from tests.reliability.faults import Between, Disk, limit_files
from tests.scripts import script
from tests.training.launching import launch_or_fail
from tests.training.problems import flat, make_trainer

KIB = 1024
# What is left on the disk decides which file of the 40 KiB of a checkpoint does not fit.
FAULTS = [*(f"full but for {left} KiB" for left in (0, 8, 16, 32, 36)), "read-only", "limit", "forbidden"]
SAID = {
    "full": "full|no space is left",
    "read-only": "read-only",
    "limit": "larger|a whole file",
    "forbidden": "permission",
}


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    try:
        disk = Disk(tmp_path / "disk", "256k")
    except (PermissionError, FileNotFoundError) as error:
        pytest.skip(f"no tmpfs can be mounted here: {error}")
    yield disk
    disk.unmount()


def train(folder: Path, *callbacks) -> torch.Tensor:
    every = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2, "max_steps": 6}
    best = {"load_best_model_at_end": True, "save_total_limit": 3}
    trainer = make_trainer(folder, None, *callbacks, dropout=0.3, optim="fromage", use_cpu=True, **every, **best)
    trainer.train()
    return flat(trainer.model)


def prepared(fault: str, request) -> tuple[Path, Between]:
    """The run's folder, and what breaks the disk at update 4."""
    run = request.getfixturevalue("tmp_path") / "run"
    if fault == "limit":
        return run, Between(4, lambda: limit_files(10_000), lambda: limit_files(-1))
    if fault == "forbidden":
        if os.geteuid() == 0:
            pytest.skip("nothing is forbidden to root")
        return run, Between(4, lambda: run.chmod(0o555), lambda: run.chmod(0o755))
    disk = request.getfixturevalue("disk")
    if fault == "read-only":
        return disk.folder / "run", Between(4, lambda: disk.remount("ro"), lambda: disk.remount("rw"))
    left = int(fault.split()[-2]) * KIB
    return disk.folder / "run", Between(4, lambda: disk.fill(left), disk.empty)


@pytest.mark.parametrize("kind", FAULTS)
def test_training_goes_on_without_the_checkpoint(request, tmp_path, caplog, kind: str) -> None:
    run, callback = prepared(kind, request)
    unbroken = train(tmp_path / "unbroken")
    with caplog.at_level(logging.WARNING, "hf_geo"):
        assert torch.equal(train(run, callback), unbroken)
    (said,) = [record.getMessage() for record in caplog.records if "could not be saved" in record.getMessage()]
    assert said.startswith("checkpoint-4 could not be saved in '") and "checkpoint-2 is the last complete one" in said
    assert any(words in said for words in SAID[kind.split()[0]].split("|")), said
    assert "training goes on, the next save tries again" in said
    assert [(path.name, fault(path)) for path in list_checkpoints(run)] == [
        ("checkpoint-2", None),
        ("checkpoint-6", None),
    ]
    assert {path.name for path in run.iterdir()} == {"checkpoint-2", "checkpoint-6"}
    assert callback.best == 2  # although update 4 was better


WORDS = (
    "--model=test_resnet", "--dataset=digits", "--optim=fromage", "--max_steps=2", "--disable_tqdm=true",
    "--save_strategy=steps", "--save_steps=1", "--max_train_samples=64", "--max_eval_samples=32",
)  # fmt: skip


def test_the_result_goes_where_there_is_room(disk, tmp_path, capsys) -> None:
    train_script, out, other = script("train"), disk.folder / "out", tmp_path / "other"
    assert train_script((*WORDS, "--output_dir", out, "--fallback_dir", other)) == 0
    assert {"model.safetensors", "config.json", "README.md"} <= {path.name for path in other.iterdir()}
    assert load_file(other / "model.safetensors") and f"weights:     {other}" in capsys.readouterr().out
    assert not list(out.iterdir())
    with pytest.raises(SystemExit) as exit:
        train_script((*WORDS, "--output_dir", out))
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert exit.value.code == 2 and "name a --fallback_dir that has room" in sentence
    assert f"The result could not be written to '{out}', because no space is left on the disk" in sentence


@pytest.mark.slow
@pytest.mark.parametrize("mode", ("ddp", "fsdp2 sharded", "fsdp2 full"))
def test_one_process_without_room_stops_none(tmp_path, mode: str) -> None:
    """A limit on files is one process's own: all of them give the checkpoint up, and none waits for ever."""
    done = launch_or_fail(Path(__file__).with_name("run_limited.py"), tmp_path, mode, processes=2, timeout=120)
    assert done.stderr.count("checkpoint-4 could not be saved") == 2
    found = {
        name: load_file(tmp_path / f"{name}.safetensors") for name in ("unbroken", "limited 0", "limited 1", "resumed")
    }
    for name, tensor in found["unbroken"].items():
        assert all(torch.equal(state[name], tensor) for state in found.values()), name
    for run in (tmp_path / "limited 0", tmp_path / "limited 1"):
        kept = list_checkpoints(run)
        assert [(path.name, fault(path)) for path in kept] == [("checkpoint-2", None), ("checkpoint-6", None)]
        assert {path.name for path in run.iterdir()} == {"checkpoint-2", "checkpoint-6"}
        listed = [json.loads((path / MANIFEST).read_text())["files"] for path in kept]
        assert all({"rng_state_0.pth", "rng_state_1.pth"} <= set(files) for files in listed)
