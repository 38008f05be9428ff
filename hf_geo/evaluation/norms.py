"""Running statistics of norm layers, taken anew for the weights a network has now."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from .batches import batch_size, batches, inputs_of

Statistics = dict[str, Tensor]
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def recalibrate_norms(model: nn.Module, loader: Iterable, max_batches: int | None = None) -> int:
    """Replaces the running statistics of batch and instance norm layers by averages over data.

    For weights that are no end of a training run: a point of a subspace, an average of weights (SWA, EMA, a soup).
    Means and variances are averages over batches, weighted by their numbers of samples and, in a distributed run, over
    all processes' batches alike. No gradients; everything but the norm layers is in evaluation mode, so dropout is off.
    The modes are as before afterwards. A model without such layers is left alone and no batch is read.

    Args:
        model: Any module; changed in place.
        loader: Batches: tensors, tuples whose first entry is the input, or mappings of arguments of `forward` (labels
            are left out). In a distributed run each process has batches of its own, in any number.
        max_batches: Batches to read; all when None.

    Returns:
        Number of samples the statistics are of.

    Raises:
        ValueError: The loader is empty, or `max_batches` is below one.
    """
    statistics = running_statistics(model)

    def run(batch: Any) -> None:
        args, kwargs = inputs_of(model, batch)
        model(*args, **kwargs)

    return collect(model, statistics, run, loader, max_batches)


def running_statistics(model: nn.Module) -> Statistics:
    """The running statistics of a model's norm layers, by their names in it."""
    return {
        f"{path}.{name}".lstrip("."): buffer
        for path, layer in _layers(model).items()
        for name, buffer in layer.named_buffers(recurse=False)
        if name in _STATISTICS
    }


def collect(
    model: nn.Module,
    statistics: Statistics,
    run: Callable[[Any], Any],
    loader: Iterable,
    max_batches: int | None,
) -> int:
    """Takes the statistics of one or several networks in one pass over a loader; see `recalibrate_norms`.

    Args:
        model: The module whose norm layers take them.
        statistics: Overwritten; any leading axes are several networks'.
        run: Runs every network on a batch, with its part of `statistics` in the norm layers.
        loader, max_batches: As in `recalibrate_norms`.
    """
    layers = list(_layers(model).values())
    if not layers:
        return 0
    seen = 0
    with _collecting(model, layers), torch.no_grad():
        for batch in batches(loader, max_batches, "Norm statistics"):
            if seen == 0:
                for tensor in statistics.values():
                    tensor.zero_()
            size = batch_size(batch)
            seen += size
            for layer in layers:
                # running = (1 - momentum) * running + momentum * batch: the average weighted by sample counts.
                layer.momentum = size / seen
            run(batch)
    samples = _reduce(statistics, seen)
    if samples == 0:
        raise ValueError("There was no batch to take norm statistics from: the loader is empty, or was used up before.")
    return samples


def _layers(model: nn.Module) -> dict[str, _NormBase]:
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, _NormBase) and module.running_mean is not None
    }


@contextmanager
def _collecting(model: nn.Module, layers: Sequence[_NormBase]) -> Iterator[None]:
    """The norm layers in training mode, everything else in evaluation mode; as before afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    momenta = [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def _reduce(statistics: Statistics, seen: int) -> int:
    """Averages over processes, each by its number of samples; returns the total."""
    if not (dist.is_available() and dist.is_initialized()):
        return seen
    tensors = [t for t in statistics.values() if t.is_floating_point()]
    # One message for all. Summed in float64, so that many processes lose nothing.
    flat = torch.cat([t.double().flatten() * seen for t in tensors])
    message = torch.cat([flat, flat.new_tensor([seen])])
    dist.all_reduce(message)
    total = message[-1].item()
    parts = (message[:-1] / max(total, 1)).split([t.numel() for t in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))
    return int(total)
