"""A subspace on disk: `subspace_config.json` and `subspace.safetensors`, read and written here only."""

import dataclasses
import json
import os
import re
from collections.abc import Collection
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ._span import add_points, check_plain, find_holders
from .config import SubspaceConfig

if TYPE_CHECKING:
    from .subspace import Subspace

CONFIG_NAME = "subspace_config.json"
WEIGHTS_NAME = "subspace.safetensors"


def save(subspace: "Subspace", folder: str | PathLike) -> None:
    """See `Subspace.save`."""
    from safetensors.torch import save_file

    sharded = any(hasattr(p, "full_tensor") for p in subspace.model.parameters())
    persistent = subspace.model.state_dict().keys()
    buffers = [name for name, _ in subspace.model.named_buffers() if name in persistent]
    tensors = {}
    for index in range(subspace.config.num_points):
        point = subspace.point_state_dict(index)
        tensors |= {f"point{index}.{span.names[0]}": point[span.names[0]] for span in subspace._spans}
        tensors |= {f"buffer.{name}": point[name] for name in buffers}
    if sharded and torch.distributed.get_rank() != 0:
        return
    description = {
        **dataclasses.asdict(subspace.config),
        "layer_names": subspace.layer_names,
        "spanned": [span.names for span in subspace._spans],
        "shapes": {name: list(t.shape) for name, t in point.items()},
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Clones: buffers may be views of one another, which safetensors refuses.
    weights = {name: t.to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    partial = folder / f".{WEIGHTS_NAME}.{os.getpid()}"
    save_file(weights, partial, metadata={"format": "pt"})
    os.replace(partial, folder / WEIGHTS_NAME)
    (folder / CONFIG_NAME).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def load(cls: type["Subspace"], folder: str | PathLike, model: nn.Module) -> "Subspace":
    """See `Subspace.load`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_plain(model)
    config_file, weights_file = (_find(folder, name) for name in (CONFIG_NAME, WEIGHTS_NAME))
    try:
        description = json.loads(config_file.read_text(encoding="utf-8"))
        config = SubspaceConfig(**{f.name: description[f.name] for f in dataclasses.fields(SubspaceConfig)})
        spanned, shapes = description["spanned"], description["shapes"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{config_file} is no complete description of a subspace ({error!r}).") from error
    model, prefix = _aligned(model, shapes)
    spanned = {names[0].removeprefix(prefix): [name.removeprefix(prefix) for name in names] for names in spanned}
    shapes = {name.removeprefix(prefix): shape for name, shape in shapes.items()}
    _check_architecture(folder, shapes, {name: list(t.shape) for name, t in model.state_dict().items()})
    _check_ties(folder, spanned, model)
    try:
        tensors = load_file(weights_file)
        tensors = {re.sub(rf"^(point\d+|buffer)\.{re.escape(prefix)}", r"\1.", name): t for name, t in tensors.items()}
        points = [{name: tensors.pop(f"point{i}.{name}") for name in spanned} for i in range(config.num_points)]
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{weights_file} is damaged or cut short ({error}): copy or download it again.") from error

    # What was spanned is spanned again, whether or not it requires a gradient in this model.
    holders = {p: held for p, held in find_holders(model).items() if held.names[0] in spanned}
    for parameter, held in holders.items():
        for point in points:
            point[held.names[0]] = point[held.names[0]].to(parameter)
    add_points(list(holders.values()), points)
    buffers = dict(model.named_buffers())
    for name, value in tensors.items():
        buffers[name.removeprefix("buffer.")].copy_(value)
    return cls(model, config)


def _aligned(model: nn.Module, names: Collection[str]) -> tuple[nn.Module, str]:
    """The module that the saved names are of, and what to take off their fronts.

    A network is saved with or without a wrapper around it (as transformers has one around timm's networks), and loaded
    into either.
    """
    for module in (model, *model.children()):
        own = module.state_dict().keys()
        for prefix in ("", *{name.partition(".")[0] + "." for name in names}):
            if any(name.removeprefix(prefix) in own for name in names if name.startswith(prefix)):
                return module, prefix
    return model, ""


def _check_architecture(folder: str | PathLike, saved: dict[str, list[int]], own: dict[str, list[int]]) -> None:
    for name in {**own, **saved}:
        if saved.get(name) != own.get(name):
            was, has = (f"shape {shapes[name]}" if name in shapes else "no such tensor" for shapes in (saved, own))
            raise ValueError(
                f"The subspace in {folder} is of another architecture: for {name!r} it has {was}, the model {has}."
            )


def _check_ties(folder: str | PathLike, spanned: dict[str, list[str]], model: nn.Module) -> None:
    own: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        own.setdefault(parameter, []).append(name)
    for first, saved in spanned.items():
        found = own[model.get_parameter(first)]
        if sorted(found) != sorted(saved):
            raise ValueError(
                f"The subspace in {folder} is of another architecture: there, one tensor is {' and '.join(saved)}; "
                f"in the model it is {' and '.join(found)}."
            )


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
