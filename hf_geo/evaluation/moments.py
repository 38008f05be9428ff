"""Means and variances of what each norm layer sees, added up over the forward passes of one or several networks."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

# By layer and one of "count", "mean", "variance"; leading axes are several networks'.
Moments = dict[str, Tensor]


class MomentCollector:
    """Adds up moments while a model runs.

    Before a layer runs, the moments of its input are added to those of all earlier inputs, and the sums become its
    running statistics; in evaluation mode it then normalizes by them.

    Args:
        layers: By their names in the model.
    """

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        self.layers = layers
        self._moments: Moments = {}

    def start(self, *networks: int) -> Moments:
        """Moments of nothing yet, for one network or, with leading axes, several."""
        moments = {}
        for path, layer in self.layers.items():
            like = layer.running_var
            dtype = torch.float32 if like.device.type == "mps" else torch.float64  # mps has no float64
            new = partial(torch.zeros, dtype=dtype, device=like.device)
            moments |= {_key(path, "count"): new(networks)}
            moments |= {_key(path, name): new((*networks, *like.shape)) for name in ("mean", "variance")}
        return moments

    def add(self, moments: Moments, run: Callable[[], Any]) -> Moments:
        """Runs a network; returns `moments` with those of this pass added. `moments` stays as it is."""
        self._moments = dict(moments)
        try:
            run()
            return self._moments
        finally:
            self._moments = {}

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Watches the layers' inputs while it is entered."""
        with ExitStack() as stack:
            for path, layer in self.layers.items():
                hook = layer.register_forward_pre_hook(partial(self._before, path), with_kwargs=True)
                stack.callback(hook.remove)
            yield

    def _before(self, path: str, layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        x = next(iter((*args, *kwargs.values()))).detach()
        if x.numel() == 0:
            return
        count, mean, variance = _moments_of(x, layer)
        old = {name: self._moments[_key(path, name)] for name in ("count", "mean", "variance")}
        total = old["count"] + count
        share, delta = count / total, mean - old["mean"]
        # Chan et al. 1983: no difference of large sums.
        new_mean = old["mean"] + share * delta
        new_variance = old["variance"] + share * (variance - old["variance"])
        if _pools(layer):
            new_variance = new_variance + share * (1 - share) * delta.square()
        for name, value in (("count", total), ("mean", new_mean), ("variance", new_variance)):
            self._moments[_key(path, name)] = value
        _write(layer, new_mean, new_variance)

    def reduce(self, moments: Moments) -> Moments:
        """Adds up over processes, each by its numbers of values."""
        if not (dist.is_available() and dist.is_initialized()):
            return moments
        counts = {path: moments[_key(path, "count")].unsqueeze(-1) for path in self.layers}
        means = {path: moments[_key(path, "mean")] for path in self.layers}
        totals = _all_reduce(counts)
        safe = {path: total.clamp_min(1) for path, total in totals.items()}
        mean = _all_reduce({path: counts[path] / safe[path] * means[path] for path in self.layers})
        spread = {}
        for path, layer in self.layers.items():
            spread[path] = moments[_key(path, "variance")]
            if _pools(layer):
                spread[path] = spread[path] + (means[path] - mean[path]).square()
        variance = _all_reduce({path: counts[path] / safe[path] * spread[path] for path in self.layers})
        reduced = {_key(path, "count"): total.squeeze(-1) for path, total in totals.items()}
        reduced |= {_key(path, "mean"): value for path, value in mean.items()}
        return reduced | {_key(path, "variance"): value for path, value in variance.items()}

    def statistics(self, moments: Moments, path: str) -> tuple[Tensor, Tensor, Tensor]:
        """A layer's number of values, their mean and, as torch has it in running statistics, unbiased variance.

        Raises:
            ValueError: It has seen a single value.
        """
        count, mean, variance = (moments[_key(path, name)] for name in ("count", "mean", "variance"))
        if _pools(self.layers[path]):
            if (count == 1).any():
                raise ValueError(
                    f"The norm layer {path!r} saw a single value a channel, which has no variance: take norm statistics "
                    "from two or more samples."
                )
            variance = variance * (count / (count - 1)).unsqueeze(-1)
        return count, mean, variance


def _key(path: str, name: str) -> str:
    return f"{path}.{name}".lstrip(".")


def _pools(layer: nn.Module) -> bool:
    """Whether the values of all samples are one population; an instance norm averages over samples instead."""
    return not isinstance(layer, _InstanceNorm)


def _moments_of(x: Tensor, layer: nn.Module) -> tuple[int, Tensor, Tensor]:
    """Number of values a channel (of samples for an instance norm), mean and variance of an input."""
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    if _pools(layer):
        axes = [axis for axis in range(x.ndim) if axis != 1]
        variance, mean = torch.var_mean(x, axes, correction=0)
        return x.numel() // x.shape[1], mean, variance
    if x.ndim == layer._get_no_batch_dim():
        x = x.unsqueeze(0)
    variance, mean = torch.var_mean(x.flatten(2), -1)
    return len(x), mean.mean(0), variance.mean(0)


def _write(layer: nn.Module, mean: Tensor, variance: Tensor) -> None:
    for name, value in (("running_mean", mean), ("running_var", variance)):
        if getattr(layer, name, None) is not None:
            getattr(layer, name).copy_(value)


def _all_reduce(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sums over processes, in one message."""
    message = torch.cat([tensor.flatten() for tensor in tensors.values()])
    dist.all_reduce(message)
    parts = message.split([tensor.numel() for tensor in tensors.values()])
    return {name: part.view_as(tensor) for (name, tensor), part in zip(tensors.items(), parts, strict=True)}
