"""Collects predictions of networks and ensembles, for the measures of `hf_geo.metrics.trust`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hf_geo.metrics.calibration import CalibrationSums
from hf_geo.metrics.trust import (
    adaptive_calibration_error,
    fit_temperature,
    reliability,
    risk_coverage,
    unknown_inputs,
)

from .distributed import gather_from_processes, sum_over_processes

COVERAGES = 20  # points of the risk-coverage curve that are kept


@dataclass(frozen=True)
class TrustData:
    """The data besides the evaluated split on which trust is measured.

    Args:
        validation: Batches of the validation split, to fit temperatures on and to choose a position by.
        other: Batches of another data set, which the networks should not be sure of.
    """

    validation: Iterable | None = None
    other: Iterable | None = None


class Validation:
    """The validation loss of a network or ensemble, and the temperature that its predictions need."""

    def __init__(self) -> None:
        self._logs: list[Tensor] = []
        self._labels: list[Tensor] = []

    def update(self, logs: Tensor, labels: Tensor) -> None:
        """Adds a batch of log-probabilities, (samples, classes), and its labels, (samples,)."""
        self._logs.append(logs.cpu())
        self._labels.append(labels.cpu())

    def compute(self) -> dict[str, float]:
        """`validation_loss` and `temperature`."""
        logs, labels = (gather_from_processes(torch.cat(parts)) for parts in (self._logs, self._labels))
        loss = F.nll_loss(logs.double(), labels).item()
        return {"validation_loss": loss, "temperature": fit_temperature(logs, labels)}


class Confidences:
    """The confidence of each prediction of a network or ensemble, and whether it was right.

    Args:
        temperature: Divides the log-probabilities in the measures whose names begin with `scaled`; None for none of them.
    """

    def __init__(self, temperature: float | None) -> None:
        self.temperature = temperature
        self._scaled = CalibrationSums()
        self._columns: list[Tensor] = []

    def update(self, logs: Tensor, labels: Tensor) -> None:
        """Adds a batch, as `Validation.update`."""
        confidence, predicted = logs.max(-1)
        columns = [confidence.exp(), predicted == labels]
        if self.temperature is not None:
            scaled = (logs / self.temperature).log_softmax(-1)
            self._scaled.update(scaled, labels)
            columns.append(scaled.max(-1).values.exp())
        self._columns.append(torch.stack([column.double() for column in columns], 1).cpu())

    @property
    def values(self) -> np.ndarray:
        """(samples, 2 or 3): confidence, whether right, and the confidence at the temperature if there is one."""
        return gather_from_processes(torch.cat(self._columns)).numpy()

    def compute(self) -> dict[str, Any]:
        """The measures, and as lists the bars of the reliability diagram and points of the risk-coverage curve."""
        confidence, right, *scaled = self.values.T
        right = right.astype(bool)
        risks = risk_coverage(confidence, right)
        kept = np.ceil(np.arange(1, COVERAGES + 1) * len(risks) / COVERAGES).astype(int)
        found = {
            "adaptive_ece": adaptive_calibration_error(confidence, right),
            "aurc": float(risks.mean()),
            "reliability": reliability(confidence, right),
            "risk_coverage": [(float(k / len(risks)), float(risks[k - 1])) for k in kept],
        }
        if self.temperature is not None:
            (self._scaled.sums,) = sum_over_processes([self._scaled.sums])
            values = self._scaled.compute()
            found |= {f"scaled_{name}": values[name] for name in ("nll", "brier", "ece")}
            found["scaled_adaptive_ece"] = adaptive_calibration_error(scaled[0], right)
            found["scaled_reliability"] = reliability(scaled[0], right)
        return found


def compare_with_other(known: Sequence[Confidences], other: Sequence[Confidences]) -> list[dict[str, float]]:
    """`ood_auroc` and `ood_fpr95` of each network and ensemble, from its confidences on both data sets."""
    return [unknown_inputs(here.values[:, 0], there.values[:, 0]) for here, there in zip(known, other, strict=True)]
