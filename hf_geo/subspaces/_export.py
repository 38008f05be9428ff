"""State dicts that other libraries export: the plain network at the current position, without control points."""

import sys
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.parametrize import ParametrizationList

# The functions by which transformers, PEFT, diffusers, huggingface_hub and timm write a folder for others to open.
_EXPORTS = frozenset({"save_pretrained", "save_for_hf"})


def fold_when_exported(
    held: ParametrizationList, state_dict: dict[str, Tensor], prefix: str, local_metadata: dict[str, Any]
) -> None:
    """Replaces the control points of one tensor by its value, in a state dict that is exported for others to open.

    A hook for `register_state_dict_post_hook`. Without it the folder would hold names that no library knows, and
    `from_pretrained` would replace those weights by freshly initialised ones. All other state dicts keep the points.
    """
    if not _is_exporting():
        return
    for name in [name for name in state_dict if name.startswith(prefix)]:
        del state_dict[name]
    module, _, tensor_name = prefix.removesuffix(".").rpartition("parametrizations.")
    with torch.no_grad():
        state_dict[module + tensor_name] = held().detach()


def _is_exporting() -> bool:
    """Whether one of the functions that called is an export.

    The stack is the only sign of it: `model.state_dict()` gets the same arguments for an export as for a checkpoint.
    `save_pretrained` of the attached module cannot be overridden instead, as it often belongs to a module around it, and
    `save_for_hf` is no method. The names are public API of their libraries, and test_export.py calls each of them.
    """
    functions = set()
    frame = sys._getframe()
    while frame is not None:
        functions.add(frame.f_code.co_name)
        frame = frame.f_back
    # transformers' Trainer writes checkpoints by `save_pretrained` too, and resuming needs every control point.
    return not functions.isdisjoint(_EXPORTS) and "_save_checkpoint" not in functions
