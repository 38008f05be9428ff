"""Names and state dicts of the plain model."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ._span import Span, gathered

_EXTRA_STATE = "_extra_state"  # the key of the value of a module's `get_extra_state`


def plain_name(name: str) -> str:
    """A tensor's name without the part that `torch.compile` puts into it."""
    return name.replace("_orig_mod.", "")


def find_module(model: nn.Module, saved_names: Collection[str]) -> tuple[str, dict[str, str]]:
    """Finds the module whose tensors have the saved names: the model or a child of it.

    A network is saved with or without a wrapper around it (as transformers has one around timm's networks), compiled
    or not, and its tensors are put into either.

    Returns:
        The module's name, empty for the model itself, and for each saved name the module's own one.
    """
    plain = {name: plain_name(name) for name in saved_names}
    fronts = {name.partition(".")[0] + "." for name in plain.values()}
    most, best = 0, ("", plain)
    for path, module in (("", model), *model.named_children()):
        own = {plain_name(name): name for name in tensors_of(module.state_dict())}
        for front in ("", *fronts):
            found = {name: own.get(short.removeprefix(front), short) for name, short in plain.items()}
            count = len(own.keys() & {name.removeprefix(front) for name in plain.values() if name.startswith(front)})
            if count > most:
                most, best = count, (path, found)
    return best


def tensors_of(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a state dict, without extra states (`get_extra_state`), which may be anything and change."""
    named = {name: value for name, value in state_dict.items() if name.rpartition(".")[2] != _EXTRA_STATE}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}


def plain_state_dict(model: nn.Module, spans: Sequence[Span], value: Callable[[Span], Tensor]) -> dict[str, Any]:
    """The plain model's state dict, with `value(span)` of each spanned tensor; all else is the model's own."""
    spanned = {name for span in spans for name in span.point_names}
    state = {name: gathered(t) for name, t in model.state_dict().items() if name not in spanned}
    with torch.no_grad():
        for span in spans:
            # One tensor under all of a tied tensor's names, as in the plain model.
            state.update(dict.fromkeys(span.names, value(span)))
    return state
