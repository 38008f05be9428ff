"""Sharded parameters (DTensor, as FSDP2 makes them): the local shard, norms over all shards, state sharded alike."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate


def local(tensor: Tensor) -> Tensor:
    """This process's shard of `tensor`, in the same memory; an ordinary tensor is returned as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def local_grad(param: Tensor) -> Tensor:
    """The gradient of `local(param)`."""
    grad = param.grad
    if isinstance(param, DTensor) and grad.placements != param.placements:
        grad = grad.redistribute(param.device_mesh, param.placements)
    return local(grad)


def split_over(param: Tensor, axes: Iterable[int] | None = None) -> tuple[Any, ...]:
    """The process groups over which `param` is sharded along one of `axes` (None: along any)."""
    if not isinstance(param, DTensor):
        return ()
    mesh, axes = param.device_mesh, range(param.ndim) if axes is None else axes
    return tuple(
        mesh.get_group(i) for i, placed in enumerate(param.placements) if placed.is_shard() and placed.dim in axes
    )


def wide_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype of the arithmetic and state of `tensor`: float64 for float64, float32 for all else."""
    return torch.float64 if tensor.dtype is torch.float64 else torch.float32


def norms(params: Sequence[Tensor], tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of each of `tensors`, which are the local shards of tensors sharded like `params`.

    Returns:
        Shape (number of tensors,), float32 or wider.
    """
    # Row by row first: more exact than one long float32 sum, and every thread has work.
    rows = [
        torch.linalg.vector_norm(t, dim=tuple(range(1, t.ndim)), dtype=wide_dtype(t))
        if t.ndim > 1
        else t.to(wide_dtype(t))
        for t in tensors
    ]
    device = tensors[0].device
    values = torch.stack([norm.to(device) for norm in torch._foreach_norm(rows)])
    shared = defaultdict(list)
    for i, p in enumerate(params):
        for group in split_over(p):
            shared[group].append(i)
    if not shared:
        return values
    values = values.square()
    for group, index in shared.items():
        part = values[index]
        dist.all_reduce(part, group=group)
        values[index] = part
    return values.sqrt()


def zeros_like(param: Tensor, summed: Sequence[int] = ()) -> Tensor:
    """Zeros shaped and sharded like `param`, but with one element along the axes `summed`."""
    dtype = wide_dtype(param)
    if not summed:
        return torch.zeros_like(param, dtype=dtype)
    here = local(param)
    zeros = torch.zeros([1 if i in summed else n for i, n in enumerate(here.shape)], dtype=dtype, device=here.device)
    if not isinstance(param, DTensor):
        return zeros
    whole = torch.empty([1 if i in summed else n for i, n in enumerate(param.shape)], device="meta")
    placements = [Replicate() if p.is_shard() and p.dim in summed else p for p in param.placements]
    return DTensor.from_local(
        zeros, param.device_mesh, placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )
