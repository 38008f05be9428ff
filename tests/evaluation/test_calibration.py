"""The calibration metrics against scikit-learn and by hand."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from hf_geo.metrics.calibration import CalibrationSums, total_variation


def calibration_metrics(probabilities: torch.Tensor, labels: torch.Tensor, bins: int = 15) -> dict[str, float]:
    sums = CalibrationSums(bins)
    sums.update(probabilities.log(), labels)
    return sums.compute()


def _predictions(samples: int = 500, classes: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    probabilities = (3 * torch.randn(samples, classes, dtype=torch.float64)).softmax(-1)
    return probabilities, torch.multinomial(probabilities, 1)[:, 0]


def test_likelihood_accuracy_and_brier_score_are_those_of_the_definitions() -> None:
    probabilities, labels = _predictions()
    found = calibration_metrics(probabilities, labels)
    assert found["nll"] == pytest.approx(log_loss(labels.numpy(), probabilities.numpy(), labels=range(7)), abs=1e-12)
    assert found["accuracy"] == accuracy_score(labels.numpy(), probabilities.argmax(-1).numpy())
    onehot = np.eye(7)[labels.numpy()]
    assert found["brier"] == pytest.approx(((probabilities.numpy() - onehot) ** 2).sum(1).mean(), abs=1e-12)


def _ece(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """Bin by bin, as Guo et al. 2017 write it."""
    confidence, predicted = probabilities.max(1), probabilities.argmax(1)
    total = 0.0
    for m in range(bins):
        inside = (confidence > m / bins) & (confidence <= (m + 1) / bins)
        if inside.any():
            gap = abs((predicted == labels)[inside].mean() - confidence[inside].mean())
            total += inside.sum() / len(labels) * gap
    return total


def test_calibration_error_is_that_of_the_definition_and_batches_add_up() -> None:
    probabilities, labels = _predictions()
    expected = _ece(probabilities.numpy(), labels.numpy(), 10)
    found = calibration_metrics(probabilities, labels, 10)
    assert found["ece"] == pytest.approx(expected, abs=1e-12)
    sums = CalibrationSums(10)
    with pytest.raises(ValueError, match="the evaluation set is empty"):
        sums.compute()
    for part in torch.arange(500).split(64):
        sums.update(probabilities[part].log(), labels[part])
    assert sums.samples == 500 and sums.compute() == pytest.approx(found, abs=1e-12)


def test_a_probability_on_an_edge_belongs_to_the_bin_below_it() -> None:
    probabilities = torch.tensor([[0.5, 0.5], [0.75, 0.25]], dtype=torch.float64)  # right and wrong, in two bins
    found = calibration_metrics(probabilities, torch.tensor([0, 1]), bins=2)
    assert found["ece"] == pytest.approx((0.5 + 0.75) / 2)


def test_total_variation_is_between_nothing_and_one() -> None:
    first = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.2, 0.8]])
    second = torch.tensor([[0.0, 1.0], [0.5, 0.5], [0.5, 0.5]])
    torch.testing.assert_close(total_variation(first, second), torch.tensor([1.0, 0.0, 0.3]))
