"""The networks of a subspace, run for one visitor at a time at positions whose norm statistics are known."""

import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.trainer_utils import has_length

from hf_geo.evaluation.batches import inputs_of, logits_of
from hf_geo.evaluation.norms import Statistics, running_statistics
from hf_geo.subspaces import Subspace
from hf_geo.tasks import EvaluationSetup


def announce(setup: EvaluationSetup, networks: int, recalibration_batches: int | None = None) -> None:
    """Prints what is measured before the page opens, and an estimate of the time, from two timed runs of a batch."""
    model, durations = setup.models[0], []
    for _ in range(2):  # the first time, memory is allocated and kernels are chosen
        start = time.perf_counter()
        args, kwargs = inputs_of(model, next(iter(setup.evaluation)))
        with torch.inference_mode():
            logits_of(model(*args, **kwargs)).sum().item()
        durations.append(time.perf_counter() - start)
    recalibrated = networks > 1 and setup.recalibration is not None and running_statistics(model)
    counts = [count_batches(setup.evaluation)]
    counts += [count_batches(setup.recalibration, recalibration_batches)] if recalibrated else []
    how_long = ""
    if None not in counts:
        minutes = math.ceil(min(durations) * networks * sum(counts) / 60)
        how_long = f", which takes about {minutes} minute{'s' if minutes > 1 else ''}"
    what = "the network" if networks == 1 else f"{networks} positions"
    print(
        f"Measuring {what} on the {setup.split} split of {setup.dataset} before the page opens{how_long}.", flush=True
    )


def count_batches(loader: Iterable, most: int | None = None) -> int | None:
    """The batches that are read of a loader, at most `most`; None if that is unknown."""
    return min(len(loader), most or len(loader)) if has_length(loader) else most


@dataclass(frozen=True)
class Place:
    """A position, and where its norm statistics come from.

    Args:
        name: For people.
        coefficients: Of the control points; None for a single network.
        shares: Of the measured positions, by their numbers, in its norm statistics; they sum to one.
    """

    name: str
    coefficients: Tensor | None
    shares: Mapping[int, float]


class Networks:
    """Runs the network at a place; visitors who come at once wait for each other.

    Args:
        model: The model.
        subspace: Its subspace; None for a single network.
        statistics: The norm statistics of each measured position.
    """

    def __init__(self, model: nn.Module, subspace: Subspace | None, statistics: Sequence[Statistics]) -> None:
        self.model, self.subspace, self.statistics = model, subspace, statistics
        self._lock = threading.Lock()

    @contextmanager
    def at(self, place: Place) -> Iterator[nn.Module]:
        """The model at a place, for the caller alone, until the block ends."""
        with self._lock, torch.inference_mode():
            if self.subspace is not None:
                self.subspace.move_to(place.coefficients)
                for name, buffer in running_statistics(self.model).items():
                    rows = [share * self.statistics[number][name] for number, share in place.shares.items()]
                    buffer.copy_(sum(rows))
            yield self.model

    def log_probabilities(self, places: Sequence[Place], batch: Any) -> Tensor:
        """The logarithm of the mean of the networks' probabilities at places, (samples, ..., classes), on the CPU."""
        found = []
        for place in places:
            with self.at(place) as model:
                args, kwargs = inputs_of(model, batch)
                found.append(logits_of(model(*args, **kwargs)).float().log_softmax(-1).cpu())
        return torch.stack(found).logsumexp(0) - math.log(len(found))
