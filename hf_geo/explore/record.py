"""Records the norm statistics and the predictions of a walk for the page."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_geo.evaluation.batches import batch_size, batches
from hf_geo.evaluation.norms import Statistics
from hf_geo.evaluation.walk import Add, Positions


class Record:
    """Receives the networks and predictions of a walk, as its argument `record`.

    Args:
        networks: Number of networks.
        ensembles: Number of ensembles, which are counted on from the networks.
        predictions: Whether to keep predictions: those of a text's tokens would fill the memory.

    Attributes:
        statistics: The norm statistics of each network.
        labels: (samples,); read it and the two below only after the walk, since they are put together once.
    """

    def __init__(self, networks: int, ensembles: int, *, predictions: bool) -> None:
        self.networks, self.keeps_predictions = networks, predictions
        self.statistics: list[Statistics] = [{} for _ in range(networks)]
        self._labels: dict[int, list[Tensor]] = {}
        self._found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(networks + ensembles)]

    def __call__(self, networks: Sequence[int], ensembles: Sequence[int], positions: Positions) -> Add:
        """Records the norm statistics of networks that share a pass; returns a function that records their predictions."""
        for row, number in enumerate(networks):
            self.statistics[number] = {name: rows[row].clone() for name, rows in positions.statistics.items()}
        return self.adder([*networks, *(self.networks + number for number in ensembles)])

    def adder(self, numbers: Sequence[int]) -> Add:
        """Returns a function that records the predictions of networks and ensembles with these numbers."""
        labels = self._labels.setdefault(numbers[0], [])

        def add(true: Tensor, logs: Sequence[Tensor]) -> None:
            if self.keeps_predictions:
                labels.append(true.cpu())
                for number, log in zip(numbers, logs, strict=True):
                    best, predicted = log.max(-1)
                    self._found[number].append((predicted.to(torch.int32).cpu(), best.exp().cpu()))

        return add

    @cached_property
    def labels(self) -> np.ndarray:
        return torch.cat(next(iter(self._labels.values()))).numpy()

    @cached_property
    def predicted(self) -> np.ndarray:
        """The predicted classes, (networks and ensembles, samples)."""
        return np.stack([torch.cat([predicted for predicted, _ in rows]).numpy() for rows in self._found])

    @cached_property
    def confidence(self) -> np.ndarray:
        """The probabilities of the predicted classes, of the same shape."""
        return np.stack([torch.cat([best for _, best in rows]).numpy() for rows in self._found])


def order_samples(predicted: np.ndarray, confidence: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The order in which samples are most telling.

    First those that the networks disagree on, the most even disagreement first; then the mistakes, the most confident first;
    then the others, the least confident first.

    Args:
        predicted, confidence: (networks, samples).
        labels: (samples,).

    Returns:
        Numbers of the samples, (samples,).
    """
    most = np.zeros(len(labels))
    for number in np.unique(predicted):
        most = np.maximum(most, (predicted == number).mean(0))
    right = (predicted == labels).mean(0)
    sure = confidence.mean(0)
    return np.lexsort((np.where(right < 0.5, -sure, sure), right, most))


def take_samples(loader: Iterable, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """The samples with these numbers in the order of the loader, each as a batch of one."""
    rows, wanted, start = {}, set(numbers), 0
    for batch in batches(loader, None, "Samples"):
        size = batch_size(batch)
        for number in wanted & set(range(start, start + size)):
            rows[number] = {name: tensor[number - start, None] for name, tensor in batch.items()}
        start += size
        if len(rows) == len(wanted):
            break
    return [rows[number] for number in numbers]


def join(samples: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Joins samples of one shape into a batch; samples of several shapes stay batches of their own."""
    if len({tuple(tensor.shape for tensor in sample.values()) for sample in samples}) > 1:
        return list(samples)
    return [{name: torch.cat([sample[name] for sample in samples]) for name in samples[0]}]


def by_sample(found: Sequence[tuple[Any, Any]]) -> list[list[tuple[int, float]]]:
    """Of each sample the class and probability by each network, from the probabilities and classes by network."""
    columns = [list(zip(predicted.tolist(), best.tolist(), strict=True)) for best, predicted in found]
    return [list(row) for row in zip(*columns, strict=True)]
