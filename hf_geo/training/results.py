"""A run's result takes its place in the folder whole: at every instant the old one is there, or the new one.

The new result is written to `_result.partial` and flushed; it is complete from its renaming to `_result` on. Then its
files get their places, the weights last, so that nobody opens a mixture. What a kill leaves undone in this, the next
start does.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from .checkpoints import flush, sync_folder
from .disk import first_of_all, refusal
from .runs import COMPLETE, RESULTS

logger = logging.getLogger(__name__)
_PARTIAL, _LINK = "_result.partial", "_result.link"
_REPLACED = ".replaced.json"  # inside the new result: what it takes the place of
_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")


class OutOfRoom(RuntimeError):
    """The disk refuses the result, wherever it was to go."""


def save_result(folder: str | Path, write: Callable[[Path], None], *, first: bool) -> str | None:
    """Replaces the result in `folder` by what `write` writes; every process calls this.

    Args:
        folder: The run's folder; made if missing.
        write: Fills the folder it is given, in all processes together.
        first: Whether this process is the one that has the files.

    Returns:
        Why the disk refused, as part of a sentence, or None where it did not.
    """
    folder = Path(folder)
    partial = folder / _PARTIAL
    failure = (
        first_of_all(refusal(lambda: first and _make_empty(partial)))
        or first_of_all(refusal(lambda: write(partial)))
        or first_of_all(refusal(lambda: first and _complete(folder)))
    )
    if first:
        shutil.rmtree(partial, ignore_errors=True)
    return failure


def save_where_there_is_room(
    output_dir: str, fallback_dir: str | None, write: Callable[[Path], None], *, first: bool
) -> str:
    """Saves the result as `save_result` does, in `fallback_dir` where the disk refuses it in `output_dir`.

    Returns:
        The folder that the result is in.

    Raises:
        OutOfRoom: The result is in neither of them. The message says what to do.
    """
    failure = save_result(output_dir, write, first=first)
    if failure is None:
        return output_dir
    told = f"The result could not be written to {output_dir!r}, because {failure}"
    if fallback_dir is not None:
        other = save_result(fallback_dir, write, first=first)
        if other is None:
            logger.warning("%s: it is in %r instead.", told, fallback_dir)
            return fallback_dir
        told += f", nor to {fallback_dir!r}, because {other}"
    raise OutOfRoom(
        f"{told}: set that right and run the same command again with --resume_from_checkpoint true (it goes on from the last "
        "complete checkpoint), or name a --fallback_dir that has room."
    )


def finish_result(folder: str | Path) -> None:
    """Does what a killed process has left undone: gives a complete new result its place, removes an incomplete one."""
    place_result(folder)
    shutil.rmtree(Path(folder) / _PARTIAL, ignore_errors=True)


def place_result(folder: str | Path) -> None:
    """Gives a complete new result its place, if a killed process has left one; a run that is under way is not disturbed."""
    folder = Path(folder)
    if (folder / COMPLETE).is_dir():
        _place(folder)


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _complete(folder: Path) -> None:
    partial = folder / _PARTIAL
    (partial / _REPLACED).write_text(json.dumps(_replaced(folder, _names(partial))), encoding="utf-8")
    for path in [*partial.rglob("*"), partial]:
        sync_folder(path) if path.is_dir() else flush(path)
    partial.rename(folder / COMPLETE)
    sync_folder(folder)
    _place(folder)


def _names(folder: Path) -> list[str]:
    """Files of a result below `folder`, in the order of their placing: what makes it one that opens comes last."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted((name for name in names if name != _REPLACED), key=lambda name: (bool(_WEIGHTS.match(name)), name))


def _replaced(folder: Path, new: list[str]) -> list[str]:
    """What goes before a new result comes: the weights of the old one, then what the new one has not; in no run, nothing."""
    old = [name for path in folder.iterdir() if _WEIGHTS.match(name := path.name)]
    paths = [folder / name for name in RESULTS if old]
    paths += [below for path in paths for below in path.rglob("*")]
    files = [path.relative_to(folder).as_posix() for path in paths if path.is_file()]
    return [*sorted(old, reverse=True), *(name for name in files if name not in {*new, *old})]


def _place(folder: Path) -> None:
    """Links a complete result's files into place: it stays complete where it is until all are there."""
    new = folder / COMPLETE
    names = _names(new)
    for name in json.loads((new / _REPLACED).read_text(encoding="utf-8")):
        (folder / name).unlink(missing_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _link(new / name, folder / name, folder / _LINK)
    for path in {folder, *((folder / name).parent for name in names)}:
        sync_folder(path)
    new.rename(folder / _PARTIAL)  # from here on it is no longer needed
    shutil.rmtree(folder / _PARTIAL, ignore_errors=True)


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
