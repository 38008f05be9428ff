"""A small training that saves at every update, rotates, keeps the best, and ends with a result; it kills itself as planned.

The plan names a phase, how many operations on files inside it to let pass, and how long to wait after the last of them: the
kill is a real SIGKILL of the process, between two operations or in the middle of a write.
"""

import json
import os
import random
import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from accelerate import PartialState
from safetensors.torch import save_file

import hf_geo.training.saving as saving
from hf_geo.checkpoints.listing import list_checkpoints
from hf_geo.checkpoints.placing import place_result
from hf_geo.checkpoints.results import save_where_there_is_room
from tests.training.problems import make_trainer

UPDATES = 6
PHASES = ("start", "save", "rotate", "export")
_OPERATIONS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.listdir"}


class Fate:
    """Counts operations on files by phase, and kills the process when the planned one comes."""

    def __init__(self, phase: str | None = None, operation: int = 0, delay: float = 0.0) -> None:
        self.planned, self.operation, self.delay = phase, operation, delay
        self.phase = "start"
        self.counts = dict.fromkeys(PHASES, 0)
        sys.addaudithook(self._hook)

    @contextmanager
    def during(self, phase: str):
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    def _hook(self, event: str, _: tuple) -> None:
        if event in _OPERATIONS:
            self.counts[self.phase] += 1
            if self.phase == self.planned and self.counts[self.phase] == self.operation:
                if self.delay:
                    threading.Thread(target=self._kill_later, daemon=True).start()
                else:
                    os.kill(os.getpid(), signal.SIGKILL)

    def _kill_later(self) -> None:
        time.sleep(self.delay)
        os.kill(os.getpid(), signal.SIGKILL)


def within(fate: Fate, phase: str, function):
    def run(*args, **kwargs):
        with fate.during(phase):
            return function(*args, **kwargs)

    return run


def train(folder: Path, fate: Fate) -> None:
    """Trains from the newest whole checkpoint, if there is one, and replaces the result in `folder`."""
    random.seed(0)
    every = {"max_steps": UPDATES, "save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
    best = {"save_total_limit": 2, "load_best_model_at_end": True, "optim": "fromage", "use_cpu": True}
    batch = 16 // PartialState().num_processes
    trainer = make_trainer(folder, dropout=0.3, per_device_train_batch_size=batch, **every, **best)
    first = trainer.is_world_process_zero()
    resume = bool(list_checkpoints(folder))
    trainer.accelerator.wait_for_everyone()
    if first:
        place_result(folder)
    with (
        patch.object(saving, "rotate", within(fate, "rotate", saving.rotate)),
        patch.object(trainer, "_save_checkpoint", within(fate, "save", trainer._save_checkpoint)),
    ):
        trainer.train(resume_from_checkpoint=resume)

    def write(result: Path) -> None:
        if first:
            save_file(trainer.model.state_dict(), result / "model.safetensors")
            (result / "config.json").write_text(json.dumps({"of": "new"}))
            (result / "figures").mkdir()
            (result / "figures" / "curve.txt").write_text("new")

    with fate.during("export"):
        save_where_there_is_room(str(folder), None, write, first=first)


def main(folder: Path, plan: dict, out: Path | None = None) -> None:
    torch.set_num_threads(1)
    fate = Fate(**plan)
    train(folder, fate)
    if out:
        out.write_text(json.dumps(fate.counts))
