"""The kill campaign: trainings are killed and resumed until they end, and looked at after every kill."""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from hf_geo.checkpoints.placing import place_result
from hf_geo.checkpoints.store import checkpoints, fault, staged_whole
from tests.paths import REPOSITORY

KILLS_A_RUN = 10
OLD = {"old": torch.zeros(3)}


class Zygote:
    """Client of `tests/reliability/zygote.py`."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log.txt"
        environment = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env=os.environ | environment,
        )
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError("The process that starts the trainings did not start itself.")

    def __enter__(self) -> "Zygote":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=30)

    def run(self, folder: Path, plans: list[dict], counts: Path | None = None, kill_after: float = 0.0) -> list[int]:
        """Trains in one process for each plan; returns their exit statuses."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        processes = []
        for rank, plan in enumerate(plans):
            environment = {"LOG": str(self.log)}
            if len(plans) > 1:
                environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(len(plans))}
                environment |= {
                    "LOCAL_WORLD_SIZE": str(len(plans)),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                }
                environment |= {"ACCELERATE_USE_CPU": "true"}
            processes.append([environment, [str(folder), plan, str(counts) if counts and rank == 0 else None]])
        print(json.dumps({"processes": processes, "kill_after": kill_after}), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


def look(folder: Path, had_checkpoint: bool) -> bool:
    """What must hold after a kill at any instant; returns whether there is a checkpoint."""
    found = checkpoints(folder)
    assert [(path.name, fault(path)) for path in found if fault(path)] == []
    present = bool(found or staged_whole(folder))
    assert present or not had_checkpoint, "the last whole checkpoint was lost"
    if which_result(folder) is None:
        copy = shutil.copytree(folder, folder.with_name("copy"))
        place_result(copy)
        assert which_result(copy) == "new", "neither the old nor the new result is whole"
        shutil.rmtree(copy)
    return present


def which_result(folder: Path) -> str | None:
    """ "old" or "new" for a folder with all files of that result and none of the other; None for any mixture."""
    if not (folder / "model.safetensors").is_file():
        return None
    found = {
        "old" if load_file(folder / "model.safetensors").keys() == OLD.keys() else "new",
        json.loads((folder / "config.json").read_text())["of"] if (folder / "config.json").is_file() else None,
        (folder / "figures" / "curve.txt").read_text() if (folder / "figures" / "curve.txt").is_file() else None,
        "old" if (folder / "subspace_config.json").is_file() else None,
    }
    if found == {"old"}:
        return "old"
    return "new" if found == {"new", None} and (folder / "config.json").is_file() else None


def write_old_result(folder: Path) -> None:
    (folder / "figures").mkdir(parents=True)
    save_file(OLD, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"of": "old"}))
    (folder / "figures" / "curve.txt").write_text("old")
    (folder / "subspace_config.json").write_text("{}")  # what the new result does not have


def campaign(folder: Path, kills: int, processes: int, seed: int = 0) -> dict:
    """Makes `kills` kills over as many runs as it takes; raises AssertionError at the first run that lost anything.

    Returns:
        Figures: kills by phase, runs, resumptions and seconds.
    """
    draw, began = random.Random(f"{seed}/{processes}"), time.monotonic()
    figures = {"processes": processes, "kills": 0, "runs": 0, "starts": 0, "phases": Counter()}
    with Zygote(folder) as zygote:
        unbroken, counts = folder / "unbroken", folder / "counts.json"
        write_old_result(unbroken)
        start = time.monotonic()
        assert zygote.run(unbroken, [{}] * processes, counts) == [0] * processes, zygote.log.read_text()[-3000:]
        seconds, operations = time.monotonic() - start, json.loads(counts.read_text())
        expected = load_file(unbroken / "model.safetensors")
        assert which_result(unbroken) == "new"
        while figures["kills"] < kills:
            run = folder / f"run-{figures['runs']}"
            write_old_result(run)
            limit = min(kills - figures["kills"], KILLS_A_RUN)
            had_checkpoint, killed, done = False, 0, False
            while not done:
                plans, kill_after, phase = [{}] * processes, 0.0, None
                if killed < limit:
                    plans, kill_after, phase = draw_plan(draw, operations, processes, seconds)
                statuses = zygote.run(run, plans, kill_after=kill_after)
                figures["starts"] += 1
                done = statuses == [0] * processes
                if not done:
                    assert -9 in statuses, zygote.log.read_text()[-3000:]
                    killed += 1
                    figures["phases"][phase] += 1
                had_checkpoint = look(run, had_checkpoint)
            figures["runs"] += 1
            figures["kills"] += killed
            weights = load_file(run / "model.safetensors")
            assert which_result(run) == "new"
            assert weights.keys() == expected.keys()
            assert [name for name in weights if not torch.equal(weights[name], expected[name])] == []
            assert [path.name for path in checkpoints(run)] == [path.name for path in checkpoints(unbroken)]
            assert not list(run.glob("_*")), "something was left behind"
    return figures | {"seconds": round(time.monotonic() - began)}


def draw_plan(draw: random.Random, operations: dict[str, int], processes: int, seconds: float):
    """When to kill whom: most often while something is saved, rotated or exported, sometimes anywhere."""
    phase = draw.choices(("save", "rotate", "export", "time"), (5, 3, 3, 1))[0]
    plans = [{}] * processes
    if phase == "time":
        return plans, draw.uniform(0.01, seconds), phase
    # Only the first process rotates and exports.
    who = draw.randrange(processes) if phase == "save" else 0
    delay = draw.choice((0.0, draw.uniform(0, 0.002), draw.uniform(0, 0.01)))
    # Not later than what is left of a run that has come half-way.
    operation = draw.randint(1, max(1, operations[phase] if phase == "export" else operations[phase] // 2))
    plans = [
        {"phase": phase, "operation": operation, "delay": delay} if rank == who else {} for rank in range(processes)
    ]
    return plans, 0.0, phase
