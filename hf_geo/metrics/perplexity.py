"""Perplexity from summed losses, exact over a whole corpus."""

import datasets
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import EvalPrediction

from ._library import InMemoryMetric, evaluate

IGNORED = -100


class Perplexity(InMemoryMetric):
    """Exponential of the mean negative log-likelihood per token.

    Takes, for any pieces of a corpus, the summed negative log-likelihood `nll` (in nats) and the number of `tokens` it sums
    over. `compute` returns `perplexity` (infinite beyond the largest float), its logarithm `loss` and all `tokens`.

    Raises:
        ValueError: There are no tokens at all.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Exponential of the mean negative log-likelihood per token.",
            citation="",
            inputs_description="nll: summed negative log-likelihood of each piece; tokens: number of tokens of each.",
            features=datasets.Features({"nll": datasets.Value("float64"), "tokens": datasets.Value("int64")}),
            format="numpy",
        )

    def _compute(self, nll: np.ndarray, tokens: np.ndarray) -> dict[str, float | int]:
        total = int(np.sum(tokens))
        if total == 0:
            raise ValueError("The perplexity of no tokens was asked for: the evaluation set has nothing to predict.")
        loss = np.sum(nll) / total
        with np.errstate(over="ignore"):
            return {"perplexity": float(np.exp(loss)), "loss": float(loss), "tokens": total}


def nll_per_row(logits: Tensor, labels: Tensor) -> Tensor:
    """Reduces a batch's logits to what perplexity needs, for `Trainer(preprocess_logits_for_metrics=...)`.

    The Trainer then gathers two numbers a row instead of all logits.

    Args:
        logits: Shape (batch, length, vocabulary), or a tuple that starts with them; position i predicts label i + 1.
        labels: Shape (batch, length), -100 where there is nothing to predict.

    Returns:
        Shape (batch, 2): the summed negative log-likelihood of each row, and how many tokens it sums over.
    """
    logits = logits[0] if isinstance(logits, tuple) else logits
    targets = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
    # Row by row: a batch's log-probabilities would take as much memory as its logits.
    nll = torch.stack([F.cross_entropy(z.float(), t, reduction="sum") for z, t in zip(logits, targets, strict=True)])
    return torch.stack([nll, (targets != IGNORED).sum(1).to(nll.dtype)], dim=1)


def language_metrics(prediction: EvalPrediction) -> dict[str, float | int]:
    """Perplexity, for a Trainer whose `preprocess_logits_for_metrics` is `nll_per_row`.

    The loss is the exact mean over tokens, unlike the Trainer's own, which is one over batches.

    Args:
        prediction: What `nll_per_row` returned, (rows, 2).

    Returns:
        `perplexity`, `loss` and `tokens`, plain numbers.
    """
    nll, tokens = np.asarray(prediction.predictions, dtype=np.float64).T
    return Perplexity().compute(nll=nll, tokens=tokens.astype(np.int64))
