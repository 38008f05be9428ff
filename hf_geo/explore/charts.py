"""Charts as SVG: drawn once by matplotlib, with markers that are put in afterwards at once."""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_geo.evaluation.figures import draw_along, metric_values, shown_metrics
from hf_geo.evaluation.walk import Walk
from hf_geo.plotting import style
from hf_geo.runs.figures import draw_curves, draw_layers, geometry_curves, training_curves

SIZE = (3.7, 2.5)  # inches; the page scales charts to the width it has
DPI = 72  # of an SVG, whose unit is a point
NETWORK, ENSEMBLE = "#1f77b4", "#ff7f0e"  # matplotlib's tab:blue and tab:orange


@dataclass(frozen=True)
class Chart:
    """A chart.

    Args:
        title: Above it, and its name for screen readers.
        svg: The picture; its text and lines take the page's colour.
        to_points: From a point of the data to one of the picture.
        span: The upper and lower end of the axes in the picture.
    """

    title: str
    svg: str
    to_points: Callable[[float, float], tuple[float, float]]
    span: tuple[float, float]

    def marked(self, *marks: tuple[float, float, str]) -> str:
        """The chart with a dot at each (x, y, colour), and a vertical line through the first of them."""
        drawn, (top, bottom) = [], self.span
        for number, (x, y, colour) in reversed(list(enumerate(marks))):
            cx, cy = self.to_points(x, y)
            if math.isfinite(cy):  # where two coincide, both are seen
                drawn.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="{4.5 + number}" fill="{colour}" class="mark"/>')
            if number == 0:
                drawn.insert(0, f'<path class="here" d="M{cx:.1f} {top:.1f}V{bottom:.1f}"/>')
        return self.svg.replace("</svg>", "".join(drawn) + "</svg>")


def draw_chart(title: str, draw: Callable[[Axes], Any]) -> Chart:
    """Draws a chart by a function of its axes."""
    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    axes = figure.subplots()
    draw(axes)
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = re.sub(r"<metadata>.*?</metadata>", "", text.getvalue(), flags=re.DOTALL)
    svg = svg[svg.index("<svg") :].replace("#000000", "currentColor")
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    height = figure.bbox.height
    low, high = axes.bbox.y0, axes.bbox.y1
    transform = axes.transData.frozen()

    def to_points(x: float, y: float) -> tuple[float, float]:
        px, py = transform.transform((x, y))
        return float(px), float(height - py)

    return Chart(title, svg, to_points, (height - high, height - low))


def path_charts(walk: Walk, positions: Sequence[float], titles: Mapping[str, str]) -> dict[str, Chart]:
    """The metrics along a line or curve, by their names."""
    return {
        name: draw_chart(titles[name], lambda axes, name=name: _draw_path(axes, walk, positions, name))
        for name in shown_metrics(walk)
    }


def _draw_path(axes: Axes, walk: Walk, positions: Sequence[float], name: str) -> None:
    draw_along(axes, walk, positions, name)
    if len(set(metric_values(walk.points, name))) == 1:
        axes.margins(y=0.5)


def training_charts(log: Sequence[Mapping[str, Any]], metric: str) -> list[Chart]:
    """The losses and the metric against the update, as far as a Trainer's log has them."""
    return [
        draw_chart(title.replace("_", " ").capitalize(), lambda axes, curves=curves: draw_curves(axes, curves, ""))
        for title, curves in training_curves(log, metric).items()
    ]


def geometry_charts(log: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """What each update did to each layer, where a log has that."""
    return [
        draw_chart(title, lambda axes, layers=layers: draw_layers(axes, layers, ""))
        for title, layers in geometry_curves(log).items()
    ]


def reliability_chart(bars: Sequence[tuple[int, float, float]]) -> Chart:
    """Accuracy against confidence, from the bars of `hf_geo.metrics.trust.reliability`; dots as large as their share."""
    counts, accuracy, confidence = np.array(bars).T

    def draw(axes: Axes) -> None:
        axes.plot([0, 100], [0, 100], color="grey", linewidth=1, linestyle=":", label="calibrated")
        axes.plot(100 * confidence, 100 * accuracy, color=NETWORK, linewidth=1.2)
        axes.scatter(100 * confidence, 100 * accuracy, s=12 + 90 * counts / counts.sum(), color=NETWORK)
        style(axes, xlabel="confidence (%)", ylabel="accuracy (%)")
        axes.legend(frameon=False, fontsize="small")

    return draw_chart("Reliability", draw)
