"""The figure of a sweep."""

import math
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_geo.metrics import is_share
from hf_geo.plotting import save, style

from .summary import Summary
from .trials import axis_label, parse_number

MARKERS = "osD^vPX*"


def draw_sweep(summary: Summary, path: str | Path, title: str) -> None:
    """Draws the metric against x, a line for each series; an x at which all trials were lost is a cross at the foot.

    An infinite x, such as the bound of an unbounded step, has no place on the axis: it is a dashed line across.

    Args:
        summary: The results of the sweep.
        path: PNG file to write.
        title: Title of the picture.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    has_lost = [_draw_series(axes, summary, number) for number in range(len(summary.series))]
    if any(has_lost):
        axes.plot([], [], "x", color="grey", label="diverged or failed")
    _set_scales(axes, summary)
    _set_labels(axes, summary)
    axes.legend(frameon=False, fontsize="small")
    save(figure, path, title)


def _draw_series(axes: Axes, summary: Summary, number: int) -> bool:
    """Draws one series; returns whether all trials at one of its x were lost."""
    name, scale = summary.series[number], 100 if is_share(summary.metric) else 1
    best = summary.best_by_x(name)
    is_infinite = best[summary.x].map(parse_number) == math.inf
    colour = f"C{number}"
    for height in scale * best[is_infinite][summary.metric]:
        axes.axhline(height, color=colour, linestyle="--", linewidth=1.2, label=f"{name} at infinity")
    best = best[~is_infinite]
    xs = _numbers(best[summary.x])
    spread = scale * best["std"] if summary.num_seeds > 1 else None
    if xs:
        marker = MARKERS[number % len(MARKERS)]
        axes.errorbar(xs, scale * best[summary.metric], spread, marker=marker, color=colour, label=name, capsize=2)
    tried = summary.trials[summary.trials.series == name][summary.x]
    lost = sorted(set(_numbers(tried)) - {*xs, math.inf})
    height = 0.03 + 0.03 * (len(summary.series) - 1 - number)
    crosses = {"color": colour, "transform": axes.get_xaxis_transform()}
    axes.plot(lost, [height] * len(lost), "x", **crosses)
    return bool(lost)


def _set_scales(axes: Axes, summary: Summary) -> None:
    xs = sorted({x for x in _numbers(summary.trials[summary.x]) if x is not None and x < math.inf})
    if xs and xs[0] > 0 and (summary.x == "learning_rate" or xs[-1] / xs[0] >= 100):
        axes.set_xscale("log")
    if not (summary.higher_is_better or is_share(summary.metric)):  # losses, perplexities
        axes.set_yscale("log")


def _set_labels(axes: Axes, summary: Summary) -> None:
    over = [field.replace("_", " ") for field in summary.searched]
    over += ["mean over seeds"] if summary.num_seeds > 1 else []
    unit = " (%)" if is_share(summary.metric) else ""
    best_over = f", best {' and '.join(over)}" if over else ""
    ylabel = f"{summary.metric.replace('_', ' ')}{unit}{best_over}"
    style(axes, xlabel=axis_label(summary.x), ylabel=ylabel)


def _numbers(values: pd.Series) -> list[float | None]:
    return [parse_number(value) for value in values]
