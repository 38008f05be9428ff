"""Draws figures of a walk."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation

from hf_geo.plotting import save, style

from .walk import Walk

_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]])
_ENSEMBLE, _SINGLE = "tab:orange", "tab:blue"


def draw_path(walk: Walk, positions: Sequence[float], path: str | Path, title: str = "") -> None:
    """Draws a line or curve, with the ensemble of each position and its mirror: accuracy, likelihood, calibration error.

    Args:
        walk: With two-member ensembles of positions a and 1 - a, if any.
        positions: Of `walk.points`, ascending from 0 to 1.
        path: PNG file to write; its folder is made.
        title: Title above the panels.
    """
    names = shown_metrics(walk)
    figure = Figure(figsize=(4.2 * len(names), 3.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names)), names, strict=True):
        draw_along(axes, walk, positions, name)
        values = metric_values(walk.points, name)
        marked = {"color": _SINGLE, "markeredgecolor": "black", "linestyle": ""}
        axes.plot(positions[:: len(positions) - 1], values[:: len(values) - 1], marker="s", label="ends", **marked)
        if 0.5 in positions:
            centre = values[list(positions).index(0.5)]
            axes.plot([0.5], [centre], marker="*", markersize=11, label="centre", **marked)
    axes.legend(frameon=False, fontsize="small")
    save(figure, path, title)


def shown_metrics(walk: Walk) -> list[str]:
    """The metrics of a walk that are drawn: of language models the perplexity, whose logarithm is the likelihood's."""
    return [name for name in _SHOWN if name in walk.points[0] and (name != "nll" or _main(walk) == "accuracy")]


def draw_along(axes: Axes, walk: Walk, positions: Sequence[float], name: str) -> None:
    """Draws a metric along a line or curve, of single networks and of the ensemble of each position and its mirror."""
    axes.plot(
        positions, metric_values(walk.points, name), color=_SINGLE, marker=".", linewidth=1.4, label="one network"
    )
    if walk.ensembles:
        rows = zip(walk.ensembles, metric_values(walk.ensembles, name), strict=True)
        x, y = zip(*sorted((positions[m], value) for row, value in rows for m in row["members"]), strict=True)
        axes.plot(x, y, color=_ENSEMBLE, linestyle="--", linewidth=1.4, label="ensemble of a and 1 - a")
    style(axes, xlabel="position", ylabel=_SHOWN[name][0])


def draw_triangle(walk: Walk, weights: Sequence[Sequence[float]], path: str | Path, title: str = "") -> None:
    """Draws the accuracy (of language models the perplexity) over a simplex of three points as a heat map.

    Args:
        walk: Measured at `weights`.
        weights: Barycentric weights of `walk.points`, three each.
        path: PNG file to write; its folder is made.
        title: Title of the figure.
    """
    figure = Figure(figsize=(5.0, 4.0), layout="constrained")
    axes = figure.subplots()
    x, y = (np.asarray(weights) @ _CORNERS).T
    name = _main(walk)
    drawn = axes.tripcolor(Triangulation(x, y), metric_values(walk.points, name), shading="gouraud", cmap="viridis")
    axes.plot(x, y, ".", color="white", markersize=3, alpha=0.7)
    for number, (cx, cy) in enumerate(_CORNERS):
        above = (0, 8 if cy else -12)
        axes.annotate(f"point {number}", (cx, cy), above, textcoords="offset points", ha="center", fontsize="small")
    axes.set_aspect("equal")
    axes.margins(0.12)
    axes.axis("off")
    figure.colorbar(drawn, ax=axes, label=_SHOWN[name][0], shrink=0.8)
    save(figure, path, title)


def draw_distances(walk: Walk, weights: Sequence[Sequence[float]], path: str | Path, title: str = "") -> None:
    """Draws accuracy (of language models perplexity) against distance from a simplex's centre, in units of a control point's.

    Args:
        walk: Measured at `weights`; an ensemble of all control points, if any, is drawn as a line.
        weights: Barycentric weights of `walk.points`.
        path: PNG file to write; its folder is made.
        title: Title of the figure.
    """
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.subplots()
    name = _main(walk)
    weights = np.asarray(weights)
    count = weights.shape[1]
    distances = np.linalg.norm(weights - 1 / count, axis=1) / (1 - 1 / count) ** 0.5
    axes.plot(distances, metric_values(walk.points, name), ".", color=_SINGLE, label="one network")
    for row, value in zip(walk.ensembles, metric_values(walk.ensembles, name), strict=True):
        if np.allclose(distances[row["members"]], 1) and len(row["members"]) == count:
            axes.axhline(value, color=_ENSEMBLE, linestyle="--", label=f"ensemble of the {count} control points")
    style(axes, xlabel="distance from the centre (control points at 1)", ylabel=_SHOWN[name][0])
    axes.legend(frameon=False, fontsize="small")
    save(figure, path, title)


