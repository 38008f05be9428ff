"""A subspace on disk: `subspace_config.json` and `subspace.safetensors`, read and written here only."""

import dataclasses
import json
import os
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from .config import SubspaceConfig

CONFIG_NAME = "subspace_config.json"
WEIGHTS_NAME = "subspace.safetensors"


@dataclasses.dataclass(frozen=True)
class SavedSubspace:
    """The contents of the two files, by the plain model's names.

    Args:
        config: The subspace's settings.
        layer_names: Modules in the order of their coefficients.
        spanned: All names of each spanned tensor; a tied one has several.
        shapes: Of every tensor in the plain model's state dict.
        points: For each control point its tensors, by the first name of each. Complex ones as pairs of real numbers.
        buffers: The model's persistent buffers, complex ones likewise.
    """

    config: SubspaceConfig
    layer_names: list[str]
    spanned: list[list[str]]
    shapes: dict[str, list[int]]
    points: list[dict[str, Tensor]]
    buffers: dict[str, Tensor]


def write(saved: SavedSubspace, folder: str | PathLike) -> None:
    """Writes both files into a folder, which is made if missing; the weights are replaced as a whole."""
    from safetensors.torch import save_file

    description = {
        **dataclasses.asdict(saved.config),
        "layer_names": saved.layer_names,
        "spanned": saved.spanned,
        "shapes": saved.shapes,
    }
    tensors = {f"point{i}.{name}": t for i, point in enumerate(saved.points) for name, t in point.items()}
    tensors |= {f"buffer.{name}": t for name, t in saved.buffers.items()}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Clones: buffers may be views of one another, which safetensors refuses.
    tensors = {name: t.to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    partial = folder / f".{WEIGHTS_NAME}.{os.getpid()}"
    save_file(tensors, partial, metadata={"format": "pt"})
    os.replace(partial, folder / WEIGHTS_NAME)
    (folder / CONFIG_NAME).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def read(folder: str | PathLike) -> SavedSubspace:
    """Reads both files.

    Args:
        folder: A folder, or the id of a Hub repository.

    Raises:
        ValueError: A file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config_file, weights_file = (_find(folder, name) for name in (CONFIG_NAME, WEIGHTS_NAME))
    try:
        description = json.loads(config_file.read_text(encoding="utf-8"))
        config = SubspaceConfig(**{f.name: description[f.name] for f in dataclasses.fields(SubspaceConfig)})
        layer_names, spanned, shapes = (description[key] for key in ("layer_names", "spanned", "shapes"))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{config_file} is no complete description of a subspace ({error!r}).") from error
    try:
        tensors = load_file(weights_file)
        points = [
            {names[0]: tensors.pop(f"point{i}.{names[0]}") for names in spanned} for i in range(config.num_points)
        ]
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{weights_file} is damaged or cut short ({error}): copy or download it again.") from error
    buffers = {name.removeprefix("buffer."): tensor for name, tensor in tensors.items()}
    return SavedSubspace(config, layer_names, spanned, shapes, points, buffers)


def as_stored(tensor: Tensor) -> Tensor:
    """The tensor as it is written: a complex one as pairs, for safetensors has no dtype for most of them."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def restore(stored: Tensor, like: Tensor) -> Tensor:
    """A tensor of the dtype and on the device of `like` from what `as_stored` made of it."""
    if like.is_complex() and not stored.is_complex():
        stored = torch.view_as_complex(stored.clone())  # in the file it need not lie at a multiple of its own size
    return stored.to(like)


def _find(folder: str | PathLike, name: str) -> Path:
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
