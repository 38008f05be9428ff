"""The networks of a subspace, run for one visitor at a time at positions whose norm statistics are known."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hf_geo.evaluation.batches import inputs_of, logits_of
from hf_geo.evaluation.norms import Statistics, running_statistics
from hf_geo.subspaces import Subspace


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

    def probabilities(self, places: Sequence[Place], batch: Any) -> Tensor:
        """The mean of the networks' probabilities at places, (samples, ..., classes)."""
        found = []
        for place in places:
            with self.at(place) as model:
                args, kwargs = inputs_of(model, batch)
                found.append(logits_of(model(*args, **kwargs)).float().softmax(-1))
        return torch.stack(found).mean(0)
