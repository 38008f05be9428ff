"""Measures of predicted probabilities: calibration error, likelihood, Brier score, and the distance of two networks."""

import numpy as np
import torch
from torch import Tensor


class CalibrationSums:
    """Accuracy, NLL, Brier score and expected calibration error, summed batch by batch.

    Nothing is kept but sums, so a data set of any size and any number of classes costs the same memory, and the sums of
    several processes may be added.

    - NLL: mean negative log-probability of the true class, in nats.
    - Brier score: mean over samples of the squared distance between the probabilities and the true class's one-hot
      vector, 0 to 2.
    - ECE: samples are put into `bins` of equal width by the probability of their predicted class; the mean over samples
      of the distance between their bin's accuracy and its mean probability (Guo et al. 2017, arXiv 1706.04599).

    Args:
        bins: Bins of the calibration error.
    """

    def __init__(self, bins: int = 15) -> None:
        self.bins = bins
        # Rows: samples, right ones, sum of the predicted class's probability, each by bin; then two totals.
        self.sums = torch.zeros(3 * bins + 2, dtype=torch.float64)

    def update(self, log_probabilities: Tensor, labels: Tensor) -> None:
        """Adds a batch.

        Args:
            log_probabilities: (samples, classes), natural logarithms.
            labels: (samples,) integers.
        """
        nll = -log_probabilities.gather(-1, labels[:, None])[:, 0].double()
        probabilities = log_probabilities.exp()
        confidence, predicted = probabilities.max(-1)
        # |p - onehot|^2 = |p|^2 - 2 p_true + 1
        brier = probabilities.square().sum(-1).double() - 2 * (-nll).exp() + 1
        index = bin_numbers(confidence, self.bins)
        columns = torch.stack([torch.ones_like(nll), (predicted == labels).double(), confidence.double()])
        by_bin = torch.zeros(3, self.bins, dtype=torch.float64, device=nll.device).index_add_(1, index, columns)
        self.sums += torch.cat([by_bin.flatten(), nll.sum()[None], brier.sum()[None]]).cpu()

    @property
    def samples(self) -> int:
        return int(self.sums[: self.bins].sum())

    def compute(self) -> dict[str, float]:
        """`accuracy`, `nll`, `brier` and `ece`, plain numbers.

        Raises:
            ValueError: No sample was added.
        """
        count, right, confidence = self.sums[:-2].view(3, self.bins)
        total = count.sum()
        if total == 0:
            raise ValueError("The calibration of no predictions was asked for: the evaluation set is empty.")
        nll, brier = self.sums[-2:]
        values = {
            "accuracy": right.sum() / total,
            "nll": nll / total,
            "brier": brier / total,
            "ece": (right - confidence).abs().sum() / total,
        }
        return {name: value.item() for name, value in values.items()}


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """The expected calibration error, as `CalibrationSums`, of predictions that are all at hand.

    Args:
        confidence: Probabilities of the predicted classes, (samples,).
        right: Whether each prediction is right, (samples,).
        bins: Bins.
    """
    gaps = torch.as_tensor(right).double() - torch.as_tensor(confidence).double()
    index = bin_numbers(torch.as_tensor(confidence), bins)
    return (torch.zeros(bins, dtype=torch.float64).index_add_(0, index, gaps).abs().sum() / len(gaps)).item()


def bin_numbers(confidence: Tensor, bins: int) -> Tensor:
    """The numbers of the bins of probabilities; one on an edge belongs to the bin below it."""
    return (confidence.double() * bins).ceil().long().clamp(1, bins) - 1


def total_variation(probabilities: Tensor, others: Tensor) -> Tensor:
    """Total-variation distance of two networks' predictions, half the sum of absolute differences: 0 to 1 a sample.

    Args:
        probabilities, others: (samples, classes).

    Returns:
        (samples,)
    """
    return (probabilities - others).abs().sum(-1) / 2
