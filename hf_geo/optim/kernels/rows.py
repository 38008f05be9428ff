"""A weight as independent groups ("rows"): their dot products, norms and tangent parts, also on shards."""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from .shards import split_over

# A lower bound of norms in denominators, whose cube float32 still holds.
SMALLEST_NORM = 1e-12


class Rows(NamedTuple):
    """The division of a tensor into rows.

    Attributes:
        axis: The first axis that numbers rows, along which blocks may be cut; None if they may not.
        dims: The axes that run along a row.
        size: Number of elements of a row.
        groups: The process groups over which a row is sharded.
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
        # All processes have to make the same all-reduces, so sharded rows are not cut into blocks.
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
            # Sums over rows beside in-place updates fail to compile (torch 2.14, pytorch issue 196570); a matrix product works.
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
