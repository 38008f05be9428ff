"""A run's folder: whether it may be written, where it resumes, and which settings others may see."""

import dataclasses
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerState

from hf_geo.checkpoints.listing import list_checkpoints
from hf_geo.checkpoints.placing import COMPLETE, PARTIAL, WEIGHTS
from hf_geo.checkpoints.store import discard, staged_whole
from hf_geo.embedded import EMBEDDED

# Settings about this machine or this account, which say nothing about the model.
PRIVATE = re.compile(
    "output_dir|logging_dir|run_name|project|resume_from_checkpoint|local_rank|push_to_hub|hub_.*|trackio_.*|.*_token"
)
# A path inside a setting, as in local-dir:/home/ada/run or key=/home/ada/file; not an address on the web.
_LOCAL_PATH = re.compile(r"(?<![\w./~])(?:~\w*|\.{1,2})?/(?!/)[^\s,;'\")\]}]*")


def check_output_dir(output_dir: str | Path, *, overwrite: bool, resume: str | None) -> str | bool | None:
    """Checks that a run may use its folder, and finds the checkpoint that it resumes from. Changes nothing.

    Args:
        output_dir: The run's folder, which need not exist.
        overwrite: Whether an earlier run's checkpoints and results may be replaced.
        resume: None or "false" for a new run, "true" for the newest checkpoint in `output_dir`, or a checkpoint's folder.

    Returns:
        The checkpoint's folder; True for the newest one, still to be chosen; None for a new run.

    Raises:
        ValueError: The folder holds a run already; there is nothing to resume from; the folder cannot be written.
    """
    folder = Path(output_dir)
    if resume and resume.lower() in ("false", "no", "off", "0"):
        resume = None
    if overwrite and resume:
        raise ValueError("--overwrite and --resume_from_checkpoint contradict each other: give one of them.")
    check_writable(folder)
    found = bool(list_checkpoints(folder) or staged_whole(folder))
    if resume:
        return _checkpoint_to_resume(resume, found, folder)
    finished = any(WEIGHTS.fullmatch(path.name) for path in folder.glob("model*")) or (folder / COMPLETE).exists()
    if not overwrite and (finished or found or (folder / PARTIAL).exists()):
        state = "a finished run" if finished else "an unfinished run" if found else f"an unfinished result ({PARTIAL})"
        resume = " go on with --resume_from_checkpoint true," if found else ""
        raise ValueError(
            f"The output folder {str(folder)!r} holds {state}: choose another --output_dir,{resume} or replace it with "
            "--overwrite true."
        )
    return None


def check_writable(folder: str | Path) -> None:
    """Raises `ValueError` for a folder that cannot be written, or not made."""
    folder = Path(folder)
    try:
        parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError:  # a name that is too long for the file system
        parent = None
    if parent is None or not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise ValueError(f"The output folder {str(folder)!r} cannot be written: choose another --output_dir.")


def remove_checkpoints(output_dir: str | Path) -> None:
    """Removes an earlier run's checkpoints; its result stays until another one replaces it."""
    for checkpoint in list_checkpoints(output_dir):
        discard(checkpoint)


def _checkpoint_to_resume(resume: str, found: bool, folder: Path) -> str | bool:
    if resume.lower() in ("true", "yes", "on", "1"):
        if not found:
            raise ValueError(
                f"There is no checkpoint in {str(folder)!r} to resume from: start without --resume_from_checkpoint."
            )
        return True
    if not (Path(resume) / "trainer_state.json").is_file():
        raise ValueError(
            f"{resume!r} is not a checkpoint folder (it has no trainer_state.json): name one, or say true for the newest."
        )
    return resume


def public_settings(*instances: Any, only: Collection[str] | None = None) -> dict[str, Any]:
    """Collects settings for a card or `training_args.json`, without secrets or local paths.

    Of a local path the last part stays; of a data set's folder `./` and the last part, lest it reads as a Hub id.

    Args:
        *instances: `TrainingArguments` (its own `to_dict` is used) or other dataclasses.
        only: Names of the settings to show; all of them when not given.
    """
    found = {}
    for instance in instances:
        values = instance.to_dict() if hasattr(instance, "to_dict") else dataclasses.asdict(instance)
        for name in (field.name for field in dataclasses.fields(instance) if field.init):
            if not PRIVATE.fullmatch(name) and (only is None or name in only):
                found[name] = _without_local_paths(values[name])
        dataset = values.get("dataset")
        if "dataset" in found and dataset not in (None, *EMBEDDED) and os.path.isdir(dataset):
            found["dataset"] = f"./{Path(dataset).name}"
    return found


def _without_local_paths(value: Any) -> Any:
    """Replaces paths on this machine by their last part."""
    if isinstance(value, dict):
        return {key: _without_local_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_local_paths(item) for item in value]
    if not isinstance(value, str):
        return value
    if os.path.isabs(value) or value.startswith((".", "~")) or ("/" in value and os.path.exists(value)):
        return Path(value).name
    return _LOCAL_PATH.sub(lambda path: Path(path[0]).name, value)


def default_output_dir(given: str | None, *names: str | None) -> str:
    """Returns the folder the user gave, or one under `outputs/` named after model, data set and optimizer."""
    if given and given != "trainer_output":  # the default of transformers
        return given
    parts = (Path(str(name)).name.replace(":", "-") for name in names if name)
    return str(Path("outputs") / "-".join(parts))


def portable_state(state: TrainerState) -> dict[str, Any]:
    """Converts the Trainer's state to plain data, without paths of this machine."""
    values = dataclasses.asdict(state)
    if values.get("best_model_checkpoint"):
        values["best_model_checkpoint"] = Path(values["best_model_checkpoint"]).name
    return values


def hardware(num_processes: int, device: torch.device) -> str:
    """Describes the machine that a run trains on."""
    if device.type == "cuda":
        return f"{num_processes} x {torch.cuda.get_device_name(device)}"
    if device.type != "cpu":
        return f"{num_processes} x {device.type}"
    cores = f"{os.cpu_count()} CPU cores"
    return cores if num_processes == 1 else f"{cores} ({num_processes} processes)"
