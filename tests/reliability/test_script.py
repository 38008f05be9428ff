"""scripts/train.py itself, killed while it saves and while it exports, and called again, ends as if nothing had happened."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.paths import REPOSITORY
from tests.scripts import TRAIN
from tests.training.launching import launch_or_fail

WORDS = (
    "--dataset=digits", "--model=test_resnet", "--optim=adamsrt", "--max_steps=30", "--per_device_train_batch_size=16",
    "--save_strategy=steps", "--save_steps=1", "--save_total_limit=2", "--disable_tqdm=true", "--report_to=none",
)  # fmt: skip
KILLS = 3


def newest(folder: Path) -> int:
    return max((int(path.name.partition("-")[2]) for path in folder.glob("checkpoint-*")), default=0)


def kill_once(arrived: Callable[[], bool], delay: float, words: list[str], log: Path) -> None:
    """Starts the script and kills it some time after `arrived` is first true."""
    environment = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, TRAIN, *words], env=os.environ | environment, stdout=out, stderr=out
        )
        deadline = time.monotonic() + 120
        while not arrived() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(delay)
        process.kill()
        assert process.wait() == -9, log.read_text(errors="replace")[-3000:]


@pytest.mark.slow
def test_the_weights_are_those_of_an_unbroken_run(tmp_path) -> None:
    whole, broken, chance = tmp_path / "whole", tmp_path / "broken", random.Random(0)
    launch_or_fail(TRAIN, *WORDS, "--output_dir", whole)
    words = [*WORDS, "--output_dir", str(broken)]
    resumed = [*words, "--resume_from_checkpoint", "true"]
    for kill in range(KILLS):
        before = newest(broken)
        # An update takes 30 ms here, most of it for saving.
        delay = chance.uniform(0, 0.06)
        kill_once(lambda: newest(broken) > before, delay, resumed if kill else words, tmp_path / "log")  # noqa: B023
    kill_once(lambda: any(broken.glob("_result*")), 0.0, resumed, tmp_path / "log")
    launch_or_fail(TRAIN, *resumed)
    assert (broken / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    names = [
        sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        for folder in (whole, broken)
    ]
    assert names[0] == names[1]
