"""The measures of trust against scikit-learn, by hand, and on predictions whose answer is known."""

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score

from hf_geo.metrics.trust import (
    adaptive_calibration_error,
    fit_temperature,
    reliability,
    risk_coverage,
    unknown_inputs,
)


@pytest.fixture
def predictions() -> tuple[np.ndarray, np.ndarray]:
    """Confidences, overconfident on the whole, and whether each prediction is right."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.2, 1, 600)
    return confidence, rng.uniform(size=600) < confidence**2


def test_bars_and_calibration_errors_are_those_of_scikit_learns_curves(predictions) -> None:
    confidence, right = predictions
    for strategy, bars in (("uniform", reliability(confidence, right, 10)), ("quantile", None)):
        accuracy, mean = calibration_curve(right, confidence, n_bins=10, strategy=strategy)
        if bars is not None:
            assert sum(count for count, _, _ in bars) == 600
            assert [bar[1] for bar in bars] == pytest.approx(accuracy)
            assert [bar[2] for bar in bars] == pytest.approx(mean)
        else:
            assert adaptive_calibration_error(confidence, right, 10) == pytest.approx(np.abs(accuracy - mean).mean())
    few = adaptive_calibration_error(confidence[:3], right[:3])  # a bin each
    assert few == pytest.approx(np.abs(confidence[:3] - right[:3]).mean())


def test_risk_is_the_error_among_the_most_confident(predictions) -> None:
    confidence, right = predictions
    risks = risk_coverage(confidence, right)
    for k in (1, 37, 600):
        threshold = np.sort(confidence)[-k]
        assert risks[k - 1] == pytest.approx(1 - right[confidence >= threshold].mean())
    tied = risk_coverage(np.array([0.5, 0.9, 0.5, 0.5]), np.array([True, True, False, False]))
    assert tied == pytest.approx([0, (2 / 3) / 2, (4 / 3) / 3, 2 / 4])  # in no order, so the mean of all orders


def test_the_temperature_undoes_a_factor_of_calibrated_logits_and_is_the_minimum() -> None:
    logits = 2 * torch.randn(20_000, 5, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(-1), 1)[:, 0]
    fitted = [fit_temperature(factor * logits, labels) for factor in (1, 3, 0.25)]
    assert fitted == pytest.approx([fitted[0], 3 * fitted[0], fitted[0] / 4], rel=1e-3)
    assert fitted[0] == pytest.approx(1, abs=0.03)
    # The derivative of the loss by 1 / T vanishes: the mean logit under the prediction is that of the labels.
    p = (logits / fitted[0]).softmax(-1)
    assert ((p * logits).sum(-1) - logits.gather(1, labels[:, None])[:, 0]).mean().abs() < 1e-3


def test_other_data_are_told_apart_by_confidence() -> None:
    rng = np.random.default_rng(0)
    known, other = rng.beta(5, 1, 400).round(2), rng.beta(2, 2, 300).round(2)  # with ties
    found = unknown_inputs(known, other)
    assert found["ood_auroc"] == pytest.approx(np.mean((known[:, None] > other) + 0.5 * (known[:, None] == other)))
    assert found["ood_auroc"] == roc_auc_score(np.repeat([1, 0], [400, 300]), np.concatenate([known, other]))
    threshold = max(t for t in known if np.mean(known >= t) >= 0.95)
    assert found["ood_fpr95"] == np.mean(other >= threshold)
