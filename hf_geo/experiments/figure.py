"""The figure of a sweep."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_geo.metrics import is_share
from hf_geo.metrics.intervals import interval
from hf_geo.plotting import save, style

from .summary import Summary
from .trials import axis_label, parse_number

MARKERS = "osD^vPX*"


def draw_sweep(summary: Summary, path: str | Path, title: str) -> None:
    """Draws the metric against x, a line for each series, with 95 % intervals over seeds; a star is a line's best x.

    What is swept over is drawn in a panel for each optimizer or variant, its lines coloured from the first value to the last.
    An x at which all trials were lost is a cross at the foot. An infinite x, such as the bound of an unbounded step, has no
    place on the axis: it is a dashed line across. Without x each series is a point.

    Args:
        summary: The results of the sweep.
        path: PNG file to write.
        title: Title of the picture.
    """
    panels = _panels(summary)
    figure = Figure(figsize=(6.4, 4.2) if len(panels) == 1 else (3.6 * len(panels) + 0.6, 4.2), layout="constrained")
    grid = figure.subplots(1, len(panels), sharex=len(panels) == 1, sharey=True, squeeze=False)[0]
    for axes, (name, lines) in zip(grid, panels.items(), strict=True):
        if summary.x is None:
            _draw_points(axes, summary)
            continue
        has_lost = [_draw_line(axes, summary, line, max(len(lines), len(summary.curves))) for line in lines]
        if any(has_lost):
            axes.plot([], [], "x", color="grey", label="diverged or failed")
        _set_scales(axes, summary)
        axes.set_title(name, fontsize="medium")
    _set_labels(grid, summary)
    if summary.x is not None:
        grid[-1].legend(frameon=False, fontsize="small")
    save(figure, path, title)


@dataclass(frozen=True)
class _Line:
    """How a series is drawn: by its label, colour, marker and place among the lines of its panel."""

    series: str
    label: str
    colour: Any
    marker: str
    place: int


def _panels(summary: Summary) -> dict[str, list[_Line]]:
    """Returns the lines of each panel by its title; of a single one, whose series are compared, without title."""
    if not summary.over or summary.x is None:
        names = enumerate(summary.series)
        return {"": [_Line(name, name, f"C{place}", MARKERS[place % len(MARKERS)], place) for place, name in names]}
    places = {curve: place for place, curve in enumerate(summary.curves)}
    shade = {curve: colormaps["viridis"](0.9 * place / max(len(places) - 1, 1)) for curve, place in places.items()}
    return {
        panel: [
            _Line(series[curve], curve, shade[curve], "o", place) for curve, place in places.items() if curve in series
        ]
        for panel, series in summary.panels.items()
    }


def _draw_line(axes: Axes, summary: Summary, line: _Line, num_lines: int) -> bool:
    """Draws one series; returns whether all trials at one of its x were lost."""
    scale = _scale(summary)
    best = summary.best_by_x(line.series)
    is_infinite = best[summary.x].map(parse_number) == math.inf
    for height in scale * best[is_infinite][summary.metric]:
        axes.axhline(height, color=line.colour, linestyle="--", linewidth=1.2, label=f"{line.label} at infinity")
    finite = best[~is_infinite]
    xs = _numbers(finite[summary.x])
    if xs:
        heights, style_of = scale * finite[summary.metric], {"color": line.colour, "marker": line.marker}
        axes.errorbar(xs, heights, _spread(summary, finite), label=line.label, capsize=2, markersize=4, **style_of)
        top = summary.best(finite)
        axes.plot(parse_number(top[summary.x]), scale * top[summary.metric], "*", color=line.colour, markersize=13)
    tried = summary.trials[summary.trials.series == line.series][summary.x]
    lost = sorted(set(_numbers(tried)) - {*xs, math.inf})
    height = 0.03 + 0.03 * (num_lines - 1 - line.place)
    axes.plot(lost, [height] * len(lost), "x", color=line.colour, transform=axes.get_xaxis_transform())
    return bool(lost)


def _draw_points(axes: Axes, summary: Summary) -> None:
    """Draws the best setting of each series as a point; a series that was lost keeps its place."""
    for place, name in enumerate(summary.series):
        best = summary.best_by_x(name)
        if len(best):
            heights = _scale(summary) * best[summary.metric]
            axes.errorbar([place], heights, _spread(summary, best), marker="o", color=f"C{place}", capsize=4)
    axes.set_xticks(range(len(summary.series)), summary.series)
    axes.margins(x=0.15)


def _spread(summary: Summary, settings: pd.DataFrame) -> list[float] | None:
    """Returns half the width of each setting's interval over seeds; None for a single seed."""
    if summary.num_seeds < 2:
        return None
    lows = (interval(row[summary.metric], row["std"], row["count"])[0] for _, row in settings.iterrows())
    return [_scale(summary) * (mean - low) for mean, low in zip(settings[summary.metric], lows, strict=True)]


def _scale(summary: Summary) -> int:
    return 100 if is_share(summary.metric) else 1


def _set_scales(axes: Axes, summary: Summary) -> None:
    xs = sorted({x for x in _numbers(summary.trials[summary.x]) if x is not None and x < math.inf})
    if xs and xs[0] > 0 and (summary.x == "learning_rate" or xs[-1] / xs[0] >= 100):
        axes.set_xscale("log")
    if not (summary.higher_is_better or is_share(summary.metric)):  # losses, perplexities
        axes.set_yscale("log")


def _set_labels(grid: Sequence[Axes], summary: Summary) -> None:
    over = [axis_label(field) for field in summary.searched]
    unit = " (%)" if is_share(summary.metric) else ""
    best_over = f", best {' and '.join(over)}" if over else ""
    best_over += ",\nmean over seeds with 95 % interval" if summary.num_seeds > 1 else ""
    for axes in grid:
        style(axes, xlabel=axis_label(summary.x) if summary.x else "")
    grid[0].set_ylabel(f"{summary.metric.replace('_', ' ')}{unit}{best_over}")


def _numbers(values: pd.Series) -> list[float | None]:
    return [parse_number(value) for value in values]
