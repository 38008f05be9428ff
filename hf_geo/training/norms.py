"""Norm statistics for an evaluation of weights that training itself never runs at, and the samples they are taken from."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, IterableDataset, Subset

from hf_geo.evaluation.norms import recalibrate_norms, running_statistics

RECALIBRATION_SAMPLES = 2048  # for an evaluation during training; at the end all training samples are used


@contextmanager
def fresh_statistics(model: nn.Module, loader: Callable[[], Iterable]) -> Iterator[None]:
    """The model with norm statistics of its present weights; the old ones are put back afterwards.

    Args:
        model: Any module.
        loader: Makes a loader of training samples; called only if there are statistics to take.
    """
    statistics = running_statistics(model)
    kept = {name: buffer.clone() for name, buffer in statistics.items()}
    if kept:
        recalibrate_norms(model, loader())
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in statistics.items():
                buffer.copy_(kept[name])


def some_samples(dataset: Dataset, count: int) -> Dataset:
    """A fixed random choice of a data set's samples, or all where there are no more; of a stream, the first.

    It hides `set_epoch`: reading it in the middle of an epoch must not tell the training data that another one began.
    """
    if not hasattr(dataset, "__len__"):
        return _Beginning(dataset, count)
    if len(dataset) <= count:
        return Subset(dataset, range(len(dataset)))
    chosen = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:count]
    return Subset(dataset, chosen.tolist())


class _Beginning(IterableDataset):
    """The first samples of a stream, at most `count` in each worker."""

    def __init__(self, stream: IterableDataset, count: int) -> None:
        self.stream, self.count = stream, count

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(self.stream, self.count)
