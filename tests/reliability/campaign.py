"""The kill campaign: trainings are killed and resumed until they end, and looked at after every kill.

python -m tests.reliability.campaign FOLDER KILLS PROCESSES
"""

import json
import math
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from hf_geo.checkpoints.listing import list_checkpoints
from hf_geo.checkpoints.placing import place_result
from hf_geo.checkpoints.store import fault, staged_whole
from tests.reliability import doomed
from tests.training.launching import fork, free_port

KILLS_A_RUN = 10
OLD = {"old": torch.zeros(3)}


def start(folder: Path, plans: list[dict], log: Path, counts: Path | None = None, kill_after: float = 0.0) -> list[int]:
    """Trains in one process for each plan; kills the others soon after one has died, as a launcher does.

    Returns:
        Exit statuses in order; minus the signal's number for a process that was killed.
    """
    port, running = free_port(), {}
    for rank, plan in enumerate(plans):
        train = partial(doomed.main, folder, plan, counts if rank == 0 else None)
        running[fork(train, rank, len(plans), port, log)] = rank
    statuses = [0] * len(plans)
    kill_at = time.monotonic() + kill_after if kill_after else None
    while running:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            statuses[running.pop(child)] = os.waitstatus_to_exitcode(status)
            if status and running and not kill_at:
                kill_at = time.monotonic() + random.uniform(0, 0.2)
        elif kill_at and time.monotonic() > kill_at:
            for other in running:
                os.kill(other, signal.SIGKILL)
            kill_at = math.inf
        else:
            time.sleep(0.001)
    return statuses


def look(folder: Path, had_checkpoint: bool) -> bool:
    """What must hold after a kill at any instant; returns whether there is a checkpoint."""
    found = list_checkpoints(folder)
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
    draw, began, log = random.Random(f"{seed}/{processes}"), time.monotonic(), folder / "log.txt"
    figures = {"processes": processes, "kills": 0, "runs": 0, "starts": 0, "phases": Counter()}
    unbroken, counts = folder / "unbroken", folder / "counts.json"
    write_old_result(unbroken)
    assert start(unbroken, [{}] * processes, log, counts) == [0] * processes, log.read_text()[-3000:]
    seconds, operations = time.monotonic() - began, json.loads(counts.read_text())
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
            statuses = start(run, plans, log, kill_after=kill_after)
            figures["starts"] += 1
            done = statuses == [0] * processes
            if not done:
                assert -9 in statuses, log.read_text()[-3000:]
                killed += 1
                figures["phases"][phase] += 1
            had_checkpoint = look(run, had_checkpoint)
        figures["runs"] += 1
        figures["kills"] += killed
        weights = load_file(run / "model.safetensors")
        assert which_result(run) == "new"
        assert weights.keys() == expected.keys()
        assert [name for name in weights if not torch.equal(weights[name], expected[name])] == []
        assert [path.name for path in list_checkpoints(run)] == [path.name for path in list_checkpoints(unbroken)]
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


if __name__ == "__main__":
    print(json.dumps(campaign(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
