"""Accuracy and cross-entropy as `evaluate` metrics that are defined here, so that nothing is fetched from the Hub."""

from typing import Any

import datasets
import numpy as np
import torch
from transformers import EvalPrediction

from ._library import evaluate


class Accuracy(evaluate.Metric):
    """Share of predictions that are right.

    Predictions and references are classes, integers (N,); `compute` returns `{"accuracy": float}` from 0 to 1.
    """

    def __init__(self, **kwargs: Any) -> None:
        # In memory unless asked otherwise: processes that evaluate at the same time share no file.
        super().__init__(**{"keep_in_memory": True, **kwargs})

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Share of predictions that equal their reference.",
            citation="",
            inputs_description="predictions, references: classes (integers).",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
            format="numpy",
        )

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {"accuracy": float(np.mean(predictions == references))}


class CrossEntropy(evaluate.Metric):
    """Mean cross-entropy in nats.

    Predictions are the natural logarithms of the probabilities that the model gave to the true classes, (N,); there are
    no references, so that a vocabulary of any size costs one number a sample. `compute` returns `{"loss": float}`.
    """

    def __init__(self, **kwargs: Any) -> None:
        # In memory unless asked otherwise: processes that evaluate at the same time share no file.
        super().__init__(**{"keep_in_memory": True, **kwargs})

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Mean of the negative log-probabilities of the true classes, in nats.",
            citation="",
            inputs_description="predictions: natural log-probabilities of the true classes.",
            features=datasets.Features({"predictions": datasets.Value("float64")}),
        )

    def _compute(self, predictions: list[float]) -> dict[str, float]:
        return {"loss": -float(np.mean(predictions))}


def image_classification_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Accuracy and mean cross-entropy of a classifier, for `Trainer(compute_metrics=...)`.

    The loss is the exact mean over samples: samples that were repeated to fill the last batch of several processes do
    not count, unlike in the Trainer's own.

    Args:
        prediction: Logits (N, classes) and classes (N,).

    Returns:
        `accuracy` and `loss`, plain numbers.
    """
    logits = torch.as_tensor(prediction.predictions).double()
    classes = torch.as_tensor(prediction.label_ids).long()
    of_truth = logits.log_softmax(-1).gather(-1, classes[:, None])[:, 0]
    return {
        **Accuracy().compute(predictions=logits.argmax(-1).numpy(), references=classes.numpy()),
        **CrossEntropy().compute(predictions=of_truth.numpy()),
    }
