"""The methods of scripts/merge.py: what each makes of the networks it is given."""

import argparse
import functools
import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from hf_geo.data.config import DataArguments
from hf_geo.evaluation.merging import barrier, greedy_soup
from hf_geo.evaluation.plans import even_positions
from hf_geo.evaluation.trust import TrustData
from hf_geo.evaluation.walk import Walk
from hf_geo.metrics import higher_is_better
from hf_geo.metrics.directions import nan_is_worst

from .merging import Parents

CONNECTED = 0.02  # an error barrier below this counts as none (Frankle et al. 2020)


@dataclass
class Merge:
    """What a method found.

    Args:
        found: Metrics of networks on the test split.
        names: Of these networks.
        conclusion: A sentence on them.
        coefficients: Of each parent in the merged network; None where there is none.
        state: The merged weights.
        positions: Of the curves.
        curves: Rows of metrics along the segment between two networks, by the name of the curve.
        more: Further results.
    """

    found: Walk
    names: Sequence[str]
    conclusion: str
    coefficients: Sequence[float] | None = None
    state: Mapping[str, Tensor] | None = None
    positions: Sequence[float] = ()
    curves: Mapping[str, Sequence[dict]] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)


def find_barrier(parents: Parents, options: argparse.Namespace, data_args: DataArguments) -> Merge:
    """Walks the segment between two networks, with norm statistics taken anew and without."""
    positions = even_positions(options.positions).tolist()
    walks = {"statistics taken anew": parents.walk(positions, parents.setup.evaluation)}
    if parents.takes_statistics:
        walks["statistics interpolated"] = parents.walk(positions, parents.setup.evaluation, recalibrate=False)
    else:
        walks = {"weights interpolated": walks["statistics taken anew"]}
    curves = {name: found.points for name, found in walks.items()}
    heights = {
        name: {"error": barrier([1 - row["accuracy"] for row in rows]), "loss": barrier([row["loss"] for row in rows])}
        for name, rows in curves.items()
    }
    shown = "; ".join(f"{name}: {100 * h['error']:.2f} % error, loss {h['loss']:.4f}" for name, h in heights.items())
    finite = [height["error"] for height in heights.values() if math.isfinite(height["loss"])]
    if not finite:
        verdict = "A loss on the way is not finite, so the barrier is infinite: do not average them."
    elif min(finite) < CONNECTED:
        verdict = (
            "They are linearly connected: the networks between them are no worse than the two ends, "
            f"up to {CONNECTED:.0%} error."
        )
    else:
        verdict = (
            "They are not linearly connected, as networks of different initialisations are not even where all names match: "
            "do not average them."
        )
    names = [f"{position:.4g}" for position in positions]
    conclusion = f"Barrier ({shown}). {verdict}"
    found = next(iter(walks.values()))
    return Merge(found, names, conclusion, positions=positions, curves=curves, more={"barrier": heights})


def make_average(parents: Parents, options: argparse.Namespace, data_args: DataArguments) -> Merge:
    """Averages the networks with given or equal coefficients."""
    count = len(parents.states)
    try:
        coefficients = [float(word) for word in (options.coefficients or "").split(",") if word] or [1 / count] * count
    except ValueError as error:
        raise ValueError(f"--coefficients are numbers separated by commas, not {options.coefficients!r}.") from error
    return average_of(coefficients, parents)


def make_greedy_soup(parents: Parents, options: argparse.Namespace, data_args: DataArguments) -> Merge:
    """Averages the networks that make the average no worse on the validation split."""
    metric = options.metric or parents.task.metric
    score = functools.partial(parents.score, metric)
    members, best = greedy_soup(parents.states, score, higher_is_better=higher_is_better(metric))
    coefficients = [1 / len(members) if index in members else 0 for index in range(len(parents.states))]
    merge = average_of(coefficients, parents)
    merge.conclusion = f"The soup has {len(members)} of {len(coefficients)} networks, with a validation {metric} of {best:.4f}. {merge.conclusion}"
    merge.more = {"validation": {"metric": metric, "value": best}}
    return merge


def interpolate_between(parents: Parents, options: argparse.Namespace, data_args: DataArguments) -> Merge:
    """Walks the segment from the first to the second network on every data set, and takes one position of it."""
    positions = even_positions(options.positions).tolist()
    trust = None
    if options.select_position:
        trust = TrustData(parents.validation)
    own = parents.walk(positions, parents.setup.evaluation, trust=trust).points
    curves = {parents.setup.dataset: own}
    for name in options.also_dataset or ():
        shown, loader = parents.open_also(name, data_args)
        curves[_unused(shown, curves)] = parents.walk(positions, loader).points
    position, chosen = 0.5 if options.position is None else options.position, ""
    if options.select_position:
        best = min(range(len(own)), key=lambda index: nan_is_worst(own[index]["validation_loss"]))
        position = positions[best]
        chosen = f"The validation loss chooses position {position:.4g}. "
    merge = average_of([1 - position, position], parents)
    merge.conclusion = f"{chosen}{merge.conclusion}"
    merge.positions, merge.curves, merge.more = positions, curves, {"position": position}
    return merge


def average_of(coefficients: Sequence[float], parents: Parents) -> Merge:
    """A weighted average, measured beside its parents."""
    state = parents.combine(coefficients)
    after = parents.measure(state, parents.setup.evaluation)
    before = [parents.measure(own, parents.setup.evaluation).points[0] for own in parents.states]
    merged = after.points[0]
    losses = [row["loss"] for row in before]
    named = ", ".join(f"{name} has {loss:.4f}" for name, loss in zip(parents.names, losses, strict=True))
    conclusion = f"The average has loss {merged['loss']:.4f}; {named}."
    if nan_is_worst(merged["loss"]) > max(map(nan_is_worst, losses)):
        conclusion += (
            " It is worse than each of them. Networks of different initialisations have no good average even where all names "
            "match: --method barrier shows whether these do."
        )
    found = Walk([*before, merged], [], after.samples, parents.recalibrated)
    return Merge(found, [*parents.names, "merged"], conclusion, coefficients, state)


def _unused(name: str, used: Collection[str]) -> str:
    """The name, with a number from 2 on where it is used already."""
    numbered = (f"{name} ({number})" for number in itertools.count(2))
    return next(each for each in itertools.chain([name], numbered) if each not in used)


MERGES = {
    "barrier": find_barrier,
    "average": make_average,
    "greedy": make_greedy_soup,
    "interpolate": interpolate_between,
}
