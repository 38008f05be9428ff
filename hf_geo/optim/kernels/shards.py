"""Sharded parameters (DTensor, as FSDP2 and tensor parallelism make them): local shards, norms, state sharded alike."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard

# FSDP2 places an axis that tensor parallelism has cut before as a `_StridedShard`: no subclass of `Shard`, and its
# `is_shard()` is False (torch 2.11 to 2.14).
CUTS = (Shard, _StridedShard)


def local(tensor: Tensor) -> Tensor:
    """This process's shard of `tensor`, in the same memory; an ordinary tensor is returned as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def is_moved(param: Tensor) -> bool:
    """Whether the gradient of `param` is placed in another way than itself."""
    return isinstance(param, DTensor) and param.grad.placements != param.placements


def local_grad(param: Tensor) -> Tensor:
    """The gradient of `local(param)`."""
    grad = param.grad
    return local(grad.redistribute(param.device_mesh, param.placements) if is_moved(param) else grad)


def check_placements(param: Tensor) -> None:
    """Raises `RuntimeError` unless the norm of all of `param` can be computed from its local shards."""
    for placed in param.placements if isinstance(param, DTensor) else ():
        if not isinstance(placed, (*CUTS, Replicate)):
            raise RuntimeError(
                f"A parameter of shape {tuple(param.shape)} has the placement {placed!r}, but norms can be computed with the "
                "placements Shard and Replicate alone: redistribute the parameter before the first step."
            )


def split_over(param: Tensor, axes: Iterable[int] | None = None) -> tuple[Any, ...]:
    """The process groups, of two or more, over which `param` is sharded along one of `axes` (None: along any)."""
    if not isinstance(param, DTensor):
        return ()
    check_placements(param)
    mesh, axes = param.device_mesh, range(param.ndim) if axes is None else axes
    return tuple(
        mesh.get_group(i)
        for i, placed in enumerate(param.placements)
        if isinstance(placed, CUTS) and placed.dim in axes and mesh.size(i) > 1
    )


def wide_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype of the arithmetic and state of `tensor`: float64 for float64, float32 for all else."""
    return torch.float64 if tensor.dtype is torch.float64 else torch.float32


def norms(params: Sequence[Tensor], tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of each of `tensors`, which are the local shards of tensors sharded like `params`.

    Returns:
        Shape (number of tensors,), float32 or wider.
    """
    dtypes, device = {wide_dtype(t) for t in tensors}, tensors[0].device
    if device.type == "cpu" or len(dtypes) > 1:
        # Row by row first: more exact than one long float32 sum, and every thread has work.
        tensors = [
            torch.linalg.vector_norm(t, dim=tuple(range(1, t.ndim)), dtype=wide_dtype(t))
            if t.ndim > 1
            else t.to(wide_dtype(t))
            for t in tensors
        ]
    found = torch._foreach_norm(tensors, 2, dtypes.pop() if len(dtypes) == 1 else None)
    values = torch.stack([norm.to(device) for norm in found])
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
    placements = [Replicate() if isinstance(p, CUTS) and p.dim in summed else p for p in param.placements]
    return DTensor.from_local(
        zeros, param.device_mesh, placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )
