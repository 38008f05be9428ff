"""Selects the files of a run's folder, or of a Space, that go to the Hub."""

import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import RepoCard, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import filter_repo_objects, validate_repo_id

from hf_geo.checkpoints.listing import list_checkpoints

# Never pushed (in the Hub's patterns `*` crosses slashes): checkpoints, unfinished files of a stopped writer, hidden
# files such as `.env`, and the pickled training arguments, which hold the token they were given.
NOT_PUSHED = ("checkpoint-[0-9]*/*", "_*", "tmp-*", "*.tmp", "*.incomplete", ".*", "*/.*", "*training_args.bin")
_TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{30,}")
_LARGEST_TEXT = 10 * 2**20  # bytes; larger files hold weights, and are not searched for tokens


def find_parts(
    folder: Path, checkpoints: Literal["none", "last", "all"] = "none", token: str | None = None
) -> list[tuple[Path, str | None]]:
    """Lists the folders to push, each with its path in the repository, None for the top.

    Args:
        folder: The output folder of a finished run, or a Space.
        checkpoints: Which checkpoints are pushed too.
        token: Access token that no file may hold. Defaults to the one of `HF_TOKEN` or of `hf auth login`.

    Raises:
        ValueError: `folder` is neither a finished run nor a Space, or holds an access token.
    """
    if not is_space(folder):
        read_config(folder)
    parts = [(folder, None), *_checkpoints(folder, checkpoints)]
    for path, _ in parts:
        refuse_secrets(path, token or get_token())
    return parts


def copy_contents(folder: Path, destination: Path, checkpoints: Literal["none", "last", "all"] = "none") -> None:
    """Writes what would be pushed into a new folder, as the repository would have it; needs neither the Hub nor a token.

    Raises:
        ValueError: As for `find_parts`; or `destination` holds something, or lies in `folder`.
        RuntimeError: The disk refused.
    """
    parts = find_parts(folder, checkpoints)
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise ValueError(f"{str(destination)!r} is there already: choose another --local_dir, or remove it first.")
    if destination.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"{str(destination)!r} lies in {str(folder)!r}, and would be pushed with it: choose another --local_dir."
        )

    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}-") as new:
            for part, path_in_repo in parts:
                for name in _files(part):
                    target = Path(new, "whole", path_in_repo or "", name)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(part / name, target)
            os.replace(Path(new, "whole"), destination)
    except OSError as error:
        raise RuntimeError(
            f"{str(destination)!r} could not be written ({error}): choose another --local_dir."
        ) from error


def is_space(folder: Path) -> bool:
    """Whether a folder is a Space, as scripts/explore.py writes it, and not a run."""
    card = folder / "README.md"
    return card.is_file() and (folder / "app.py").is_file() and RepoCard.load(card).data.get("sdk") == "gradio"


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter of PEFT, as scripts/merge.py writes it, and no whole network."""
    return (folder / "adapter_config.json").is_file()


def read_config(folder: str | Path) -> dict[str, Any]:
    """Reads the `config.json` of a finished run, or the `adapter_config.json` of an adapter.

    Raises:
        ValueError: The folder is missing or holds no finished run, or an adapter of a model that is only on this machine.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"There is no folder {str(folder)!r}: give the output folder of a finished run.")
    prefix = "adapter_" if is_adapter(folder) else ""
    for name in ("adapter_model.safetensors" if prefix else "model.safetensors", f"{prefix}config.json"):
        if not (folder / name).is_file():
            raise ValueError(f"{str(folder)!r} is not the folder of a finished run: it holds no {name}.")
    path = folder / f"{prefix}config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is not JSON ({error}): export the run again.") from error
    if prefix and not _is_hub_id(base := config.get("base_model_name_or_path")):
        raise ValueError(
            f"The adapter in {str(folder)!r} belongs to the model {base!r}, which is on this machine alone: push that too, and "
            f"give its id as base_model_name_or_path in {str(path)!r}."
        )
    return config


def _is_hub_id(name: str | None) -> bool:
    try:
        validate_repo_id(name or "")
    except HFValidationError:
        return False
    return not Path(name).exists()


def _files(folder: Path) -> list[str]:
    """Lists the files of a folder that are pushed, by their paths in it."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return list(filter_repo_objects(names, ignore_patterns=list(NOT_PUSHED)))


def refuse_secrets(folder: Path, token: str | None) -> None:
    """Raises `ValueError` if a file that would be pushed holds an access token, whosever it is."""
    for path in (folder / name for name in _files(folder)):
        if path.stat().st_size <= _LARGEST_TEXT:
            content = path.read_bytes()
            if (token and token.encode() in content) or _TOKEN.search(content):
                raise ValueError(f"{str(path)!r} holds a Hub access token: remove it there before you push the folder.")


def _checkpoints(folder: Path, which: Literal["none", "last", "all"]) -> list[tuple[Path, str]]:
    """Lists the checkpoints to push, and their paths in the repository."""
    found = list_checkpoints(folder)
    if which == "all":
        return [(path, path.name) for path in found]
    return [(found[-1], "last-checkpoint")] if which == "last" and found else []
