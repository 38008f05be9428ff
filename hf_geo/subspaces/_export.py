"""What other libraries save of a model with control points: the plain network at the current position."""

import sys
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.parametrize import ParametrizationList

# Of transformers, PEFT, diffusers and huggingface_hub; of timm.
_EXPORTS = frozenset({"save_pretrained", "save_for_hf"})


def fold_when_exported(
    held: ParametrizationList, state_dict: dict[str, Tensor], prefix: str, local_metadata: dict[str, Any]
) -> None:
    """Replaces the control points of one tensor by its value, in a state dict that is written for others to open.

    A hook for `register_state_dict_post_hook`. Without it the folder would hold names that no library knows, which
    `from_pretrained` answers with freshly initialised weights. Every other state dict keeps the control points.
    """
    if not _is_exporting():
        return
    for name in [name for name in state_dict if name.startswith(prefix)]:
        del state_dict[name]
    module, _, tensor_name = prefix.removesuffix(".").rpartition("parametrizations.")
    with torch.no_grad():
        state_dict[module + tensor_name] = held().detach()


def _is_exporting() -> bool:
    """Whether the state dict is for a folder that other programs open; libraries pass on nothing else that says so."""
    functions = set()
    frame = sys._getframe()
    while frame is not None:
        functions.add(frame.f_code.co_name)
        frame = frame.f_back
    # transformers' Trainer saves checkpoints by `save_pretrained` too, and resuming takes every control point.
    return not functions.isdisjoint(_EXPORTS) and "_save_checkpoint" not in functions
