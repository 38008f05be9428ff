"""Sums over the processes of a distributed run."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def sum_over_processes(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Sums each tensor over all processes, in one message; in a single process they stay as they are.

    Args:
        tensors: Of one dtype and device, with the same shapes in all processes.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return list(tensors)
    message = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(message)
    parts = message.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for tensor, part in zip(tensors, parts, strict=True)]


def gather_from_processes(tensor: Tensor) -> Tensor:
    """Concatenates the tensors of all processes, on the CPU; they may differ in the length of their first axis."""
    tensor = tensor.cpu()
    if not (dist.is_available() and dist.is_initialized()):
        return tensor
    parts: list[Tensor] = [tensor] * dist.get_world_size()
    dist.all_gather_object(parts, tensor)
    return torch.cat(parts)
