"""Runs every training that tests compare between one process and two, in processes forked from one that has imported it all.

python -m tests.training.forking FOLDER
"""

import gc
import os
import sys
import traceback
from pathlib import Path

from tests.training import averages, divisions, evaluations, resumes, trajectories
from tests.training.launching import free_port

PARTS = (resumes, averages, divisions, evaluations, trajectories)


def fork(folder: Path, rank: int, processes: int, port: int) -> int:
    if child := os.fork():
        return child
    os.environ["ACCELERATE_USE_CPU"] = "true"
    if processes > 1:
        variables = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": processes,
            "LOCAL_WORLD_SIZE": processes,
            "MASTER_PORT": port,
        }
        os.environ.update({name: str(value) for name, value in variables.items()} | {"MASTER_ADDR": "127.0.0.1"})
    try:
        for part in PARTS:
            part.run(folder)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main(folder: str) -> None:
    gc.freeze()  # accelerate collects garbage before each training, among all that was imported
    port, children = free_port(), []
    for processes in (1, 2):
        Path(folder, str(processes)).mkdir()
        children += [fork(Path(folder, str(processes)), rank, processes, port) for rank in range(processes)]
    for _ in range(len(children)):
        child, status = os.wait()
        children.remove(child)
        if status:  # the others may wait for it
            for other in children:
                os.kill(other, 9)
            sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
