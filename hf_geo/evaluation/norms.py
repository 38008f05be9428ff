"""Recalibrates the running statistics of norm layers for the weights that a network has now."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn

from .batches import batch_size, batches, inputs_of
from .distributed import sum_over_processes
from .moments import MomentCollector, Moments

Statistics = dict[str, Tensor]
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def recalibrate_norms(model: nn.Module, loader: Iterable, max_batches: int | None = None) -> int:
    """Replaces the running statistics of norm layers by those of data.

    This is for weights that no training run ended with: a point of a subspace, an average of weights (SWA, EMA, a soup).

    A batch norm gets the mean and the unbiased variance of all values that it sees, over all its uses in a forward pass,
    all batches and, in a distributed run, all processes. An instance norm gets the average of the samples' statistics.

    The input of a layer depends on the statistics by which earlier norms normalize. In evaluation these are the data's,
    so each batch is normalized by the statistics of everything that the layer has seen so far, this batch included,
    rather than by the batch's own. One pass is then enough: a network's first norms get exactly the data's statistics,
    for any order and size of batches, single samples included. Later norms get nearly the statistics of their inputs in
    evaluation (exactly for a single batch) if samples come in random order; if classes come one after another they may
    be off by some tens of per cent.

    Gradients and dropout are off. Layers that training does not update stay unchanged: those that keep evaluation mode
    when the model is set to training mode, or are in it while the model is not, those that do not track statistics, and
    those that do not run. Modes are restored afterwards, and after an error the statistics too. For a model without
    such layers no batch is read.

    Args:
        model: Any module, also wrapped (DDP, `AveragedModel`) or compiled; changed in place.
        loader: Batches, see `hf_geo.evaluation.batches`. In a distributed run each process has batches of its own, in
            any number.
        max_batches: Batches to read; None for all.

    Returns:
        Number of samples that the statistics are of.

    Raises:
        ValueError: The loader is empty, `max_batches` is below one, or a norm saw a single value a channel in all.
    """
    # DistributedDataParallel would broadcast buffers in each pass, and wait forever for a process with fewer batches.
    network = extract_model_from_parallel(model, keep_torch_compile=False)

    def run(batch: Any, moments: Moments, collector: MomentCollector) -> Moments:
        args, kwargs = inputs_of(network, batch)
        return collector.add(moments, lambda: network(*args, **kwargs))

    return collect(network, running_statistics(network), (), run, loader, max_batches)


def running_statistics(model: nn.Module) -> Statistics:
    """The running statistics of a model's norm layers, by their names in it."""
    return {
        f"{path}.{name}".lstrip("."): buffer
        for path, layer in _tracking_layers(model).items()
        for name, buffer in layer.named_buffers(recurse=False)
        if name in _STATISTICS
    }


def collect(
    model: nn.Module,
    statistics: Statistics,
    networks: tuple[int, ...],
    run: Callable[[Any, Moments, MomentCollector], Moments],
    loader: Iterable,
    max_batches: int | None,
) -> int:
    """Recalibrates one or several networks in one pass over a loader; see `recalibrate_norms`.

    Args:
        model: The module with the norm layers.
        statistics: The statistics to overwrite; leading axes index networks.
        networks: The sizes of these axes.
        run: Runs every network on a batch, with its `statistics` in the norm layers, and merges the moments of their
            inputs with the given ones.
        loader, max_batches: As in `recalibrate_norms`.

    Returns:
        Number of samples that the statistics are of.
    """
    with _evaluation_mode(model) as layers, _restored_after_error(statistics) as before, torch.no_grad():
        if not layers:
            return 0
        collector = MomentCollector(layers)
        moments = collector.start(*networks)
        samples = read = 0
        with collector.attached():
            for batch in batches(loader, max_batches, "Norm statistics"):
                moments = run(batch, moments, collector)
                samples, read = samples + batch_size(batch), read + 1
        counts = torch.tensor([samples, read], device=next(iter(statistics.values())).device)
        samples, read = sum_over_processes([counts])[0].tolist()
        if samples == 0:
            raise ValueError(
                "There was no batch to take norm statistics from: the loader is empty, or was used up before."
            )
        moments = collector.merge_processes(moments)
        for path in layers:
            count, mean, variance = collector.statistics(moments, path)
            new = {"running_mean": mean, "running_var": variance, "num_batches_tracked": torch.full_like(count, read)}
            for name, value in new.items():
                name = f"{path}.{name}".lstrip(".")
                if name in statistics:
                    ran = (count > 0).view(count.shape + (1,) * (value.ndim - count.ndim))
                    statistics[name].copy_(torch.where(ran, value, before[name].to(value)))
    return samples


@contextmanager
def _restored_after_error(tensors: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yields copies of tensors, and restores the tensors from them if the block raises."""
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    try:
        yield before
    except BaseException:
        for name, tensor in tensors.items():
            tensor.copy_(before[name])
        raise


def _tracking_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Finds the layers that keep running statistics: torch's norms, and others with their attributes (timm's EvoNorm).

    A frozen batch norm has the same buffers, but no momentum to update them with.
    """
    return {
        path: module
        for path, module in model.named_modules()
        if hasattr(module, "momentum")
        and isinstance(module._buffers.get("running_var"), Tensor)
        and getattr(module, "track_running_stats", True)
    }


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[dict[str, nn.Module]]:
    """Yields the norm layers that training updates, with the model in evaluation mode; restores modes afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.train()
    layers = {
        path: layer
        for path, layer in _tracking_layers(model).items()
        if layer.training and (modes[layer] or not modes[model])
    }
    try:
        with ExitStack() as stack:
            model.eval()
            for layer in layers.values():
                # An instance norm normalizes each sample by its own statistics.
                layer.training = isinstance(layer, nn.modules.instancenorm._InstanceNorm)
            if "torch._dynamo" in sys.modules:  # compiled code would skip the hooks
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            yield layers
    finally:
        model.train(modes[model])  # the method first, because modules may override it
        for module, training in modes.items():
            module.training = training
