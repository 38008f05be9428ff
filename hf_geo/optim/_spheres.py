"""Row algebra of the sphere methods: a weight as independent rows, their dots and norms, on shards too."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard

from ._base import like_locally, local, wide_dtype

# Elements of a block: with two threads, a block of the weight, its gradient, momentum and a
# temporary stay in the second-level caches, so the many small operations on it cost one pass of memory.
BLOCK = 1 << 17


def check_channel_dims(channel_dims: Any, param: Tensor) -> None:
    """Raises unless `channel_dims` names distinct axes of `param`."""
    if isinstance(channel_dims, str) or not isinstance(channel_dims, list | tuple):
        raise TypeError(f"channel_dims has to be a list of axes or None, not {channel_dims!r}.")
    shape = tuple(param.shape)
    for axis in channel_dims:
        if isinstance(axis, bool) or not isinstance(axis, int):
            raise TypeError(f"channel_dims has to hold integers, not {axis!r}.")
        if not -len(shape) <= axis < len(shape):
            raise ValueError(f"channel_dims names axis {axis}, which a parameter of shape {shape} does not have.")
    if len({axis % len(shape) for axis in channel_dims}) < len(channel_dims):
        raise ValueError(f"channel_dims names an axis twice: {list(channel_dims)} of a parameter of shape {shape}.")


@dataclass(frozen=True)
class Rows:
    """How a tensor splits into rows: `axis` numbers them (None: not to be split), `dims` run along a row.

    `size` is the number of elements of a row; `groups` are the process groups a row is spread over.
    """

    axis: int | None
    dims: tuple[int, ...]
    size: int
    groups: tuple[Any, ...] = ()

    @classmethod
    def of(cls, param: Tensor, channel_dims: tuple[int, ...] | list[int] | None) -> "Rows | None":
        """The rows of `param` that the axes `channel_dims` index; None when they are of one element or not wanted."""
        if channel_dims is None:
            return None
        kept = sorted(axis % param.ndim for axis in channel_dims)
        dims = tuple(axis for axis in range(param.ndim) if axis not in kept)
        size = prod(param.shape[axis] for axis in dims)
        if size <= 1:
            return None
        groups = ()
        if isinstance(param, DTensor):
            mesh = param.device_mesh
            groups = tuple(
                mesh.get_group(i) for i, placed in enumerate(param.placements) if placed.is_shard() and placed.dim in dims
            )
        return cls(kept[0] if kept else None, dims, size, groups)

    def sq_norm(self, a: Tensor) -> Tensor:
        """Squared norm of every row."""
        return self._whole(torch.linalg.vector_norm(a, dim=self.dims, keepdim=True).square_())

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """Inner product of every row of `a` with that of `b`."""
        return self._whole((a * b).sum(self.dims, keepdim=True))

    def _whole(self, partial: Tensor) -> Tensor:
        for group in self.groups:
            dist.all_reduce(partial, group=group)
        return partial

    def zeros(self, param: Tensor) -> Tensor:
        """State of one number a row, sharded as the rows of `param` are."""
        shape = [1 if axis in self.dims else n for axis, n in enumerate(param.shape)]
        here = local(param)
        here_shape = [1 if axis in self.dims else n for axis, n in enumerate(here.shape)]
        value = torch.zeros(here_shape, dtype=wide_dtype(param), device=here.device)
        placements = [
            Replicate() if isinstance(p, Shard) and p.dim in self.dims else p for p in getattr(param, "placements", ())
        ]
        return like_locally(param, value, shape, placements)


def update_rows(update: Callable[..., None], rows: Rows, param: Tensor, grad: Tensor, *state: Tensor) -> None:
    """Calls `update(rows, x, g, *state)` on blocks of rows, all of it in place; `x` and `g` are float32 or wider."""
    count = max(1, BLOCK // rows.size)
    whole = rows.axis is None or rows.groups or param.device.type != "cpu" or param.numel() <= 2 * BLOCK
    starts = (0,) if whole else range(0, param.shape[rows.axis], count)
    for start in starts:
        x, g, *block = (
            (param, grad, *state)
            if whole
            else (t.narrow(rows.axis, start, min(count, param.shape[rows.axis] - start)) for t in (param, grad, *state))
        )
        wide = x.to(wide_dtype(x))
        update(rows, wide, g.to(wide.dtype), *block)
        if wide is not x:
            x.copy_(wide)
