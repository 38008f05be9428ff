"""The plain steps of SGD and Adam, by torch's fused kernels: one pass over the memory."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .shards import wide_dtype


def kernel_ready(weights: list[Tensor], grads: list[Tensor], *states: list[Tensor]) -> Iterator[list[list[Tensor]]]:
    """Yields, once, the same lists in a form that torch's fused kernels accept, to be updated in place.

    The kernels need one dtype and the same dense memory layout for a weight, its gradient and its state, and do not check
    the latter. Tensors that are neither contiguous nor all channels-last, or of half precision, are replaced by copies;
    the copies of weights and states are copied back.
    """
    lists = [weights, grads, *states]
    dtype = wide_dtype(weights[0])
    if all(t.dtype is dtype and t.is_contiguous() for tensors in lists for t in tensors):
        yield lists
        return
    unready = [i for i, row in enumerate(zip(*lists, strict=True)) if not _is_kernel_ready(row, dtype)]
    converted = [list(tensors) for tensors in lists]
    for tensors in converted:
        for i in unready:
            tensors[i] = tensors[i].to(dtype, memory_format=torch.contiguous_format, copy=True)
    yield converted
    for i in unready:
        for original, copy in zip([weights, *states], [converted[0], *converted[2:]], strict=True):
            original[i].copy_(copy[i])


def _is_kernel_ready(row: tuple[Tensor, ...], dtype: torch.dtype) -> bool:
    if any(t.dtype is not dtype for t in row):
        return False
    return all(t.is_contiguous() for t in row) or all(t.is_contiguous(memory_format=torch.channels_last) for t in row)


def sgd_step(
    weights: list[Tensor],
    grads: list[Tensor],
    buffers: list[Tensor],
    *,
    lr: float | Tensor,
    momentum: float,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    skip: Tensor | None = None,
) -> None:
    """Takes a step of `torch.optim.SGD` in place; buffers, if there is momentum, begin as zeros.

    Nothing changes if `skip`, a float32 tensor of one element, is 1.
    """
    if torch.compiler.is_compiling():
        return _sgd_by_hand(weights, grads, buffers, lr, momentum, dampening, weight_decay, nesterov, skip)
    torch._fused_sgd_(
        weights,
        grads,
        buffers,
        lr=_kernel_rate(lr, weights[0]),
        momentum=momentum,
        dampening=dampening,
        weight_decay=weight_decay,
        nesterov=nesterov,
        maximize=False,
        is_first_step=False,
        found_inf=None if skip is None else skip.to(weights[0].device),
    )


def adam_step(
    weights: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    steps: list[Tensor],
    *,
    lr: float | Tensor,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """Takes a step of `torch.optim.Adam` in place, and counts it in `steps`."""
    if torch.compiler.is_compiling():
        return _adam_by_hand(weights, grads, exp_avgs, exp_avg_sqs, steps, lr, *betas, eps, weight_decay)
    torch._foreach_add_(steps, 1)
    torch._fused_adam_(
        weights,
        grads,
        exp_avgs,
        exp_avg_sqs,
        [],
        steps,
        lr=_kernel_rate(lr, weights[0]),
        beta1=betas[0],
        beta2=betas[1],
        eps=eps,
        weight_decay=weight_decay,
        amsgrad=False,
        maximize=False,
    )


def _kernel_rate(lr: float | Tensor, weight: Tensor) -> float | Tensor:
    # On an accelerator the kernels read a tensor rate as float32.
    return lr.to(weight.device, torch.float32) if isinstance(lr, Tensor) and not lr.is_cpu else lr


def count_step(steps: list[Tensor], *betas: float) -> list[tuple[Tensor, ...]]:
    """Counts a step; returns Adam's bias corrections `1 - beta ** step`, for each beta a 0-dim tensor a parameter."""
    torch._foreach_add_(steps, 1)
    counts = torch.stack([step.to(steps[0].device) for step in steps])
    if counts.device.type != "mps":  # which has no float64; expm1 cancels nothing, so little precision is lost
        counts = counts.double()
    return [torch.expm1(counts * (math.log(beta) if beta else -math.inf)).neg_().unbind() for beta in betas]


# torch.compile cannot trace the fused kernels; it fuses the following itself.


def _sgd_by_hand(weights, grads, buffers, lr, momentum, dampening, weight_decay, nesterov, skip) -> None:
    for i, (x, g) in enumerate(zip(weights, grads, strict=True)):
        if weight_decay:
            g = g.add(x, alpha=weight_decay)
        if buffers:
            buffer = buffers[i] * momentum + g * (1 - dampening)
            g = g.add(buffer, alpha=momentum) if nesterov else buffer
            buffers[i].copy_(buffer if skip is None else torch.where(skip == 1, buffers[i], buffer))
        x.copy_(x - lr * g if skip is None else torch.where(skip == 1, x, x - lr * g))


def _adam_by_hand(weights, grads, exp_avgs, exp_avg_sqs, steps, lr, beta1, beta2, eps, weight_decay) -> None:
    corrections = count_step(steps, beta1, beta2)
    for x, g, m, v, c1, c2 in zip(weights, grads, exp_avgs, exp_avg_sqs, *corrections, strict=True):
        if weight_decay:
            g = g.add(x, alpha=weight_decay)
        m.lerp_(g, 1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        x.sub_(lr / c1 * m / ((v / c2).sqrt() + eps))
