"""What a network is fed from a batch, and what it answers."""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers.trainer_utils import has_length

LABELS = ("labels", "label")


def inputs_of(model: nn.Module, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of `model.forward`, on the model's device: a mapping's entries that it takes, but no labels; a tuple's
    or list's first entry; a tensor itself.

    Raises:
        ValueError: `forward` takes none of the mapping's entries.
    """
    parameter = next(model.parameters(), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    if isinstance(batch, Tensor):
        return (batch.to(device),), {}
    if isinstance(batch, tuple | list):
        return (batch[0].to(device),), {}
    parameters = inspect.signature(model.forward).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    taken = {k: v for k, v in batch.items() if k not in LABELS and (anything or k in parameters)}
    if not taken:
        raise ValueError(f"The model takes {', '.join(parameters)}, but a batch has {', '.join(map(str, batch))}.")
    return (), {k: v.to(device) if isinstance(v, Tensor) else v for k, v in taken.items()}


def labels_of(batch: Any) -> Tensor:
    """A batch's labels: the entry "labels" or "label" of a mapping, the second of a tuple or list.

    Raises:
        ValueError: It has none.
    """
    if isinstance(batch, Mapping):
        for name in LABELS:
            if name in batch:
                return batch[name]
    elif isinstance(batch, tuple | list) and len(batch) > 1:
        return batch[1]
    raise ValueError("A batch to evaluate on has no labels: it needs an entry 'labels', or to be (inputs, labels).")


def logits_of(output: Any) -> Tensor:
    """The logits in what a network returned."""
    if isinstance(output, Tensor):
        return output
    return output["logits"] if isinstance(output, Mapping) else output[0]


def batch_size(batch: Any) -> int:
    """Number of samples: the first axis of the first tensor.

    Raises:
        ValueError: The batch has no tensor with an axis.
    """
    values = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, tuple | list) else [batch]
    for value in values:
        if isinstance(value, Tensor) and value.ndim:
            return value.shape[0]
    raise ValueError("A batch holds no tensor, so it has no size.")


def batches(loader: Iterable, max_batches: int | None, title: str) -> Iterator[Any]:
    """The first `max_batches` of a loader (all when None), with a progress bar on a terminal.

    Raises:
        ValueError: `max_batches` is below one.
    """
    if max_batches is not None and max_batches < 1:
        raise ValueError(f"max_batches is one or more, or None for all; got {max_batches}.")
    total = len(loader) if has_length(loader) else None
    if max_batches is not None:
        total = max_batches if total is None else min(total, max_batches)
    return iter(tqdm(islice(loader, max_batches), title, total, unit=" batches", delay=2, leave=False, disable=None))
