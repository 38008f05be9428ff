"""Figures of a run, from the Trainer's own log."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from hf_geo.plotting import save, style

COLOURS = {"training": "tab:blue", "evaluation": "tab:orange"}
Points = list[tuple[int, float]]


def training_curves(log_history: Sequence[Mapping[str, Any]], metric: str) -> dict[str, dict[str, Points]]:
    """The losses and the evaluation metric of a log: points (update, value) by quantity and by "training" or "evaluation"."""
    panels = {"loss": {"training": "loss", "evaluation": "eval_loss"}, metric: {"evaluation": f"eval_{metric}"}}
    found = {}
    for label, keys in panels.items():
        points = {name: [(r["step"], _number(r[key])) for r in log_history if key in r] for name, key in keys.items()}
        if any(points.values()):
            found[label] = {name: rows for name, rows in points.items() if rows}
    return found


def draw_curves(axes: Axes, curves: Mapping[str, Points], label: str) -> None:
    """Draws one of the panels of `training_curves`."""
    for name, points in curves.items():
        marker = "." if len(points) < 40 else ""
        axes.plot(*zip(*points, strict=True), color=COLOURS[name], label=name, marker=marker, linewidth=1.4)
    _style(axes, label)
    axes.legend(frameon=False)


def draw_training_curves(
    log_history: Sequence[Mapping[str, Any]], metric: str, path: str | Path, title: str = ""
) -> None:
    """Draws the losses and the evaluation metric against the update.

    Args:
        log_history: `trainer.state.log_history`.
        metric: What was evaluated besides the loss, such as "accuracy".
        path: PNG file to write; its folder is made.
        title: Title above both panels.
    """
    panels = training_curves(log_history, metric)
    figure = Figure(figsize=(4.6 * max(len(panels), 1), 3.2), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)[0] if panels else []
    for axes, (label, curves) in zip(grid, panels.items(), strict=True):
        draw_curves(axes, curves, label)
    save(figure, path, title)


GEOMETRY = {
    "weight_norm": "weight norm",
    "grad_norm": "gradient norm",
    "relative_update": "relative update",
    "spectral_norm": "spectral norm of the weight",
    "spectral_update": "spectral norm of the step",
    "effective_lr": "lr / |w|²",
    "angle": "mean angle of a step (rad)",
}


def geometry_curves(log_history: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Points]]:
    """The measures of `--log_geometry` in a log: points (update, value) by quantity and layer; empty without any."""
    rows = [row for row in log_history if any(key.startswith("geometry/") for key in row)]
    curves: dict[str, dict[str, Points]] = {}
    for row in rows:
        for key, value in row.items():
            if key.startswith("geometry/"):
                kind, _, layer = key.removeprefix("geometry/").partition("/")
                label = GEOMETRY.get(kind, "step size")
                curves.setdefault(label, {}).setdefault(layer or kind, []).append((row["step"], _number(value)))
    return curves


def draw_layers(axes: Axes, layers: Mapping[str, Points], label: str) -> None:
    """Draws one of the panels of `geometry_curves`, from the first layer (dark) to the last (bright)."""
    for i, points in enumerate(layers.values()):
        colour = colormaps["viridis"](i / max(len(layers) - 1, 1))
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=1)
    _style(axes, label, yscale="log")


def draw_geometry(log_history: Sequence[Mapping[str, Any]], path: str | Path, title: str = "") -> bool:
    """Draws the measures of `--log_geometry`: a panel a quantity, a line a layer, coloured from the first to the last.

    Args:
        log_history: `trainer.state.log_history`.
        path: PNG file to write; its folder is made.
        title: Title above the panels.

    Returns:
        Whether there was anything to draw.
    """
    curves = geometry_curves(log_history)
    if not curves:
        return False
    figure = Figure(figsize=(3.4 * min(len(curves), 3), 2.9 * -(-len(curves) // 3)), layout="constrained")
    grid = figure.subplots(-(-len(curves) // 3), min(len(curves), 3), squeeze=False).flat
    for axes in grid[len(curves) :]:
        axes.remove()
    for axes, (label, lines) in zip(grid, curves.items(), strict=False):
        draw_layers(axes, lines, label)
    save(figure, path, f"{title}: a line a layer, from the first (dark) to the last (bright)")
    return True


_BY_SIZE = re.compile(r"(.+)/(\w+)=(\d+),(\w+)=(\d+)")


def draw_by_size(results: Mapping[str, Any], metric: str, path: str | Path, title: str = "") -> bool:
    """Draws a metric by two sizes of the samples as a heat map, of the split that was measured at most sizes.

    Args:
        results: What was measured; of each split and size "eval_accuracy/length=2,repeats=1" and so on. The sizes of the
            split "eval" are framed.
        metric: A share, such as "accuracy".
        path: PNG file to write; its folder is made.
        title: Title above the map.

    Returns:
        Whether there was anything to draw.
    """
    cells: dict[str, dict[tuple[int, int], float]] = {}
    names = ("", "")
    for key, value in results.items():
        if (found := _BY_SIZE.fullmatch(key)) and found[1].endswith(f"_{metric}"):
            names = found[2], found[4]
            split = found[1].removesuffix(f"_{metric}")
            cells.setdefault(split, {})[int(found[3]), int(found[5])] = 100 * _number(value)
    if not cells:
        return False
    split = max(cells, key=lambda name: len(cells[name]))
    across, up = (sorted({size[axis] for size in cells[split]}) for axis in (0, 1))
    grid = [[cells[split].get((x, y), math.nan) for x in across] for y in up]
    figure = Figure(figsize=(1.6 + 0.6 * len(across), 1.4 + 0.5 * len(up)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(grid, vmin=0, vmax=100, origin="lower", cmap="viridis", aspect="auto")
    for row, values in enumerate(grid):
        for column, value in enumerate(values):
            colour = "black" if value > 60 else "white"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize="small")
    for x, y in cells.get("eval", ()):
        corner = across.index(x) - 0.5, up.index(y) - 0.5
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="tab:red", linewidth=2))
    axes.set(xticks=range(len(across)), xticklabels=across, yticks=range(len(up)), yticklabels=up)
    axes.set(xlabel=names[0], ylabel=names[1])
    save(figure, path, title)
    return True


def _style(axes: Axes, label: str, **settings: str) -> None:
    style(axes, xlabel="update", ylabel=label.replace("_", " "), **settings)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def _number(value: float | None) -> float:
    """A number of a log as a float; JSON has None for one that is not finite."""
    return math.nan if value is None else value
