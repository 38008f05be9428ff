"""A trained network or subspace, measured once so that every position that a visitor chooses is answered at once."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_geo.evaluation.norms import running_statistics
from hf_geo.evaluation.plans import Plan, plan_walk
from hf_geo.evaluation.report import name_positions
from hf_geo.evaluation.walk import Walk, evaluate_models, walk
from hf_geo.metrics.calibration import CalibrationSums
from hf_geo.subspaces import Subspace
from hf_geo.tasks import EvaluationSetup

from .networks import Networks, Place, announce
from .record import Record, by_sample, join, order_samples, take_samples

SHOWN = 24  # samples in the grid
LIVE = 64  # samples that positions between the measured ones are measured on
GROUPS = ("First layers", "Middle layers", "Last layers")
NODES = (0.0, 0.5, 1.0)  # of each group, between which norm statistics are interpolated


@dataclass(frozen=True)
class View:
    """What the page shows of a position.

    Args:
        place: The network's.
        members: Those of the ensemble beside it; empty without one.
        together: Names the ensemble, or says why there is none.
        metrics: Of the network; None where they are not measured.
        joint: Of the ensemble.
        predictions: For each shown sample the number of the predicted class and its probability, of the network and of the ensemble.
        number: Of the position among the measured ones; None between them.
    """

    place: Place
    members: Sequence[Place]
    together: str
    metrics: Mapping[str, float] | None
    joint: Mapping[str, float] | None
    predictions: Sequence[list[tuple[int, float]]]
    number: int | None


class Exploration:
    """The measured positions of a subspace, or a single network, with what is needed to run others.

    Args:
        setup: The model and its data.
        subspace: The subspace; None for a single network.
        positions: Of a path's or triangle's grid.
        seed: Of drawn positions.
        recalibration_batches: See `walk`.
    """

    def __init__(
        self,
        setup: EvaluationSetup,
        subspace: Subspace | None,
        *,
        positions: int,
        seed: int = 0,
        recalibration_batches: int | None = None,
    ) -> None:
        self.setup, self.subspace, self.view_of = setup, subspace, setup.view
        self.causal = setup.causal
        self.groups: list[np.ndarray] = []
        if subspace is None:
            self._measure_network()
        else:
            self._measure_subspace(plan_walk(subspace, positions, seed), recalibration_batches)
        self.shown: list[dict[str, Tensor]] = []
        self.shown_numbers = np.zeros(0, dtype=int)
        if not self.causal:
            record, grid = self.record, range(len(self.found.points))
            order = order_samples(record.predicted[grid], record.confidence[grid], record.labels)
            self.shown_numbers = order[:SHOWN]
            self.shown = take_samples(setup.evaluation, self.shown_numbers.tolist())
        if self.groups and not self.causal:
            self._shown_batches = join(self.shown)
            first = take_samples(setup.evaluation, range(min(LIVE, self.found.samples)))
            self._live = join(first)

    def _measure_network(self) -> None:
        self.plan = None
        announce(self.setup, 1)
        self.record = Record(1, 0, predictions=not self.causal)
        self.found = evaluate_models(
            self.setup.models, self.setup.evaluation, causal=self.causal, add=self.record.adder([0])
        )
        self.places = [Place("", None, {})]
        self.networks = Networks(self.setup.models[0], None, [])

    def _measure_subspace(self, plan: Plan, recalibration_batches: int | None) -> None:
        subspace, shape = self.subspace, self.subspace.config.shape
        self.plan = plan
        rows = plan.coefficients(subspace)
        self.grid = plan.grid if shape.is_path else len(rows)  # no slider shows positions drawn layer by layer
        if subspace.config.layerwise and shape.is_path:
            self.groups = np.array_split(
                np.arange(len(subspace.layer_names)), min(len(GROUPS), len(subspace.layer_names))
            )
        self.first_node = len(rows)
        if self.groups and running_statistics(subspace.model):
            rows += [self._coefficients(values) for values in itertools.product(NODES, repeat=len(self.groups))]
        announce(self.setup, len(rows), recalibration_batches)
        self.record = Record(len(rows), len(plan.ensembles), predictions=not self.causal)
        measured = walk(
            subspace,
            rows,
            self.setup.evaluation,
            self.setup.recalibration,
            ensembles=plan.ensembles,
            recalibration_batches=recalibration_batches,
            causal=self.causal,
            record=self.record,
        )
        within = [row for row in measured.ensembles if max(row["members"]) < self.grid]
        self.found = Walk(measured.points[: self.grid], within, measured.samples, measured.recalibration_samples)
        names = name_positions(plan, subspace.config)
        self.places = [Place(name, row, {i: 1.0}) for i, (name, row) in enumerate(zip(names, rows, strict=False))]
        self.networks = Networks(subspace.model, subspace, self.record.statistics)

    @property
    def centre(self) -> int:
        """The number of the measured position to start from."""
        if self.subspace is None:
            return 0
        points = self.subspace.config.num_points
        return (self.grid - 1) // 2 if self.subspace.config.shape.is_path else points

    @property
    def positions(self) -> list[Any]:
        """The measured positions, as numbers or weights."""
        return [position.tolist() for position in self.plan.positions[: self.grid]]

    @property
    def nodes(self) -> int:
        """Number of networks between whose norm statistics those of other positions are interpolated."""
        return len(self.record.statistics) - self.first_node

    def group_names(self) -> list[tuple[str, str]]:
        """The name of each group of layers, and the layers that it has, in words."""
        layers = [name.removeprefix("timm_model.") for name in self.subspace.layer_names]
        return [
            (name, f"{layers[group[0]]} to {layers[group[-1]]}")
            for name, group in zip(GROUPS, self.groups, strict=False)
        ]

    def at(self, number: int) -> View:
        """A measured position."""
        ensemble = self._ensemble_of(number)
        members, together, joint = [], "", None
        if ensemble is not None:
            row = self.found.ensembles[ensemble]
            members, joint = [self.places[i] for i in row["members"]], row
            together = f"ensemble of {_listed([place.name for place in members])}"
        elif self.subspace is not None:
            together = "at the centre, a and 1 - a are one network"
        return View(
            place=self.places[number],
            members=members,
            together=together,
            metrics=self.found.points[number],
            joint=joint,
            predictions=[] if self.causal else self._kept(number, ensemble),
            number=number,
        )

    def between(self, values: Sequence[float]) -> View:
        """A position of each group of layers, measured on some samples now unless it is measured already."""
        steps = self.grid - 1
        if len(set(values)) == 1:
            return self.at(round(values[0] * steps))
        mirrored = [1 - value for value in values]
        place, other = self._place(values), self._place(mirrored)
        metrics = joint = None
        predictions: list[list[tuple[int, float]]] = []
        if not self.causal:
            labels = torch.cat([batch["labels"] for batch in self._live])
            metrics, joint = (_measured(each, labels) for each in self._run(place, other, self._live))
            found = self._run(place, other, self._shown_batches)
            predictions = by_sample([each.exp().max(-1) for each in found])
        return View(place, [place, other], "ensemble with 1 - a in every group", metrics, joint, predictions, None)

    def own(self, view: View, *fields: str) -> tuple[Tensor, Tensor | None]:
        """The probabilities of a visitor's sample, (classes,), by the network and by its ensemble, if there is one.

        Raises:
            ValueError: The sample cannot be used.
        """
        batch = self.view_of.prepare(*fields)
        found = [
            self.networks.log_probabilities(places, batch).exp() for places in ([view.place], view.members) if places
        ]
        last = [each[0, -1] if self.causal else each[0] for each in found]
        return last[0], last[1] if len(last) > 1 else None

    def _run(self, place: Place, other: Place, batches: Sequence[dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
        """The log-probabilities of the network at a place, and of its ensemble with the one at another."""
        own, mirror = (
            torch.cat([self.networks.log_probabilities([each], batch) for batch in batches]) for each in (place, other)
        )
        return own, torch.logaddexp(own, mirror) - math.log(2)

    def _ensemble_of(self, number: int) -> int | None:
        ensembles = self.found.ensembles
        if self.subspace is None:
            return None
        if self.subspace.config.shape.is_path:
            return next((i for i, row in enumerate(ensembles) if number in row["members"]), None)
        corners = self.subspace.config.num_points - 2  # the ensembles are of the first two, three, ... control points
        return corners if number < self.plan.grid else len(ensembles) - 1

    def _kept(self, number: int, ensemble: int | None) -> list[list[tuple[int, float]]]:
        """The predictions of a measured position, and of an ensemble, for the shown samples."""
        record, chosen = self.record, self.shown_numbers
        rows = [number] if ensemble is None else [number, record.networks + ensemble]
        return by_sample([(record.confidence[row, chosen], record.predicted[row, chosen]) for row in rows])

    def _coefficients(self, values: Sequence[float]) -> Tensor:
        position = torch.zeros(len(self.subspace.layer_names), dtype=torch.float64)
        for value, group in zip(values, self.groups, strict=True):
            position[group] = value
        return self.subspace.config.shape.coefficients(position)

    def _place(self, values: Sequence[float]) -> Place:
        """A position of each group, with norm statistics between those of the nodes around it (multilinear)."""
        ends = []
        for value in values:
            lower = min(int(value * 2), 1)
            share = value * 2 - lower
            ends.append(((lower, 1 - share), (lower + 1, share)))
        shares = {}
        for corner in itertools.product(*ends):
            number = 0
            for index, _ in corner:
                number = number * len(NODES) + index
            share = float(np.prod([weight for _, weight in corner]))
            if share > 0 and self.nodes:
                shares[self.first_node + number] = share
        return Place(_listed([f"{value:.4g}" for value in values]), self._coefficients(values), shares)


def _measured(log_probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    sums = CalibrationSums()
    sums.update(log_probabilities, labels)
    return sums.compute()


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
