"""Row algebra of the sphere methods: a weight as independent groups ("rows"), their dots and norms, on shards too."""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from ._base import GeometricOptimizer, check_flag
from ._shards import split_over

# Keeps what is divided by the cube of a norm finite where a row is zero.
SMALLEST_NORM = 1e-12


class Rows(NamedTuple):
    """How a tensor falls into rows.

    Attributes:
        axis: The first axis that numbers rows, along which blocks may be cut; None where that is impossible.
        dims: The axes that run along a row.
        size: Elements of a row.
        groups: The process groups over which a row is spread.
    """

    axis: int | None
    dims: tuple[int, ...]
    size: int
    groups: tuple[Any, ...] = ()

    @classmethod
    def of(cls, param: Tensor, channel_dims: Sequence[int] | None) -> "Rows | None":
        """The rows of `param` that `channel_dims` index; None when there are none, or of one element each."""
        if channel_dims is None:
            return None
        kept = [axis % param.ndim for axis in channel_dims]
        dims = tuple(axis for axis in range(param.ndim) if axis not in kept)
        size = prod([param.shape[axis] for axis in dims])
        if size == 1:
            return None
        groups = split_over(param, dims)
        # All processes have to make the same sums, so where rows are spread there is one block.
        return cls(None if groups or not kept else min(kept), dims, size, groups)

    def norm(self, a: Tensor) -> Tensor:
        """Norm of every row, with `dims` kept as axes of one element."""
        if self.groups or _by_inductor(a):
            return self.dot(a, a).sqrt_()
        return torch.linalg.vector_norm(a, dim=self.dims, keepdim=True)

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """Inner product of every row of `a` with that of `b`, shaped as `norm`."""
        products = a * b
        if _by_inductor(a) and not self.groups:
            # Its loops over rows fail beside updates in place (pytorch issue 196570); a product with ones has its own loop.
            ones = torch.ones([a.shape[axis] for axis in self.dims], dtype=a.dtype)
            sums = torch.tensordot(products, ones, dims=(self.dims, tuple(range(ones.ndim))))
            return sums.view([1 if axis in self.dims else n for axis, n in enumerate(a.shape)])
        partial = products.sum(self.dims, keepdim=True)
        for group in self.groups:
            dist.all_reduce(partial, group=group)
        return partial

    def project(self, a: Tensor, x: Tensor, norm: Tensor, scale: Tensor | None = None) -> Tensor:
        """`scale` times the part of `a` that is tangent to the spheres through the rows of `x`, whose norms are `norm`."""
        leading = self.dims == tuple(range(1, x.ndim)) and x.is_contiguous() and a.is_contiguous()
        if leading and x.numel() and not self.groups and x.is_cpu and not torch.compiler.is_compiling():
            # The backward pass of weight normalization is this projection, in one pass over the memory.
            gain = norm if scale is None else norm * scale
            return torch.ops.aten._weight_norm_interface_backward(a, x, gain, norm, 0)[0]
        tangent = torch.addcmul(a, x, self.dot(a, x) / (norm * norm), value=-1)
        return tangent if scale is None else tangent.mul_(scale)


def _by_inductor(a: Tensor) -> bool:
    return torch.compiler.is_compiling() and a.is_cpu


class SphericalOptimizer(GeometricOptimizer):
    """Base of the methods that treat groups of weights, told apart by `channel_dims`, as points on spheres."""

    def _completed(self, group: dict[str, Any]) -> dict[str, Any]:
        # A group's own channel_dims outdo a channel_wise=True given for all groups.
        return {"channel_wise": False, **group} if "channel_dims" in group else group

    def _check_group(self, group: dict[str, Any]) -> None:
        check_flag(group, "channel_wise")
        dims = group["channel_dims"]
        if dims is not None:
            if isinstance(dims, str) or not isinstance(dims, Sequence):
                raise TypeError(f"channel_dims has to be a list of axes or None, not {dims!r}.")
            if not all(isinstance(axis, int) and not isinstance(axis, bool) for axis in dims):
                raise TypeError(f"channel_dims has to hold integers, but it is {dims!r}.")
            if group["channel_wise"] and tuple(dims) != (0,):
                raise ValueError(
                    f"channel_wise=True means channel_dims=[0], but channel_dims is {dims!r}: give one of them."
                )
            group["channel_dims"] = tuple(dims)
        for p in group["params"]:
            self._check_axes(tuple(p.shape), self._channel_dims(group) or ())

    @staticmethod
    def _check_axes(shape: tuple[int, ...], dims: tuple[int, ...]) -> None:
        for axis in dims:
            if not -len(shape) <= axis < len(shape):
                raise ValueError(
                    f"channel_dims={list(dims)} names axis {axis}, which a parameter of shape {shape} does not have: "
                    "put that parameter into another group."
                )
        if len({axis % len(shape) for axis in dims}) < len(dims):
            raise ValueError(f"channel_dims={list(dims)} names an axis of a parameter of shape {shape} twice.")

    @staticmethod
    def _channel_dims(group: dict[str, Any]) -> tuple[int, ...] | None:
        return (0,) if group["channel_wise"] else group["channel_dims"]

    def _divided(self, group: dict[str, Any], params: list[Tensor]) -> tuple[list[Tensor], list[tuple[Tensor, Rows]]]:
        """Parameters that take the plain step, and those that have rows, with them."""
        dims = self._channel_dims(group)
        rows = [Rows.of(p, dims) for p in params]
        plain = [p for p, r in zip(params, rows, strict=True) if r is None]
        return plain, [(p, r) for p, r in zip(params, rows, strict=True) if r is not None]
