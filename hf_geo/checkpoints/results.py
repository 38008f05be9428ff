"""A run's result takes its place in the folder whole: at every instant the old one is there, or the new one.

The new result is written to `_result.partial` and flushed; it is complete from its renaming to `_result` on. Then its
files get their places, the weights last, so that nobody opens a mixture. What a kill leaves undone in this, the next
start does.
"""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from .disk import first_error_across_ranks, try_write
from .placing import COMPLETE, PARTIAL, REPLACED, RESULTS, WEIGHTS, flush, names_of, place_result, sync_folder

logger = logging.getLogger(__name__)


class OutOfSpaceError(RuntimeError):
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
    partial = folder / PARTIAL
    failure = (
        first_error_across_ranks(try_write(lambda: first and _make_empty(partial)))
        or first_error_across_ranks(try_write(lambda: write(partial)))
        or first_error_across_ranks(try_write(lambda: first and _complete(folder)))
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
        OutOfSpaceError: The result is in neither of them. The message says what to do.
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
    raise OutOfSpaceError(
        f"{told}: set that right and run the same command again with --resume_from_checkpoint true (it goes on from the last "
        "complete checkpoint), or name a --fallback_dir that has room."
    )


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _complete(folder: Path) -> None:
    partial = folder / PARTIAL
    (partial / REPLACED).write_text(json.dumps(_replaced(folder, names_of(partial))), encoding="utf-8")
    for path in [*partial.rglob("*"), partial]:
        sync_folder(path) if path.is_dir() else flush(path)
    partial.rename(folder / COMPLETE)
    sync_folder(folder)
    place_result(folder)


def _replaced(folder: Path, new: list[str]) -> list[str]:
    """What goes before a new result comes: the weights of the old one, then what the new one has not; in no run, nothing."""
    old = [name for path in folder.iterdir() if WEIGHTS.match(name := path.name)]
    paths = [folder / name for name in RESULTS if old]
    paths += [below for path in paths for below in path.rglob("*")]
    files = [path.relative_to(folder).as_posix() for path in paths if path.is_file()]
    return [*sorted(old, reverse=True), *(name for name in files if name not in {*new, *old})]
