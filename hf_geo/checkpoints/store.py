"""Checkpoints on disk that are complete or absent: written aside, flushed, listed in a manifest, then renamed.

A run's folder holds `checkpoint-STEP` folders, as in transformers, and `_staging` while one is written or removed, which
transformers and the Hub ignore. The manifest is written last; the rename that follows makes the checkpoint exist.
"""

import json
import logging
import os
import shutil
import time
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import xxhash
from safetensors import SafetensorError, safe_open

from .compatibility import IncompatibleCheckpointError
from .listing import list_checkpoints
from .pickles import code_in
from .placing import flush, sync_folder

logger = logging.getLogger(__name__)
STAGING = "_staging"
MANIFEST = "manifest.json"
_STATE = "trainer_state.json"
_CHUNK = 2**22  # bytes


def publish(run: str | Path, name: str) -> Path:
    """Moves the checkpoint in `_staging/NAME` into the run, in place of one of the same name.

    At every instant there is the old one or the new one, whole: while neither has the name, the new one is in the staging
    folder, where `tidy` finds it.
    """
    staged, final = Path(run, STAGING, name), Path(run, name)
    seal(staged)
    if final.exists():
        _set_aside(final)
    staged.rename(final)
    sync_folder(run)
    clear(run)
    return final


def seal(folder: str | Path) -> None:
    """Flushes every file of a folder to the disk and writes the manifest: their sizes and checksums (XXH3, 128 bits)."""
    folder = Path(folder)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = dict(zip(names, _measure(folder, names, flush=True), strict=True))
    # Without a newline at the end, so that a manifest that was cut short is not one.
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")
    flush(folder / MANIFEST)
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            sync_folder(path)


def fault(checkpoint: str | Path) -> str | None:
    """Says why a checkpoint cannot be used, as part of a sentence; None for a whole one.

    A checkpoint without a manifest, as transformers' own Trainer writes it, is checked for files that end too early.
    """
    folder = Path(checkpoint)
    if not (folder / MANIFEST).is_file():
        return _plain_fault(folder) or code_in(folder)
    try:
        listed = json.loads((folder / MANIFEST).read_bytes())["files"]
        files = {name: [size, checksum] for name, (size, checksum) in listed.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is damaged"
    for name, (size, _) in files.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if (folder / name).stat().st_size != size:
            return f"{name} has {(folder / name).stat().st_size:,} bytes instead of {size:,}"
    for (name, expected), found in zip(files.items(), _measure(folder, files), strict=True):
        if found != expected:
            return f"the content of {name} has changed"
    return code_in(folder)


def check_whole(checkpoint: str | Path) -> Path:
    """Returns the checkpoint if it is whole.

    Raises:
        IncompatibleCheckpointError: It is damaged or incomplete.
    """
    problem = fault(checkpoint)
    if problem:
        raise IncompatibleCheckpointError(
            f"The checkpoint {str(checkpoint)!r} cannot be used, because {problem}: name another one, "
            "or say true for the newest whole one of the run."
        )
    return _with_note(Path(checkpoint))


def newest_whole(run: str | Path) -> Path:
    """Finds the whole checkpoint of the highest step; logs which ones were skipped, and why.

    Raises:
        IncompatibleCheckpointError: The run has none.
    """
    for checkpoint in reversed(list_checkpoints(run)):
        problem = fault(checkpoint)
        if problem is None:
            return _with_note(checkpoint)
        logger.warning("%s is skipped, because %s.", checkpoint.name, problem)
    raise IncompatibleCheckpointError(
        f"There is no whole checkpoint in {str(run)!r} to resume from: start without --resume_from_checkpoint."
    )


def rotate(run: str | Path, limit: int | None, keep: Iterable[str | Path]) -> None:
    """Removes the oldest checkpoints until `limit` are left, and none of those to keep; no limit removes nothing.

    Oldest by time: a run that went back to an earlier step writes lower numbers later.
    """
    if not limit or limit < 0:
        return
    kept = {Path(path).resolve() for path in keep}
    found = list_checkpoints(run)
    others = [path for path in found if path.resolve() not in kept]
    others.sort(key=lambda path: path.stat().st_mtime_ns)  # a stable sort: by step where times are alike
    for path in others[: max(0, len(found) - limit)]:
        discard(path)


def discard(checkpoint: str | Path) -> None:
    """Removes a checkpoint; its leftovers after a kill are not taken for a checkpoint."""
    _set_aside(Path(checkpoint))
    clear(Path(checkpoint).parent)


def staged_whole(run: str | Path) -> list[Path]:
    """Lists checkpoints that were complete when their process was killed, but not yet in place."""
    found = list_checkpoints(Path(run, STAGING))
    return [
        path for path in found if (path / MANIFEST).is_file() and not Path(run, path.name).exists() and not fault(path)
    ]


def tidy(run: str | Path) -> None:
    """Clears the leftovers of a killed process, after moving complete checkpoints into place."""
    for path in staged_whole(run):
        path.rename(Path(run, path.name))
    clear(run)


def clear(run: str | Path) -> None:
    """Removes the staging folder.

    A file that cannot be removed now, because it is open on a network file system, say, is left to the next call.
    """
    shutil.rmtree(Path(run, STAGING), ignore_errors=True)


def _set_aside(checkpoint: Path) -> None:
    staging = checkpoint.parent / STAGING
    staging.mkdir(exist_ok=True)
    checkpoint.rename(staging / f"removed-{checkpoint.name}-{time.time_ns()}")


def _with_note(checkpoint: Path) -> Path:
    if not (checkpoint / MANIFEST).is_file():
        logger.warning(
            "%s was written without checksums, as by transformers' own Trainer: no more is known than that its files end "
            "where they should.",
            checkpoint.name,
        )
    return checkpoint


def _measure(folder: Path, names: Iterable[str], *, flush: bool = False) -> list[list]:
    """Measures sizes and checksums, several files at a time."""

    def one(name: str) -> list:
        digest = xxhash.xxh3_128()
        with open(folder / name, "rb") as file:
            if flush:
                os.fsync(file.fileno())
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
            return [file.tell(), digest.hexdigest()]

    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, names))


def _plain_fault(folder: Path) -> str | None:
    try:
        json.loads((folder / _STATE).read_bytes())
    except FileNotFoundError:
        return f"it has no {_STATE}"
    except ValueError:
        return f"{_STATE} is damaged"
    if not any(folder.glob("*model*")):  # also of an adapter, sharded or in pieces
        return "it holds no weights"
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors":
            try:
                safe_open(path, framework="pt").__exit__(None, None, None)
            except SafetensorError:
                return f"{name} is damaged"
        elif path.suffix in (".pt", ".pth", ".bin"):
            if not zipfile.is_zipfile(path):
                return f"{name} is cut short"
            with zipfile.ZipFile(path) as archive:
                if archive.testzip():
                    return f"{name} is damaged"
    return None
