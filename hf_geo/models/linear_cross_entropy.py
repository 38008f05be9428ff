"""The loss of a linear layer over a large vocabulary, without the logits of more than a few rows at a time."""

import torch
from torch import Tensor

IGNORED = -100

# Logits alive at a time: on a CPU few enough for its caches, on an accelerator many enough to keep it busy.
CHUNK_ELEMENTS = {"cpu": 2**22}
ACCELERATOR_ELEMENTS = 2**25


def linear_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Sum of the cross-entropies of the logits `hidden @ weight.T + bias`; equals
    `F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction="sum")`.

    The gradients are computed in the forward pass, while a chunk of rows has its logits at hand: the logits are neither
    kept nor computed twice. Under autocast the matrix products run in its dtype and all else in float32. (PyTorch gained
    a chunked `F.linear_cross_entropy` only after the oldest version supported here.)

    Args:
        hidden: Shape (rows, width).
        weight: Shape (vocabulary, width).
        bias: Shape (vocabulary,).
        targets: Shape (rows,), ids of words; rows with -100 do not count.

    Returns:
        A scalar, at least float32. Asking for a graph of its gradient is a RuntimeError.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    return _LinearCrossEntropy.apply(hidden, weight, bias, targets, dtype)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, dtype):
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
        probabilities = torch.empty_like(logits, dtype=wide)
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, rows, size):
                part = slice(start, min(start + size, rows))
                z, p, column = logits[: part.stop - start], probabilities[: part.stop - start], columns[part]
                torch.addmm(b, x[part], w.t(), out=z)
                torch.softmax(z, 1, dtype=wide, out=p)
                # The largest probability is exp(largest logit - logsumexp): no second pass of exponentials.
                logsumexp = z.amax(1, keepdim=True).to(wide) - p.amax(1, keepdim=True).log()
                total += (logsumexp - z.gather(1, column)).where(kept[part, None], 0).sum()
                p.scatter_add_(1, column, p.new_full(column.shape, -1.0))
                p = p.to(dtype)
                torch.mm(p, w, out=grad_hidden[part])
                if dtype == wide:
                    grad_weight.addmm_(p.t(), x_counted[part])
                    grad_bias.addmv_(p.t(), counted[part])
                else:
                    grad_weight += p.t() @ x_counted[part]
                    grad_bias += p.t() @ counted[part]
        grad_hidden *= counted[:, None]
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        ctx.dtypes = hidden.dtype, weight.dtype, bias.dtype
        return total

    @staticmethod
    def backward(ctx, grad_total):
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError(
                "linear_cross_entropy has no second derivative; the loss of a model in evaluation mode has."
            )
        gradients = ((grad * grad_total).to(dtype) for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True))
        return *gradients, None, None
