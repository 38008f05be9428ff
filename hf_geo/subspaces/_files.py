"""The two files of a saved subspace, `subspace_config.json` and `subspace.safetensors`: a description and named tensors."""

import json
import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

CONFIG_NAME = "subspace_config.json"
WEIGHTS_NAME = "subspace.safetensors"


def write_files(folder: str | PathLike, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Writes both files into a folder, which is made if missing; the weights are replaced as a whole."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Copies, as buffers may be views of one another, which safetensors refuses.
    tensors = {name: t.to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    partial = folder / f".{WEIGHTS_NAME}.{os.getpid()}"
    save_file(tensors, partial, metadata={"format": "pt"})
    os.replace(partial, folder / WEIGHTS_NAME)
    (folder / CONFIG_NAME).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def read_files(folder: str | PathLike) -> tuple[Any, dict[str, Tensor]]:
    """Reads the description and the tensors from a folder, or from the Hub repository of that id.

    Raises:
        ValueError: A file is missing or damaged.
    """
    config, weights = (_find(folder, name) for name in (CONFIG_NAME, WEIGHTS_NAME))
    try:
        description = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{config} is no complete description of a subspace ({error!r}).") from error
    return description, read_tensors(weights, "is damaged or cut short")


def read_tensors(path: Path, fault: str) -> dict[str, Tensor]:
    """Reads a safetensors file; raises a `ValueError` that names it and says `fault` if it cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} {fault} ({error}): copy or download it again.") from error


def _find(folder: str | PathLike, name: str) -> Path:
    """The path of a file in a folder, or downloaded from the Hub repository of that id."""
    if os.path.isdir(folder):
        path = Path(folder) / name
    else:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            path = Path(hf_hub_download(os.fspath(folder), name))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
            raise ValueError(
                f"{os.fspath(folder)!r} is no folder, and no {name} came from a Hub repository of that id: {error}"
            ) from error
    if not path.is_file():
        raise ValueError(f"{folder} has no {name}, so it holds no saved subspace.")
    return path
