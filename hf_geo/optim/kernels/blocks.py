"""Tensors cut into blocks, or put together in batches, that stay in a CPU's cache from one operation to the next."""

from collections.abc import Iterator

import torch
from torch import Tensor

from .shards import wide_dtype

# Number of elements that are updated together: few enough to stay in the cache from one operation to the next and to
# keep temporaries small, and enough for many small tensors to share a call.
BLOCK = 1 << 20


def batches(params: list[Tensor]) -> Iterator[list[Tensor]]:
    """Cuts a list into batches of one device and dtype, in the same way on all processes."""
    batch: list[Tensor] = []
    size = 0
    for p in params:
        if batch and (size + p.numel() > BLOCK or p.device != batch[0].device or p.dtype != batch[0].dtype):
            yield batch
            batch, size = [], 0
        batch.append(p)
        size += p.numel()
    if batch:
        yield batch


def blocks(axis: int | None, x: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cuts a parameter, its gradient and state alike along `axis` (None: not at all) into blocks to be updated in place.

    On a GPU, or under `torch.compile`, there is one block. Blocks are float32 or wider; those of a half-precision
    parameter are rounded back after their update.
    """
    tensors = (x, *others)
    pieces = iter((tensors,))
    if axis is not None and x.numel() > BLOCK and x.is_cpu and not torch.compiler.is_compiling():
        count = max(1, BLOCK * x.shape[axis] // x.numel())
        pieces = zip(*(t.split(count, axis) for t in tensors), strict=True)
    dtype = wide_dtype(x)
    if all(t.dtype is dtype for t in tensors):
        yield from pieces
        return
    for piece in pieces:
        wide = tuple(t.to(dtype) for t in piece)
        yield wide
        if wide[0] is not piece[0]:
            piece[0].copy_(wide[0])


def cut_large(*lists: list[Tensor]) -> Iterator[list[list[Tensor]]]:
    """The lists as they are, or the blocks of the tensors in lists of one, so that products of them stay small."""
    if len(lists[0]) > 1:
        yield list(lists)
        return
    (tensors,) = zip(*lists, strict=True)
    for block in blocks(0 if tensors[0].ndim else None, *tensors):
        yield [[tensor] for tensor in block]
