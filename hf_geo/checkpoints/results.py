"""Replaces a run's result as a whole: at every instant the old one opens, or the new one, or none until the next start.

The new result is written to `_result.partial` and flushed; its renaming to `_result` completes it. Then its files move into
place, the weights last, so that nobody opens a mixture. The next start continues where a kill has interrupted this.
"""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from .disk import first_error_across_ranks, try_write
from .placing import COMPLETE, PARTIAL, RESULTS, TO_REMOVE, WEIGHTS, files_in_order, flush, place_result, sync_folder

logger = logging.getLogger(__name__)


class OutOfSpaceError(RuntimeError):
    """The disk refuses the result in every folder it may go to."""


def save_result(folder: str | Path, write: Callable[[Path], None], *, first: bool) -> str | None:
    """Replaces the result in `folder` by the files that `write` writes; every process calls this.

    Args:
        folder: The run's folder; made if missing.
        write: Fills the folder it is given, in all processes together.
        first: Whether this process is the one that writes the files.

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
        The folder that holds the result.

    Raises:
        OutOfSpaceError: The result is in neither of them. The message says what to do.
    """
    failure = save_result(output_dir, write, first=first)
    if failure is None:
        return output_dir
    message = f"The result could not be written to {output_dir!r}, because {failure}"
    if fallback_dir is not None:
        other = save_result(fallback_dir, write, first=first)
        if other is None:
            logger.warning("%s: it is in %r instead.", message, fallback_dir)
            return fallback_dir
        message += f", nor to {fallback_dir!r}, because {other}"
    raise OutOfSpaceError(
        f"{message}: set that right and run the same command again with --resume_from_checkpoint true (it goes on from the last "
        "complete checkpoint), or name a --fallback_dir that has room."
    )


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _complete(folder: Path) -> None:
    partial = folder / PARTIAL
    names = set(files_in_order(partial))
    (partial / TO_REMOVE).write_text(json.dumps(_files_to_remove(folder, names)), encoding="utf-8")
    for path in [*partial.rglob("*"), partial]:
        sync_folder(path) if path.is_dir() else flush(path)
    partial.rename(folder / COMPLETE)
    sync_folder(folder)
    place_result(folder)


def _files_to_remove(folder: Path, new: set[str]) -> list[str]:
    """Names of the old result's weights, then of its files that the new one does not replace; none without old weights."""
    weights = sorted((path.name for path in folder.iterdir() if WEIGHTS.match(path.name)), reverse=True)
    paths = [folder / name for name in RESULTS if weights]
    paths += [below for path in paths for below in path.rglob("*")]
    files = (path.relative_to(folder).as_posix() for path in paths if path.is_file())
    return [*weights, *(name for name in files if name not in {*new, *weights})]
