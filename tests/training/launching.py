"""Runs scripts in processes of their own, one or several at once, as a user would start them."""

import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from tests.paths import REPOSITORY

ENVIRONMENT = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def launch(
    *words: str | Path, processes: int = 1, timeout: int = 300, **environment: str
) -> subprocess.CompletedProcess:
    """Starts `python WORDS` alone, or under `accelerate launch` with several processes on the CPU (DDP over gloo)."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "accelerate.commands.launch", "--multi_gpu", f"--num_processes={processes}"]
        command += [f"--main_process_port={free_port()}"]
        environment["ACCELERATE_USE_CPU"] = "true"
    command += map(str, words)
    environment = os.environ | ENVIRONMENT | environment
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch_or_fail(*words: str | Path, **options) -> subprocess.CompletedProcess:
    done = launch(*words, **options)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(map(str, words))} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )
    return done


def fork(
    function: Callable[[], object], rank: int = 0, processes: int = 1, port: int = 0, log: Path | None = None
) -> int:
    """Starts a process that runs it as one of several and inherits all imports; returns its id."""
    if child := os.fork():
        return child
    os.environ["ACCELERATE_USE_CPU"] = "true"
    if processes > 1:
        variables = dict.fromkeys(("RANK", "LOCAL_RANK"), rank) | dict.fromkeys(
            ("WORLD_SIZE", "LOCAL_WORLD_SIZE"), processes
        )
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in variables.items()})
    if log:
        for descriptor in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    end_with(function)


def end_with(function: Callable[[], object]) -> NoReturn:
    """Runs it as the last thing of this process, whose exit status says how it ended."""
    status = 0
    try:
        function()
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
