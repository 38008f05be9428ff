"""Moves a complete result into its place in a run's folder, and writes single files whole. Needs no heavy import."""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMPLETE = "_result"  # a new result, until all of its files are in place
PARTIAL = "_result.partial"
TO_REMOVE = ".replaced.json"  # in the new result, until it is done: names of the old result's files to remove
# The files of a finished run besides its checkpoints: the result of the next run replaces these and nothing else.
RESULTS = ("model.safetensors", "config.json", "README.md", "train_results.json", "eval_results.json", "trainer_state.json",
           "training_args.json", "card.json", "evaluation.json", "merge.json", "subspace.safetensors", "subspace_config.json",
           "figures")  # fmt: skip
WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")


def place_result(folder: str | Path) -> None:
    """Moves a complete new result into place, if there is one; does nothing to a run that is under way.

    The old weights go first and the new ones come last, so that nobody opens a mixture. A process that is killed in between
    leaves the rest in `_result`, and the next call continues.
    """
    folder = Path(folder)
    new = folder / COMPLETE
    if not new.is_dir():
        return
    if (new / TO_REMOVE).exists():
        for name in json.loads((new / TO_REMOVE).read_text(encoding="utf-8")):
            (folder / name).unlink(missing_ok=True)
        sync_folder(folder)
        (new / TO_REMOVE).unlink()  # from here on the names may be those of new files
        sync_folder(new)
    names = files_in_order(new)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if WEIGHTS.match(name):
            sync_folder(folder)
        os.replace(new / name, folder / name)
    for path in {folder, *((folder / name).parent for name in names)}:
        sync_folder(path)
    shutil.rmtree(new, ignore_errors=True)


def files_in_order(folder: Path) -> list[str]:
    """Names of a result's files in the order of their placing: the weights, without which nothing opens, come last."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(names, key=lambda name: bool(WEIGHTS.match(name)))


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Gives a path to write a file to; once it is written and flushed, it replaces `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"_{path.name}")
    try:
        yield aside
        flush(aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def flush(path: str | Path) -> None:
    """Flushes a file's content to the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: str | Path) -> None:
    """Flushes a folder's names to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot do that for folders
            raise
    finally:
        os.close(handle)
