"""Running statistics of norm layers, taken anew for the weights a network has now."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn

from .batches import batch_size, batches, inputs_of
from .moments import MomentCollector, Moments

Statistics = dict[str, Tensor]
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def recalibrate_norms(model: nn.Module, loader: Iterable, max_batches: int | None = None) -> int:
    """Replaces the running statistics of norm layers by those of data.

    For weights that are no end of a training run: a point of a subspace, an average of weights (SWA, EMA, a soup).

    A batch norm gets the mean and the unbiased variance of all values that it sees, of all uses in a forward pass, all
    batches and, in a distributed run, all processes. An instance norm gets the average over samples of each one's own.

    What a layer sees depends on how the norms before it normalize. In evaluation that is by the statistics of the data,
    so here each batch is normalized by the statistics of all that the layer has seen so far, this batch included,
    rather than by the batch's own. So one pass is enough. A network's first norms get exactly the data's statistics,
    whatever the order and size of batches, single samples included. Later norms get nearly those that they see in
    evaluation (exactly for a single batch) if samples come in random order, again from batches of any size; where
    classes come one after another they may be off by some tens of per cent.

    No gradients; dropout is off. Layers that training leaves alone stay as they are: those that keep evaluation mode
    when the model is set to training mode, or are in it while the model is not, those that do not track statistics, and
    those that do not run. Modes are as before afterwards, and after an error the statistics too. A model without such
    layers is left alone and no batch is read.

    Args:
        model: Any module, also wrapped (DDP, `AveragedModel`) or compiled; changed in place.
        loader: Batches, see `hf_geo.evaluation.batches`. In a distributed run each process has batches of its own, in
            any number.
        max_batches: Batches to read; all when None.

    Returns:
        Number of samples the statistics are of.

    Raises:
        ValueError: The loader is empty, `max_batches` is below one, or a norm saw a single value a channel in all.
    """
    # DistributedDataParallel would exchange buffers in each pass, and wait for ever for a process with fewer batches.
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
    """Takes the statistics of one or several networks in one pass over a loader; see `recalibrate_norms`.

    Args:
        model: The module whose norm layers take them.
        statistics: Overwritten; leading axes are several networks'.
        networks: Those axes.
        run: Runs every network on a batch, with its part of `statistics` in the norm layers; from the moments so far to
            those with the batch's.
        loader, max_batches: As in `recalibrate_norms`.
    """
    with _evaluating(model) as layers, _put_back_after_an_error(statistics) as before, torch.no_grad():
        if not layers:
            return 0
        collector = MomentCollector(layers)
        moments = collector.start(*networks)
        samples = read = 0
        with collector.attached():
            for batch in batches(loader, max_batches, "Norm statistics"):
                moments = run(batch, moments, collector)
                samples, read = samples + batch_size(batch), read + 1
        samples, read = _total(samples, read, device=next(iter(statistics.values())).device)
        if samples == 0:
            raise ValueError(
                "There was no batch to take norm statistics from: the loader is empty, or was used up before."
            )
        moments = collector.reduce(moments)
        for path in layers:
            count, mean, variance = collector.statistics(moments, path)
            new = {"running_mean": mean, "running_var": variance, "num_batches_tracked": torch.full_like(count, read)}
            for name, value in new.items():
                name = f"{path}.{name}".lstrip(".")
                if name in statistics:
                    ran = (count > 0).view(count.shape + (1,) * (value.ndim - count.ndim))
                    statistics[name].copy_(torch.where(ran, value, before[name].to(value)))
    return samples


def _total(*numbers: int, device: torch.device) -> list[int]:
    """Each number's sum over processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return list(numbers)
    message = torch.tensor(numbers, device=device)
    dist.all_reduce(message)
    return message.tolist()


@contextmanager
def _put_back_after_an_error(tensors: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Gives copies of tensors, from which they are restored if the block raises."""
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    try:
        yield before
    except BaseException:
        for name, tensor in tensors.items():
            tensor.copy_(before[name])
        raise


def _tracking_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Layers that keep running statistics: torch's norms, and those of others (timm's EvoNorm) with the same attributes.

    A frozen batch norm has buffers of the same names, but no momentum to update them with.
    """
    return {
        path: module
        for path, module in model.named_modules()
        if hasattr(module, "momentum")
        and isinstance(module._buffers.get("running_var"), Tensor)
        and getattr(module, "track_running_stats", True)
    }


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[dict[str, nn.Module]]:
    """Gives the norm layers that training updates, in a model in evaluation mode; modes are as before afterwards."""
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
                layer.training = isinstance(layer, nn.modules.instancenorm._InstanceNorm)  # normalizes by each sample
            if "torch._dynamo" in sys.modules:  # compiled code would not notice that the layers are watched
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            yield layers
    finally:
        model.train(modes[model])  # by the method, as modules may do more in it than set the mode
        for module, training in modes.items():
            module.training = training
