"""The multi-class hinge loss of Crammer and Singer."""

import torch
from torch import Tensor
from torch.nn import functional as F


def crammer_singer_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """The multi-class hinge loss, one value a sample.

    With the right class y and the scores s,

        max_j (s_j + [j != y]) - s_y

    which is zero where the right class's score is larger than all others by 1 or more.

    Args:
        scores: Of any floating dtype, shape (batch, classes).
        labels: The right classes, shape (batch,).

    Returns:
        Shape (batch,), float32 at least.

    Paper: Crammer, Singer: On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines. JMLR 2, 2001.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    margins = scores + 1 - F.one_hot(labels, scores.shape[-1])
    return margins.max(-1).values - scores.gather(-1, labels[:, None])[:, 0]
