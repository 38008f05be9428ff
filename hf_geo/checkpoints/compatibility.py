"""Checks that a checkpoint is of the model and optimizer of the run that resumes from it."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

# Settings that a scheduler or an earlier load may change, and what optimizers of timm and schedulefree count in their groups.
_CHANGING = {
    *("params", "param_names", "lr", "initial_lr", "swa_lr", "max_lr", "min_lr", "base_momentum", "max_momentum"),
    *("step", "buffer", "k", "weight_sum", "lr_max", "scheduled_lr", "train_mode"),
}


class IncompatibleCheckpointError(ValueError):
    """The checkpoint cannot be resumed from: it is damaged, or of another run."""


def check_same_optimizer(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
    """A hook for `optimizer.register_load_state_dict_pre_hook`: the saved settings must be those of this optimizer.

    Raises:
        IncompatibleCheckpointError: Another number of parameter groups or tensors, other settings, or another value of one.
    """
    ours, saved = optimizer.param_groups, state_dict["param_groups"]
    if len(ours) != len(saved):
        raise IncompatibleCheckpointError(
            f"The checkpoint's optimizer has {len(saved)} parameter groups and this run's {type(optimizer).__name__} has {len(ours)}: "
            "resume with the optimizer and model the checkpoint was written with."
        )
    for index, (group, other) in enumerate(zip(ours, saved, strict=True)):
        label, other = group.get("name", index), {**getattr(optimizer, "later_settings", {}), **other}
        if set(group) - _CHANGING != set(other) - _CHANGING:
            raise IncompatibleCheckpointError(
                f"The checkpoint was written by another optimizer than this run's {type(optimizer).__name__}: its settings are "
                f"{', '.join(sorted(set(other) - _CHANGING))}, this run's {', '.join(sorted(set(group) - _CHANGING))}; resume with the same --optim."
            )
        if len(group["params"]) != len(other["params"]):
            raise IncompatibleCheckpointError(
                f"Parameter group {label!r} has {len(other['params'])} tensors in the checkpoint and {len(group['params'])} in this run: "
                "resume with the same model and grouping."
            )
        for key in sorted(set(group) - _CHANGING):
            if _plain(group[key]) != _plain(other[key]):
                raise IncompatibleCheckpointError(
                    f"The checkpoint was trained with {key}={_plain(other[key])!r} in parameter group {label!r} and this run asks for "
                    f"{key}={_plain(group[key])!r}: resume with the checkpoint's value, or start a new run."
                )


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    return tuple(value) if isinstance(value, list) else value


def check_same_model(model: nn.Module, checkpoint: str | Path) -> None:
    """Compares a checkpoint's tensors with the model's, by the names and shapes in its safetensors headers.

    A checkpoint without safetensors weights (an adapter's, FSDP's) is left to whoever loads it.

    Raises:
        IncompatibleCheckpointError: The first tensor that is missing, unexpected, or of another shape.
    """
    folder = Path(checkpoint)
    index = folder / "model.safetensors.index.json"
    files = [folder / "model.safetensors"]
    if index.is_file():
        files = [
            folder / name for name in sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        ]
    if not all(file.is_file() for file in files):
        return
    saved = {}
    for file in files:
        with safe_open(file, framework="pt") as stored:
            saved |= {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
    tensors = model.state_dict(keep_vars=True)
    ours = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    # One of several tied names is saved; tensors that a model leaves out of its files are made anew.
    found = {id(tensor) for name, tensor in tensors.items() if name in saved}
    left_out = {name for name, tensor in tensors.items() if id(tensor) in found}
    left_out.update(getattr(model, "_keys_to_ignore_on_save", None) or ())
    for name in sorted((set(saved) ^ set(ours)) - left_out):
        where = "only in the checkpoint" if name in saved else "not in the checkpoint"
        raise IncompatibleCheckpointError(
            f"The checkpoint {folder.name} is of another model: tensor {name!r} is {where}; resume with the model it was written with."
        )
    for name, shape in saved.items():
        if name in ours and ours[name] != shape:
            raise IncompatibleCheckpointError(
                f"The checkpoint {folder.name} is of another model: tensor {name!r} has shape {shape} there and {ours[name]} in this run; resume "
                "with the model it was written with."
            )