def draw_segment(
    curves: Mapping[str, Sequence[dict]], positions: Sequence[float], path: str | Path, title: str = ""
) -> None:
    """Draws accuracy (of language models perplexity) and loss along the segment between two networks.

    Args:
        curves: Rows of `Walk.points` by the name of the curve, such as a data set's.
        positions: Of these rows, ascending from 0 to 1.
        path: PNG file to write; its folder is made.
        title: Title above the panels.
    """
    rows = next(iter(curves.values()))
    names = [name for name in _SHOWN if name in rows[0] and name != "ece"]
    figure = Figure(figsize=(4.6 * len(names), 3.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names)), names, strict=True):
        for label, points in curves.items():
            axes.plot(positions, metric_values(points, name), marker=".", linewidth=1.4, label=label)
        style(axes, xlabel="position between the two networks", ylabel=_SHOWN[name][0])
    axes.legend(frameon=False, fontsize="small")
    save(figure, path, title)


def draw_trust(rows: Mapping[str, Mapping], path: str | Path, title: str = "") -> None:
    """Draws reliability diagrams, before and after temperature scaling where there is one, and risk against coverage.

    Args:
        rows: Values of `hf_geo.evaluation.trust` by the name of the network or ensemble.
        path: PNG file to write; its folder is made.
        title: Title above the panels.
    """
    diagrams = {"reliability": "as it is", "scaled_reliability": "at its temperature"}
    diagrams = {key: label for key, label in diagrams.items() if key in next(iter(rows.values()))}
    figure = Figure(figsize=(4.2 * (len(diagrams) + 1), 3.6), layout="constrained")
    *left, last = figure.subplots(1, len(diagrams) + 1)
    for axes, (key, label) in zip(left, diagrams.items(), strict=True):
        axes.plot([0, 100], [0, 100], color="grey", linewidth=1, linestyle=":")
        for row in rows.values():
            _, accuracy, confidence = zip(*row[key], strict=True)
            axes.plot(100 * np.array(confidence, float), 100 * np.array(accuracy, float), marker=".", linewidth=1.4)
        style(axes, title=label, xlabel="confidence (%)", ylabel="accuracy (%)")
    for name, row in rows.items():
        coverage, risk = 100 * np.array(row["risk_coverage"], float).T
        last.plot(coverage, risk, marker=".", linewidth=1.4, label=name)
    style(last, title="when unsure predictions are left out", xlabel="coverage (%)", ylabel="error (%)")
    last.legend(frameon=False, fontsize="small")
    save(figure, path, title)


def draw_severities(rows: Sequence[tuple[int, Mapping[str, Mapping]]], path: str | Path, title: str = "") -> None:
    """Draws accuracy and calibration error against the severity of corruptions, as means over their kinds.

    Args:
        rows: A severity, 0 for images as they are, and the values by the name of the network or ensemble.
        path: PNG file to write; its folder is made.
        title: Title above the panels.
    """
    figure = Figure(figsize=(9.2, 3.4), layout="constrained")
    severities = sorted({severity for severity, _ in rows})
    for axes, name in zip(figure.subplots(1, 2), ("accuracy", "ece"), strict=True):
        for network in rows[0][1]:
            values = [
                metric_values([row[network] for s, row in rows if s == severity], name) for severity in severities
            ]
            axes.plot(severities, [np.mean(some) for some in values], marker=".", linewidth=1.4, label=network)
        style(axes, xlabel="severity of the corruption", ylabel=_SHOWN[name][0])
        axes.set_xticks(severities)
    axes.legend(frameon=False, fontsize="small")
    save(figure, path, title)


# Axis label and factor. Language models have a perplexity, whose logarithm is the likelihood's.
_SHOWN = {
    "accuracy": ("accuracy (%)", 100),
    "perplexity": ("perplexity", 1),
    "nll": ("negative log-likelihood", 1),
    "ece": ("calibration error (%)", 100),
}


def metric_values(rows: Sequence[dict], name: str) -> list[float]:
    """A metric of rows of a walk as it is drawn: shares in per cent."""
    return [math.nan if row[name] is None else _SHOWN[name][1] * row[name] for row in rows]  # JSON has no nan


def _main(walk: Walk) -> str:
    return "perplexity" if "perplexity" in walk.points[0] else "accuracy"
