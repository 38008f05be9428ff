"""How far predicted probabilities may be trusted, from predictions alone: calibration, abstaining, unknown inputs."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor
from torch.nn import functional as F

from .calibration import bin_numbers

BINS = 15
_TEMPERATURES = (0.02, 50.0)  # no useful one lies outside; with every prediction right the likelihood asks for zero


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> list[tuple[int, float, float]]:
    """The bars of a reliability diagram: samples, accuracy and mean confidence of each bin that has any.

    Args:
        confidence: (samples,) probability of the predicted class.
        right: (samples,) whether that class is the true one.
        bins: Bins of equal width; a confidence on an edge belongs to the bin below it.
    """
    index = bin_numbers(torch.as_tensor(confidence), bins).numpy()
    return [_bar(confidence[index == i], right[index == i]) for i in np.unique(index)]


def adaptive_calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """The calibration error over bins of equal mass (Nguyen & O'Connor 2015, arXiv 1508.05154).

    sum_b n_b / n |accuracy_b - confidence_b|, where the samples in order of their confidence are divided into `bins` bins
    of as equal a size as possible. Other than with bins of equal width, no bin is nearly empty.

    Args:
        confidence, right: As in `reliability`.
        bins: Number of bins; as many as there are samples if that is fewer.
    """
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    bars = [_bar(confidence[part], right[part]) for part in parts]
    return sum(count * abs(accuracy - mean) for count, accuracy, mean in bars) / len(order)


def risk_coverage(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The error among the k most confident predictions, for k = 1 ... n (Geifman & El-Yaniv 2017, arXiv 1705.08500).

    Predictions of the same confidence are in no order, so each counts as the mean of them. The mean of the result is the
    AURC, the area under the risk-coverage curve: low if errors come with low confidence.

    Args:
        confidence, right: As in `reliability`.

    Returns:
        (samples,) risks at the coverages k / n.
    """
    _, group, counts = np.unique(-np.asarray(confidence, np.float64), return_inverse=True, return_counts=True)
    errors = np.bincount(group, weights=~np.asarray(right, bool)) / counts
    return np.cumsum(np.repeat(errors, counts)) / np.arange(1, len(group) + 1)


def fit_temperature(log_probabilities: Tensor, labels: Tensor) -> float:
    """The temperature T that minimises the likelihood loss of softmax(z / T) (Guo et al. 2017, arXiv 1706.04599).

    Fit it on validation data, never on the data that the result is reported on. The loss has one minimum in T.

    Args:
        log_probabilities: (samples, classes) logits z, or the log-probabilities of a network or an ensemble.
        labels: (samples,) integers.
    """

    def loss(log_temperature: float) -> float:
        return F.cross_entropy(log_probabilities / np.exp(log_temperature), labels).item()

    bounds = tuple(np.log(_TEMPERATURES))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4}).x))


def unknown_inputs(confidence: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """How well confidence tells a data set from another one (Hendrycks & Gimpel 2017, arXiv 1610.02136).

    Args:
        confidence: Probability of the predicted class for samples of the data set, the positives.
        other: The same for samples of the other data set.

    Returns:
        `ood_auroc`, the probability that a sample has a higher confidence than one of the other data set (ties count
        half), and `ood_fpr95`, the share of the other data set above the threshold that 95 % of the samples reach.
    """
    truth = np.repeat([1, 0], [len(confidence), len(other)])
    scores = np.concatenate([confidence, other])
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    return {"ood_auroc": float(roc_auc_score(truth, scores)), "ood_fpr95": float(false[np.argmax(true >= 0.95)])}


def _bar(confidence: Sequence[float], right: Sequence[bool]) -> tuple[int, float, float]:
    return len(right), float(np.mean(right)), float(np.mean(confidence, dtype=np.float64))
