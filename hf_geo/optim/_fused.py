"""The plain steps of SGD and Adam, by torch's fused kernels: one pass over the memory."""

from collections.abc import Iterator
import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from ._shards import wide_dtype

# Elements that are worked on together: many small tensors cost one call, what one call has
# written is still in the cache for the next, and copies of what needs copying stay small.
BATCH = 1 << 20


def batches(weights: list[Tensor], grads: list[Tensor], *states: list[Tensor]) -> Iterator[list[list[Tensor]]]:
    """Short lists of the same tensors, of one device and dtype, that torch's fused kernels can take, to be updated in place.

    The kernels need one dtype and the same dense memory layout for a weight, its gradient and its state, and do not check
    the latter. Tensors that differ are lent out as copies, float32 or wider, and all but the gradients copied back.
    """
    batch, size, kind = [], 0, None
    for row in zip(weights, grads, *states, strict=True):
        if batch and (size >= BATCH or (row[0].device, row[0].dtype) != kind):
            yield from _lend(batch)
            batch, size = [], 0
        kind = row[0].device, row[0].dtype
        batch.append(row)
        size += row[0].numel()
    if batch:
        yield from _lend(batch)


def _lend(batch: list[tuple[Tensor, ...]]) -> Iterator[list[list[Tensor]]]:
    lent = [row if _alike(row) else _copies(row) for row in batch]
    yield [list(column) for column in zip(*lent, strict=True)]
    for originals, copies in zip(batch, lent, strict=True):
        if copies is not originals:
            for i in (0, *range(2, len(copies))):
                originals[i].copy_(copies[i])


def _copies(row: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(row[0], dtype=wide_dtype(row[0])).copy_(t) for t in row)


def _alike(row: tuple[Tensor, ...]) -> bool:
    x = row[0]
    if any(t.dtype != wide_dtype(x) for t in row):
        return False
    if all(t.is_contiguous() for t in row):
        return True
    dense = torch.empty_like(x, device="meta").stride() == x.stride()
    return dense and all(t.stride() == x.stride() for t in row)


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
    """One step of `torch.optim.SGD` in place, whose buffers (none without momentum) begin as zeros.

    Where `skip`, a float32 tensor of one element, is 1, nothing changes.
    """
    if torch.compiler.is_compiling():
        return _sgd_by_hand(weights, grads, buffers, lr, momentum, dampening, weight_decay, nesterov, skip)
    sgd(
        weights,
        grads,
        buffers or [None] * len(weights),
        fused=True,
        # The kernels of accelerators read a rate that lies there as float32.
        lr=lr.float() if isinstance(lr, Tensor) and not lr.is_cpu else lr,
        momentum=momentum,
        dampening=dampening,
        weight_decay=weight_decay,
        nesterov=nesterov,
        maximize=False,
        found_inf=skip,
    )


def _sgd_by_hand(weights, grads, buffers, lr, momentum, dampening, weight_decay, nesterov, skip) -> None:
    # torch.compile cannot look into the fused kernel, and makes one of its own of this.
    for i, (x, g) in enumerate(zip(weights, grads, strict=True)):
        if weight_decay:
            g = g.add(x, alpha=weight_decay)
        if buffers:
            buffer = buffers[i] * momentum + g * (1 - dampening)
            g = g.add(buffer, alpha=momentum) if nesterov else buffer
            buffers[i].copy_(buffer if skip is None else torch.where(skip == 1, buffers[i], buffer))
        x.copy_(x - lr * g if skip is None else torch.where(skip == 1, x, x - lr * g))


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
    """One step of `torch.optim.Adam` in place; counts it in `steps`."""
    adam(
        weights,
        grads,
        exp_avgs,
        exp_avg_sqs,
        [],
        steps,
        fused=True,
        lr=lr,
        beta1=betas[0],
        beta2=betas[1],
        eps=eps,
        weight_decay=weight_decay,
        amsgrad=False,
        maximize=False,
    )
