"""Accuracy and cross-entropy as `evaluate` metrics that are defined here, so that nothing is fetched from the Hub."""

import datasets
import numpy as np
from sklearn.metrics import f1_score
from torch import Tensor
from torch.nn import functional as F
from transformers import EvalPrediction

from ._library import InMemoryMetric, evaluate
from .calibration import calibration_error


class Accuracy(InMemoryMetric):
    """Share of predictions that are right.

    Predictions and references are classes, integers (N,); `compute` returns `{"accuracy": float}` from 0 to 1.
    """

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


class CrossEntropy(InMemoryMetric):
    """Mean cross-entropy in nats.

    Predictions are the natural logarithms of the probabilities that the model gave to the true classes, (N,); there are
    no references, so that a vocabulary of any size costs one number a sample. `compute` returns `{"loss": float}`.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Mean of the negative log-probabilities of the true classes, in nats.",
            citation="",
            inputs_description="predictions: natural log-probabilities of the true classes.",
            features=datasets.Features({"predictions": datasets.Value("float64")}),
        )

    def _compute(self, predictions: list[float]) -> dict[str, float]:
        return {"loss": -float(np.mean(predictions))}


def score_samples(logits: Tensor | tuple[Tensor, ...], labels: Tensor) -> tuple[Tensor, Tensor]:
    """Reduces a batch's logits to what a classifier's metrics need, for `Trainer(preprocess_logits_for_metrics=...)`.

    The Trainer then keeps two numbers a sample, not all logits, so that its memory does not grow with the classes.

    Args:
        logits: Shape (batch, classes), or a tuple that starts with them.
        labels: Shape (batch,), the true classes.

    Returns:
        The predicted classes and the natural log-probabilities of the true ones, both of shape (batch,).
    """
    logits = logits[0] if isinstance(logits, tuple) else logits
    return logits.argmax(-1), -F.cross_entropy(logits.float(), labels, reduction="none")


def image_classification_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Accuracy and mean cross-entropy, for a Trainer whose `preprocess_logits_for_metrics` is `score_samples`.

    The loss is the exact mean over samples: samples that were repeated to fill the last batch of several processes do
    not count, unlike in the Trainer's own.

    Args:
        prediction: What `score_samples` returned for all samples, and their classes (N,).

    Returns:
        `accuracy`, `loss` and `samples` (how many were measured), plain numbers.
    """
    predicted, log_probabilities = prediction.predictions
    return {
        "samples": len(prediction.label_ids),
        **Accuracy().compute(predictions=predicted, references=prediction.label_ids),
        **CrossEntropy().compute(predictions=log_probabilities),
    }


def score_with_confidence(logits: Tensor | tuple[Tensor, ...], labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `score_samples`, and the probabilities of the predicted classes, shape (batch,)."""
    logits = logits[0] if isinstance(logits, tuple) else logits
    return *score_samples(logits, labels), logits.float().softmax(-1).amax(-1)


def text_classification_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """As `image_classification_metrics`, with the macro F1 and the calibration error.

    The macro F1 is the mean of the classes' F1 scores, over the classes that occur among labels or predictions.

    Args:
        prediction: What `score_with_confidence` returned for all samples, and their classes (N,).

    Returns:
        `accuracy`, `macro_f1`, `ece` (see `CalibrationSums`), `loss` and `samples`, plain numbers.
    """
    predicted, log_probabilities, confidence = prediction.predictions
    labels = prediction.label_ids
    return {
        **image_classification_metrics(EvalPrediction((predicted, log_probabilities), labels)),
        "macro_f1": float(f1_score(labels, predicted, average="macro")),
        "ece": calibration_error(confidence, predicted == labels),
    }
