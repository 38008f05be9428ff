"""The cross-entropy of a linear layer over a large vocabulary, computed for a few rows of logits at a time."""

import torch
from torch import Tensor

# `hf_geo.metrics.perplexity.IGNORED` again: this file travels with exported weights and imports nothing of the package.
IGNORED = -100

# Number of logits in memory at a time: enough for fast matrix products, few enough for a CPU's caches.
CHUNK_ELEMENTS = {"cpu": 2**23}
ACCELERATOR_ELEMENTS = 2**25
CPU_STRIP = 2048  # words whose logits each thread of a CPU computes at a time, in its inner cache


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, divisor: int | Tensor | None = None
) -> Tensor:
    """Mean cross-entropy of the logits `hidden @ weight.T + bias`, without ever holding all of them.

    With the default `divisor` it equals `F.cross_entropy(F.linear(hidden, weight, bias), targets)`. The gradients are
    computed in the forward pass, chunk by chunk, so that logits are neither kept nor computed twice. Under autocast the
    matrix products run in its dtype and all else in float32. (PyTorch gained a chunked `F.linear_cross_entropy` only
    after the oldest version supported here.)

    Args:
        hidden: Shape (rows, width).
        weight: Shape (vocabulary, width).
        bias: Shape (vocabulary,).
        targets: Shape (rows,), ids of words; rows with -100 do not count.
        divisor: What the sum over rows is divided by; the number of rows that count by default.

    Returns:
        A scalar, at least float32. Asking for a graph of its gradient is a RuntimeError.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    divisor = (targets != IGNORED).sum() if divisor is None else torch.as_tensor(divisor, device=hidden.device)
    return _LinearCrossEntropy.apply(hidden, weight, bias, targets, divisor, dtype)


def _write_logits(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> Tensor:
    strip = CPU_STRIP * torch.get_num_threads() if out.device.type == "cpu" else len(weight)
    for first in range(0, len(weight), strip):
        words = slice(first, first + strip)
        torch.addmm(bias[words], x, weight[words].t(), out=out[:, words])
    return out


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, divisor, dtype):
        rows, vocabulary = hidden.shape[0], weight.shape[0]
        limit = CHUNK_ELEMENTS.get(hidden.device.type, ACCELERATOR_ELEMENTS)
        chunks = max(1, -(-rows * vocabulary // limit))
        size = max(1, -(-rows // chunks))

        wide = torch.promote_types(weight.dtype, torch.float32)
        x, w, b = hidden.to(dtype), weight.to(dtype), bias.to(dtype)
        kept = targets != IGNORED
        counted = kept.to(dtype)
        x_counted = x * counted[:, None]
        columns = targets.where(kept, 0)[:, None]

        total = torch.zeros((), dtype=wide, device=hidden.device)
        grad_hidden = torch.empty_like(x)
        grad_weight = torch.zeros_like(weight, dtype=wide)
        grad_bias = torch.zeros_like(bias, dtype=wide)
        logits = x.new_empty(size, vocabulary)
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, rows, size):
                part = slice(start, min(start + size, rows))
                z, column = logits[: part.stop - start], columns[part]
                p = _write_logits(x[part], w, b, z).to(wide)
                largest, at_target = p.amax(1, keepdim=True), p.gather(1, column)
                torch.softmax(p, 1, out=p)  # in place, which is safe because a row is read before it is written
                # The largest probability is exp(largest - logsumexp): no second pass of exponentials.
                nll = largest - p.amax(1, keepdim=True).log() - at_target
                total += nll.where(kept[part, None], 0).sum()
                p.scatter_add_(1, column, p.new_full(column.shape, -1.0))
                p = p.to(dtype)
                torch.mm(p, w, out=grad_hidden[part])
                if dtype == wide:
                    grad_weight.addmm_(p.t(), x_counted[part])
                    grad_bias.addmv_(p.t(), counted[part])
                else:
                    grad_weight += p.t() @ x_counted[part]
                    grad_bias += p.t() @ counted[part]

        grad_hidden = grad_hidden.to(wide).mul_(counted[:, None])
        ctx.save_for_backward(*(grad.div_(divisor) for grad in (grad_hidden, grad_weight, grad_bias)))
        ctx.dtypes = hidden.dtype, weight.dtype, bias.dtype
        return total / divisor

    @staticmethod
    def backward(ctx, grad_loss):
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError(
                "linear_cross_entropy has no second derivative; the loss of a model in evaluation mode has."
            )
        gradients = ctx.saved_tensors
        # Comparing with the usual factor of one needs no synchronisation on a CPU, and saves a copy of the gradients.
        if grad_loss.device.type != "cpu" or grad_loss != 1:
            gradients = [grad * grad_loss for grad in gradients]
        return *(grad.to(dtype) for grad, dtype in zip(gradients, ctx.dtypes, strict=True)), None, None, None
