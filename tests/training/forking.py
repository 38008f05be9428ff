"""Runs every training that tests compare between one process and two, in processes forked from one that has imported it all.

python -m tests.training.forking FOLDER
"""

import gc
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType

from tests.training import averages, divisions, evaluations, resumes, searches, trajectories
from tests.training.launching import fork, free_port

PARTS = (resumes, averages, divisions, evaluations, trajectories)


def run(parts: Sequence[ModuleType], folder: Path) -> None:
    for part in parts:
        part.run(folder)


def main(folder: str) -> None:
    gc.freeze()  # accelerate collects garbage before each training, among all that was imported
    children = []
    for parts in (PARTS, (searches,)):  # the latter ends its process group
        port = free_port()
        for processes in (1, 2):
            own = Path(folder, str(processes))
            own.mkdir(exist_ok=True)
            children += [fork(partial(run, parts, own), rank, processes, port) for rank in range(processes)]
    for _ in range(len(children)):
        child, status = os.wait()
        children.remove(child)
        if status:  # the others may wait for it
            for other in children:
                os.kill(other, 9)
            sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
