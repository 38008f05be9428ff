"""Means and variances of the inputs of norm layers, accumulated over forward passes of one or several networks."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from .distributed import sum_over_processes

# "count", "mean" and "variance" of each layer's input, under "LAYER.count" and so on; leading axes index networks.
Moments = dict[str, Tensor]


class MomentCollector:
    """Accumulates moments while a model runs.

    Before a layer runs, the moments of its input are merged with those of all earlier inputs, and the result becomes its
    running statistics, by which it normalizes in evaluation mode.

    Args:
        layers: Norm layers by their names in the model.
    """

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        self.layers = layers
        self._moments: Moments = {}

    def start(self, *networks: int) -> Moments:
        """Moments of no values yet, of one network or, with leading axes, of several."""
        moments = {}
        for path, layer in self.layers.items():
            like = layer.running_var
            dtype = torch.float32 if like.device.type == "mps" else torch.float64  # mps has no float64
            zeros = partial(torch.zeros, dtype=dtype, device=like.device)
            shape = (*networks, *like.shape)
            moments |= _named(path, zeros(networks), zeros(shape), zeros(shape))
        return moments

    def add(self, moments: Moments, run: Callable[[], Any]) -> Moments:
        """Runs a network, and returns `moments` merged with those of this pass; `moments` itself stays unchanged."""
        self._moments = dict(moments)
        try:
            run()
            return self._moments
        finally:
            self._moments = {}

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Observes the inputs of the layers within the block."""
        with ExitStack() as stack:
            for path, layer in self.layers.items():
                hook = layer.register_forward_pre_hook(partial(self._merge_input, path), with_kwargs=True)
                stack.callback(hook.remove)
            yield

    def _merge_input(self, path: str, layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        x = next(iter((*args, *kwargs.values()))).detach()
        if x.numel() == 0:
            return
        count, mean, variance = _moments_of(x, layer)
        old_count, old_mean, old_variance = _get(self._moments, path)
        # Chan et al. 1983, which takes no difference of large sums.
        total = old_count + count
        share, delta = count / total, mean - old_mean
        new_mean = old_mean + share * delta
        new_variance = old_variance + share * (variance - old_variance)
        if _pools_samples(layer):
            new_variance = new_variance + share * (1 - share) * delta.square()
        self._moments |= _named(path, total, new_mean, new_variance)
        for name, value in (("running_mean", new_mean), ("running_var", new_variance)):
            if getattr(layer, name, None) is not None:
                getattr(layer, name).copy_(value)

    def merge_processes(self, moments: Moments) -> Moments:
        """Merges the moments of all processes, each weighted by its number of values."""
        counts, means, variances = zip(*(_get(moments, path) for path in self.layers), strict=True)
        totals = sum_over_processes(counts)
        weights = [(count / total.clamp_min(1)).unsqueeze(-1) for count, total in zip(counts, totals, strict=True)]
        merged_means = sum_over_processes([w * mean for w, mean in zip(weights, means, strict=True)])
        spreads = []
        rows = zip(self.layers.values(), weights, means, merged_means, variances, strict=True)
        for layer, weight, mean, merged_mean, variance in rows:
            between = (mean - merged_mean).square() if _pools_samples(layer) else 0
            spreads.append(weight * (variance + between))
        merged: Moments = {}
        for path, *values in zip(self.layers, totals, merged_means, sum_over_processes(spreads), strict=True):
            merged |= _named(path, *values)
        return merged

    def statistics(self, moments: Moments, path: str) -> tuple[Tensor, Tensor, Tensor]:
        """A layer's number of values, their mean, and their variance, unbiased as torch's running statistics are.

        Raises:
            ValueError: The layer has seen a single value.
        """
        count, mean, variance = _get(moments, path)
        if _pools_samples(self.layers[path]):
            if (count == 1).any():
                raise ValueError(
                    f"The norm layer {path!r} saw a single value a channel, which has no variance: take norm statistics "
                    "from two or more samples."
                )
            variance = variance * (count / (count - 1)).unsqueeze(-1)
        return count, mean, variance


def _named(path: str, count: Tensor, mean: Tensor, variance: Tensor) -> Moments:
    return {f"{path}.count": count, f"{path}.mean": mean, f"{path}.variance": variance}


def _get(moments: Moments, path: str) -> tuple[Tensor, Tensor, Tensor]:
    return moments[f"{path}.count"], moments[f"{path}.mean"], moments[f"{path}.variance"]


def _pools_samples(layer: nn.Module) -> bool:
    """Whether the values of all samples are one population; an instance norm averages over samples instead."""
    return not isinstance(layer, _InstanceNorm)


def _moments_of(x: Tensor, layer: nn.Module) -> tuple[int, Tensor, Tensor]:
    """Number of values a channel (of samples for an instance norm), mean and variance of an input."""
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    if _pools_samples(layer):
        axes = [axis for axis in range(x.ndim) if axis != 1]
        variance, mean = torch.var_mean(x, axes, correction=0)
        return x.numel() // x.shape[1], mean, variance
    if x.ndim == layer._get_no_batch_dim():
        x = x.unsqueeze(0)
    variance, mean = torch.var_mean(x.flatten(2), -1)
    return len(x), mean.mean(0), variance.mean(0)
