"""Runs scripts in processes of their own, one or several at once, as a user would start them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

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
