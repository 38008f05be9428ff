"""State dicts of the plain model, and what is written of an attached one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ._files import SavedSubspace, as_stored
from ._span import Span, gathered, plain_name
from .config import SubspaceConfig

_EXTRA_STATE = "_extra_state"  # the key of what a module's `get_extra_state` returns


def plain_state_dict(model: nn.Module, spans: Sequence[Span], value: Callable[[Span], Tensor]) -> dict[str, Any]:
    """The plain model's state dict, with `value` of each spanned tensor; all else is the model's own."""
    spanned = {name for span in spans for name in span.point_names}
    state = {name: gathered(t) for name, t in model.state_dict().items() if name not in spanned}
    with torch.no_grad():
        for span in spans:
            # One tensor under all of a tied tensor's names, as in the plain model.
            state.update(dict.fromkeys(span.names, value(span)))
    return state


def tensors_of(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a state dict, without what modules add by `get_extra_state`: that may be anything, and change."""
    named = {name: value for name, value in state_dict.items() if name.rpartition(".")[2] != _EXTRA_STATE}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}


def collect_for_saving(
    model: nn.Module, spans: Sequence[Span], config: SubspaceConfig, layer_names: Sequence[str]
) -> SavedSubspace | None:
    """What is to be written of an attached model; None where sharded parameters are gathered for another process."""
    plain_states = [
        tensors_of(plain_state_dict(model, spans, lambda span, index=index: gathered(span.points[index])))
        for index in range(config.num_points)
    ]
    sharded = any(hasattr(p, "full_tensor") for p in model.parameters())
    if sharded and torch.distributed.get_rank() != 0:
        return None
    first = plain_states[0]
    buffers = [name for name, _ in model.named_buffers() if name in first]
    return SavedSubspace(
        config,
        [plain_name(name) for name in layer_names],
        [[plain_name(name) for name in span.names] for span in spans],
        {plain_name(name): list(t.shape) for name, t in first.items()},
        [{plain_name(span.names[0]): as_stored(state[span.names[0]]) for span in spans} for state in plain_states],
        {plain_name(name): as_stored(first[name]) for name in buffers},
    )
