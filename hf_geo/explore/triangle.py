"""A simplex of three control points as a triangle of measured positions that a visitor selects."""

import math
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from .html import shown_value

WIDTH, HEIGHT, MARGIN = 300, 260, 26
CORNERS = np.array([[0, HEIGHT], [WIDTH, HEIGHT], [WIDTH / 2, 0]]) + MARGIN
SCRIPT = Path(__file__).with_name("triangle.js")


def triangle(
    weights: Sequence[Sequence[float]], names: Sequence[str], metric: str, values: Sequence[float], selected: int
) -> gr.HTML:
    """The triangle, whose value is the number of the selected position; it triggers `input`.

    Args:
        weights: Of the three control points at each position.
        names: Of the positions.
        metric: What the colours show.
        values: The metric at each position.
        selected: The position to start from.
    """
    finite = [value for value in values if value is not None and math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    radius = 9 if len(weights) <= 45 else 6
    dots = []
    for number, (place, name, value) in enumerate(zip(weights, names, values, strict=True)):
        x, y = np.asarray(place) @ CORNERS
        share = (value - low) / (high - low) if value in finite and high > low else 0.5
        dots.append(
            f'<circle class="place" role="radio" cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{to_hex(colormaps["viridis"](share))}"'
            f' data-number="{number}" tabindex="${{value == {number} ? 0 : -1}}" aria-checked="${{value == {number}}}"'
            f' aria-label="{name}: {shown_value(metric, value)}"><title>{name}: {shown_value(metric, value)}</title></circle>'
        )
    edges = " ".join(f"{x},{y}" for x, y in CORNERS)
    labels = "".join(
        f'<text x="{x}" y="{y + (-16 if number == 2 else 22)}" text-anchor="middle">point {number}</text>'
        for number, (x, y) in enumerate(CORNERS)
    )
    scale = f"dark {shown_value(metric, low)}, bright {shown_value(metric, high)}"
    return gr.HTML(
        value=str(selected),
        html_template=(
            f'<svg class="triangle" role="radiogroup" aria-label="Position in the triangle" viewBox="0 0 {WIDTH + 2 * MARGIN}'
            f' {HEIGHT + 2 * MARGIN}"><polygon points="{edges}" fill="none" stroke="currentColor" stroke-opacity=".3"/>{labels}'
            f'{"".join(dots)}</svg><p class="note" style="text-align:center">{metric.replace("_", " ")}: {scale}</p>'
        ),
        js_on_load=SCRIPT.read_text(encoding="utf-8"),
        elem_id="triangle",
    )
