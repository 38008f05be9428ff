"""A complete result's files get their places in a run's folder. Needs no heavy import."""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMPLETE = "_result"  # a new result until all of it has its place
PARTIAL, _LINK = "_result.partial", "_result.link"
REPLACED = ".replaced.json"  # inside the new result: what it takes the place of
# What a finished run leaves besides its checkpoints: the result of the next run replaces these and nothing else.
RESULTS = ("model.safetensors", "config.json", "README.md", "train_results.json", "eval_results.json", "trainer_state.json",
           "training_args.json", "card.json", "evaluation.json", "subspace.safetensors", "subspace_config.json",
           "figures")  # fmt: skip
WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")


def place_result(folder: str | Path) -> None:
    """Links a complete new result's files into place, if there is one: it stays complete where it is until all are there.

    A killed process may have left one. A run that is under way is not disturbed.
    """
    folder = Path(folder)
    new = folder / COMPLETE
    if not new.is_dir():
        return
    names = names_of(new)
    for name in json.loads((new / REPLACED).read_text(encoding="utf-8")):
        (folder / name).unlink(missing_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _link(new / name, folder / name, folder / _LINK)
    for path in {folder, *((folder / name).parent for name in names)}:
        sync_folder(path)
    new.rename(folder / PARTIAL)  # from here on it is no longer needed
    shutil.rmtree(folder / PARTIAL, ignore_errors=True)


def names_of(folder: Path) -> list[str]:
    """Files of a result below `folder`, in the order of their placing: what makes it one that opens comes last."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted((name for name in names if name != REPLACED), key=lambda name: (bool(WEIGHTS.match(name)), name))


def _link(source: Path, target: Path, link: Path) -> None:
    link.unlink(missing_ok=True)
    try:
        os.link(source, link)
    except OSError:  # a file system without links
        shutil.copyfile(source, link)
        flush(link)
    if not (target.exists() and target.samefile(link)):  # else renaming does nothing
        os.replace(link, target)
    link.unlink(missing_ok=True)


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Gives a place to write a file aside; complete and on the disk, it then takes the place of `path`."""
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
    """Waits until a file's content is on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: str | Path) -> None:
    """Waits until a folder's names are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems have no such thing for folders
            raise
    finally:
        os.close(handle)
