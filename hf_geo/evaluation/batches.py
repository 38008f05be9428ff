"""The inputs, labels and logits of batches in all usual forms.

A batch is

- a tensor (or a packed sequence): the input;
- a mapping of arguments of `forward`, with the labels under "labels" or "label"; entries that `forward` does not take
  are left out. A named tuple or a dataclass counts as one when a field of it is an argument of `forward`;
- a tuple or list of the input and the labels, where the input may again be a mapping of arguments, or a tuple or list of
  them.
"""

import dataclasses
import inspect
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from tqdm.auto import tqdm
from transformers.trainer_utils import has_length

LABELS = ("labels", "label")


def inputs_of(model: nn.Module, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of `model.forward`, on the model's device.

    Raises:
        ValueError: `forward` takes none of a mapping's entries.
    """
    parameter = next(model.parameters(), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    names, takes_any = _arguments_of_forward(model)
    arguments = _as_mapping(batch, names)
    if arguments is None and _is_sequence(batch):
        batch = batch[0]
        arguments = _as_mapping(batch, names)
    if arguments is None:
        return tuple(send_to_device(v, device) for v in (batch if _is_sequence(batch) else [batch])), {}
    taken = {k: v for k, v in arguments.items() if k not in LABELS and (takes_any or k in names)}
    if not taken:
        raise ValueError(f"The model takes {', '.join(names)}, but a batch has {', '.join(map(str, arguments))}.")
    return (), {k: send_to_device(v, device) for k, v in taken.items()}


def labels_of(batch: Any) -> Tensor:
    """A batch's labels.

    Raises:
        ValueError: It has none.
    """
    fields = batch if isinstance(batch, Mapping) else _fields(batch)
    for name in LABELS:
        if name in fields:
            return fields[name]
    if _is_sequence(batch) and len(batch) > 1:
        return batch[1]
    if _is_sequence(batch) and batch:
        return labels_of(batch[0])
    raise ValueError("A batch to evaluate on has no labels: it needs an entry 'labels', or to be (inputs, labels).")


def logits_of(output: Any) -> Tensor:
    """The logits in the output of a network."""
    if isinstance(output, Tensor):
        return output
    return output["logits"] if isinstance(output, Mapping) else output[0]


def batch_size(batch: Any) -> int:
    """Number of samples: the first axis of the first tensor.

    Raises:
        ValueError: The batch has no tensor with an axis.
    """
    size = next(_sizes(batch), None)
    if size is None:
        raise ValueError("A batch holds no tensor, so it has no size.")
    return size


def batches(loader: Iterable, max_batches: int | None, title: str) -> Iterator[Any]:
    """Yields the first `max_batches` of a loader, or all, without empty ones; shows progress.

    Raises:
        ValueError: `max_batches` is below one, or a batch holds no tensor.
    """
    if max_batches is not None and max_batches < 1:
        raise ValueError(f"max_batches is one or more, or None for all; got {max_batches}.")
    total = len(loader) if has_length(loader) else None
    if max_batches is not None:
        total = max_batches if total is None else min(total, max_batches)
    bar = tqdm(islice(loader, max_batches), title, total, unit=" batches", delay=2, leave=False)
    return (batch for batch in bar if batch_size(batch))


def _arguments_of_forward(model: nn.Module) -> tuple[list[str], bool]:
    """The names of the arguments of `forward`, and whether it takes others too.

    A wrapper's `forward(*args, **kwargs)` has no names, so those of the wrapped module count.
    """
    while True:
        parameters = inspect.signature(model.forward).parameters.values()
        names = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        children = list(model.children())
        if names or len(children) != 1:
            return names, any(p.kind is p.VAR_KEYWORD for p in parameters)
        model = children[0]


def _as_mapping(value: Any, names: Collection[str]) -> Mapping[str, Any] | None:
    """A batch's entries by name, if it is a mapping, or has a field of one of these names."""
    if isinstance(value, Mapping):
        return value
    fields = _fields(value)
    return None if fields.keys().isdisjoint(names) else fields


def _fields(value: Any) -> dict[str, Any]:
    """The fields of a named tuple or dataclass; none of anything else."""
    if isinstance(value, tuple) and hasattr(value, "_asdict") and not isinstance(value, PackedSequence):
        return value._asdict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {}


def _is_sequence(value: Any) -> bool:
    return isinstance(value, tuple | list) and not isinstance(value, PackedSequence)


def _sizes(value: Any) -> Iterator[int]:
    if isinstance(value, PackedSequence):
        yield int(value.batch_sizes[0])
    elif isinstance(value, Tensor):
        yield from value.shape[:1]
    else:
        parts = (
            value if _is_sequence(value) else value.values() if isinstance(value, Mapping) else _fields(value).values()
        )
        for part in parts:
            yield from _sizes(part)
