"""Measures accuracy and calibration at positions of a subspace, and of their ensembles, in one pass over each dataset."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hf_geo.metrics.calibration import CalibrationSums, total_variation
from hf_geo.metrics.perplexity import IGNORED
from hf_geo.subspaces import Subspace

from .batches import batches, labels_of
from .distributed import sum_over_processes
from .networks import Models, Positions
from .norms import Statistics
from .plans import group_positions
from .trust import Confidences, TrustData, Validation, compare_with_other

RECALIBRATION_BATCHES = 40
# Takes a batch's labels, and the log-probabilities of networks and ensembles.
Add = Callable[[Tensor, Sequence[Tensor]], None]
# Takes the numbers of networks and of ensembles, and the recalibrated networks.
Record = Callable[[Sequence[int], Sequence[int], Positions], Add]


@dataclass(frozen=True)
class Walk:
    """The results of an evaluation.

    Args:
        points: For each network `accuracy`, `loss` (mean cross-entropy), `nll`, `brier`, `ece`, for language models
            `perplexity`, and with `TrustData` the values of `hf_geo.evaluation.trust`.
        ensembles: For each ensemble the same values, `members` (indices in `points`), and for two members the
            `total_variation` between their predictions and their `disagreement`, the share of samples that they put
            into different classes.
        samples: Number of predictions that each value is a mean of.
        recalibration_samples: Number of samples that the norm statistics are of; 0 for a network without any.
    """

    points: list[dict[str, Any]]
    ensembles: list[dict[str, Any]]
    samples: int
    recalibration_samples: int


def walk(
    subspace: Subspace,
    coefficients: Sequence[Tensor],
    loader: Iterable,
    recalibration: Iterable | None,
    *,
    ensembles: Sequence[Sequence[int]] = (),
    recalibration_batches: int | None = RECALIBRATION_BATCHES,
    point_statistics: Sequence[Statistics] | None = None,
    trust: TrustData | None = None,
    positions_at_once: int = 32,
    causal: bool = False,
    bins: int = 15,
    average: str = "probabilities",
    batched: bool | None = None,
    record: Record | None = None,
) -> Walk:
    """Evaluates a subspace at several positions, each with recalibrated norm statistics.

    `positions_at_once` networks share a pass over each dataset, and only one batch of predictions is kept. The model ends
    at the centre, with the norm statistics it had.

    Args:
        subspace: The subspace.
        coefficients: The coefficients of each position, (num_points,) or (num_layers, num_points).
        loader: Batches with labels, see `hf_geo.evaluation.batches`.
        recalibration: Batches to take norm statistics from; None to use the model's own at every position.
        ensembles: For each ensemble the indices of its positions.
        recalibration_batches: Batches to read from `recalibration`; None for all.
        point_statistics: See `Positions`.
        trust: Data to measure trust on, if it is to be measured.
        positions_at_once: Limits memory; must be at least the size of an ensemble.
        causal: Whether the logits at a token predict the next token, as those of a language model.
        bins: Bins of the calibration error.
        average: What an ensemble averages: "probabilities", or "logits" as the authors of subspaces did.
        batched: See `Positions`.
        record: Receives the networks and their predictions.

    Raises:
        ValueError: An ensemble has more members than `positions_at_once`, or a loader is empty.
    """
    points: list[dict[str, Any]] = [{} for _ in coefficients]
    ensemble_rows: list[dict[str, Any]] = [{} for _ in ensembles]
    samples = recalibrated = 0
    rows = _stack(subspace, coefficients)
    training = subspace.model.training
    subspace.model.eval()
    try:
        for group in group_positions(len(coefficients), ensembles, positions_at_once):
            networks = Positions(subspace, rows[group], batched, point_statistics)
            if recalibration is not None:
                recalibrated = networks.recalibrate(recalibration, recalibration_batches)
            chosen = [i for i, members in enumerate(ensembles) if set(members) <= set(group)]
            local = [[group.index(m) for m in ensembles[i]] for i in chosen]
            add = record(group, chosen, networks) if record else None
            single, joint, samples = _evaluate(networks, len(group), local, loader, causal, trust, bins, average, add)
            batched = networks.batched  # vmap is not tried again once it has failed
            for i, values in zip(group, single, strict=True):
                points[i] = values
            for i, values in zip(chosen, joint, strict=True):
                ensemble_rows[i] = {"members": list(ensembles[i]), **values}
    finally:
        subspace.model.train(training)
        subspace.set_centre()
    return Walk(points, ensemble_rows, samples, recalibrated)


def evaluate_models(
    models: Sequence[nn.Module],
    loader: Iterable,
    *,
    ensembles: Sequence[Sequence[int]] = (),
    trust: TrustData | None = None,
    causal: bool = False,
    bins: int = 15,
    average: str = "probabilities",
    add: Add | None = None,
) -> Walk:
    """Evaluates independent models, and ensembles of them, in one pass over the data; as `walk`."""
    for model in models:
        model.eval()
    points, joint, samples = _evaluate(
        Models(models), len(models), ensembles, loader, causal, trust, bins, average, add
    )
    rows = [{"members": list(members), **values} for members, values in zip(ensembles, joint, strict=True)]
    return Walk(points, rows, samples, 0)


def _evaluate(
    networks: Positions | Models,
    count: int,
    ensembles: Sequence[Sequence[int]],
    loader: Iterable,
    causal: bool,
    trust: TrustData | None,
    bins: int,
    average: str,
    add: Add | None = None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
    sums = [CalibrationSums(bins) for _ in range(count + len(ensembles))]
    differences = torch.zeros(2, len(ensembles), dtype=torch.float64)  # total variation and disagreement
    more: list[dict[str, Any]] = [{} for _ in sums]
    confidences: list[Confidences] = []
    if trust is not None:
        if trust.validation is not None:
            more = _validate(networks, ensembles, trust.validation, causal, average)
        confidences = [Confidences(row.get("temperature")) for row in more]
    for labels, logs in _predictions(networks, ensembles, loader, causal, average):
        for each, log in zip(sums, logs, strict=True):
            each.update(log, labels)
        for each, log in zip(confidences, logs, strict=False):
            each.update(log, labels)
        if add is not None:
            add(labels, logs)
        for i, members in enumerate(ensembles):
            if len(members) == 2:
                first, second = (logs[m] for m in members)
                differences[0, i] += total_variation(first.exp(), second.exp()).sum().cpu()
                differences[1, i] += (first.argmax(-1) != second.argmax(-1)).sum().cpu()
    _reduce(sums)
    (differences,) = sum_over_processes([differences])
    samples = sums[0].samples
    if trust is not None:
        more = [row | each.compute() for row, each in zip(more, confidences, strict=True)]
        if trust.other is not None:
            others = [Confidences(None) for _ in sums]
            for labels, logs in _predictions(networks, ensembles, trust.other, causal, average):
                for each, log in zip(others, logs, strict=True):
                    each.update(log, labels)
            more = [row | found for row, found in zip(more, compare_with_other(confidences, others), strict=True)]
    rows = [_values(each, causal) | row for each, row in zip(sums, more, strict=True)]
    points = [{"loss": row["nll"], **row} for row in rows[:count]]
    for row, members, (distance, differing) in zip(rows[count:], ensembles, differences.T.tolist(), strict=True):
        if len(members) == 2:
            row |= {"total_variation": distance / samples, "disagreement": differing / samples}
    return points, rows[count:], samples


def _validate(
    networks: Positions | Models, ensembles: Sequence[Sequence[int]], loader: Iterable, causal: bool, average: str
) -> list[dict[str, float]]:
    """The validation loss of each network and ensemble, and of classifiers the temperature."""
    found: list = []
    for labels, logs in _predictions(networks, ensembles, loader, causal, average):
        # All logits of a text would take too much memory for a temperature.
        found = found or [CalibrationSums() if causal else Validation() for _ in logs]
        for each, log in zip(found, logs, strict=True):
            each.update(log, labels)
    if causal:
        _reduce(found)
        return [{"validation_loss": each.compute()["nll"]} for each in found]
    return [each.compute() for each in found]


def _reduce(sums: Sequence[CalibrationSums]) -> None:
    """Adds up what all processes have summed."""
    for each, total in zip(sums, sum_over_processes([each.sums for each in sums]), strict=True):
        each.sums = total


@torch.inference_mode()
def _predictions(
    networks: Positions | Models, ensembles: Sequence[Sequence[int]], loader: Iterable, causal: bool, average: str
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Yields each batch's labels, and the log-probabilities of every network and then of every ensemble."""
    for batch in batches(loader, None, "Evaluation"):
        labels = labels_of(batch)
        logits = networks.logits(batch)
        labels = labels.to(logits[0].device)
        if causal:
            labels, logits = labels[:, 1:], [each[:, :-1] for each in logits]
        counted = labels != IGNORED
        labels = labels[counted].long()
        logs = [_log_probabilities(each[counted].float(), labels) for each in logits]
        members = [torch.stack([logs[m] for m in numbers]) for numbers in ensembles]
        if average == "logits":  # which differ from log-probabilities by a constant
            means = [each.mean(0).log_softmax(-1) for each in members]
        else:
            means = [each.logsumexp(0) - math.log(len(each)) for each in members]
        yield labels, [*logs, *means]


def _log_probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    """Of each label's classes, (labels, classes); a label with one logit is a bit, whose logit is that of a 1."""
    if logits.shape == labels.shape:
        logits = torch.stack((torch.zeros_like(logits), logits), dim=-1)
    return logits.log_softmax(-1)


def _values(sums: CalibrationSums, causal: bool) -> dict[str, float]:
    values = sums.compute()
    if causal:
        values["perplexity"] = torch.tensor(values["nll"], dtype=torch.float64).exp().item()
    return values


def _stack(subspace: Subspace, coefficients: Sequence[Tensor]) -> Tensor:
    layers = len(subspace.layer_names)
    rows = [torch.as_tensor(c, dtype=torch.float64) for c in coefficients]
    if any(c.ndim == 2 for c in rows):
        rows = [c.expand(layers, -1) for c in rows]
    return torch.stack(rows)
