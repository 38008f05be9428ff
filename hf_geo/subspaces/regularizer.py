"""The squared cosine between two control points, which keeps them apart."""

import math
import sys
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def squared_cosine(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Squared cosine of two points, each a list of tensors taken as one long vector; 0 if one of them is zero or empty.

    Of sharded points (DTensors) every process gets the value of the whole. Half precision is summed in float32; a complex
    number counts as the pair of its parts.

    Args:
        first: Tensors of one point.
        second: Tensors of the other, of the same shapes.

    Returns:
        A tensor of shape ().
    """
    dot, norm_first, norm_second = _products(first, second).unbind()
    floor = torch.finfo(dot.dtype).tiny
    return dot.square() / (norm_first * norm_second).clamp_min(floor)


@torch.no_grad()
def compare_points(points: Sequence[Sequence[Tensor]]) -> dict[str, float]:
    """Cosine and L2 distance of every two points: "cosine/0-1", "distance/0-1" and so on, read from the device at once.

    Args:
        points: Each a list of tensors taken as one long vector, as for `squared_cosine`.
    """
    pairs = list(combinations(range(len(points)), 2))
    found = [torch.stack([*_products(a, b).unbind(), _squared_distance(a, b)]) for a, b in combinations(points, 2)]
    values = {}
    for (i, j), (dot, first, second, distance) in zip(pairs, torch.stack(found).tolist(), strict=True):
        cosine = dot / max(math.sqrt(first * second), sys.float_info.min)
        values[f"cosine/{i}-{j}"] = max(min(cosine, 1.0), -1.0)
        values[f"distance/{i}-{j}"] = math.sqrt(distance)
    return values


def _squared_distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """|a - b|^2, shape (), from the differences: for close points <a, a> + <b, b> - 2 <a, b> is rounding alone."""
    sums = [(_wide(a) - _wide(b)).square().sum() for a, b in zip(first, second, strict=True)]
    sharded = [s for s in sums if hasattr(s, "full_tensor")]
    parts = [s for s in sums if not hasattr(s, "full_tensor")] + ([sum(sharded).full_tensor()] if sharded else [])
    return torch.stack([part.to(parts[0].device) for part in parts]).sum()


def _products(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """<a, b>, <a, a> and <b, b> in a tensor of shape (3,)."""
    parts = [part for part in (_plain_products(first, second), _sharded_products(first, second)) if part is not None]
    return torch.stack(parts).sum(0) if parts else torch.zeros(3)


def _plain_products(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor | None:
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if not hasattr(a, "full_tensor")]
    if not pairs:
        return None
    return _Products.apply(len(pairs), *(a for a, _ in pairs), *(b for _, b in pairs))


def _sharded_products(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor | None:
    pairs = [(_wide(a), _wide(b)) for a, b in zip(first, second, strict=True) if hasattr(a, "full_tensor")]
    if not pairs:
        return None
    # Sums of the shards stay partial until full_tensor(), so three numbers are all-reduced and no weight is gathered.
    sums = [sum(p[i].mul(p[j]).sum() for p in pairs) for i, j in ((0, 1), (0, 0), (1, 1))]
    return torch.stack([s.full_tensor() for s in sums])


def _wide(tensor: Tensor) -> Tensor:
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


class _Products(torch.autograd.Function):
    """<a, b>, <a, a> and <b, b> over lists of tensors.

    Written out because autograd would keep a product the size of the network for each of them: here no temporary is
    larger than the gradient it becomes.
    """

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> Tensor:
        ctx.count = count
        ctx.save_for_backward(*tensors)
        first, second = tensors[:count], tensors[count:]
        return torch.stack([_dot(first, second), _dot(first, first), _dot(second, second)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        dot, norm_first, norm_second = grad.unbind()
        first, second = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        needed = ctx.needs_input_grad[1:]
        grads = [
            *_linear(dot, second, 2 * norm_first, first, needed[: ctx.count]),
            *_linear(dot, first, 2 * norm_second, second, needed[ctx.count :]),
        ]
        return None, *grads


def _dot(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    dots = [torch.dot(_wide(a).flatten(), _wide(b).flatten()) for a, b in zip(first, second, strict=True)]
    return torch.stack([d.to(dots[0].device) for d in dots]).sum()


def _linear(
    alpha: Tensor, a: Sequence[Tensor], beta: Tensor, b: Sequence[Tensor], needed: Sequence[bool]
) -> list[Tensor | None]:
    """alpha * a + beta * b for each pair of tensors, None for those that need no gradient."""
    return [
        (x * alpha.to(x.device)).addcmul_(y, beta.to(y.device)) if need else None
        for x, y, need in zip(a, b, needed, strict=True)
    ]
