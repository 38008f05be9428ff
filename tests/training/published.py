"""Runs command lines of `hf_geo.launch`, each in a process forked from one that has imported what they share.

python -m tests.training.published FOLDER, which holds jobs.json: a command line by name. NAME.out, NAME.err and the exit statuses go there.
"""

import json
import os
import sys
from pathlib import Path

import datasets  # noqa: F401
import transformers.trainer  # noqa: F401

from hf_geo import launch
from tests.training.launching import end_with


def run(folder: Path, name: str, words: list[str]) -> int:
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for descriptor, suffix in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / f"{name}.{suffix}", os.O_WRONLY | os.O_CREAT), descriptor)
    end_with(lambda: launch.main(words))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    jobs = json.loads((folder / "jobs.json").read_text())
    (folder / "statuses.json").write_text(json.dumps({name: run(folder, name, words) for name, words in jobs.items()}))
