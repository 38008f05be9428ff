"""Starts trainings quickly: a process that has imported everything forks one process for each that is asked for.

Reads a line of JSON for each job: its processes, each with an environment and arguments of `doomed.main`. Answers with
their exit statuses. As a launcher does, it kills the others soon after one has died.
"""

import importlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path

from tests.reliability import doomed


def start(environment: dict[str, str], arguments: list) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.environ.update(environment)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(environment["LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
        os.dup2(1, 2)
        doomed.main(*arguments)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def warm_up() -> None:
    """Imports what a training imports on its way, as one that goes before tells."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder, "modules.json")
        if not (child := os.fork()):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            doomed.main(folder, {})
            told.write_text(json.dumps(list(sys.modules)))
            os._exit(0)
        os.waitpid(child, 0)
        for name in json.loads(told.read_text()):
            with suppress(ImportError):  # not every name is a module's
                importlib.import_module(name)


def run(job: dict) -> list[int]:
    """Exit statuses in order; minus the signal's number for a process that was killed."""
    running = {start(environment, arguments): i for i, (environment, arguments) in enumerate(job["processes"])}
    statuses = [0] * len(running)
    kill_at = time.monotonic() + job["kill_after"] if job["kill_after"] else None
    while running:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            statuses[running.pop(child)] = os.waitstatus_to_exitcode(status)
            if status and running and not kill_at:
                kill_at = time.monotonic() + random.uniform(0, 0.2)
        elif kill_at and time.monotonic() > kill_at:
            for other in running:
                os.kill(other, signal.SIGKILL)
            kill_at = float("inf")
        else:
            time.sleep(0.001)
    return statuses


if __name__ == "__main__":
    warm_up()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
