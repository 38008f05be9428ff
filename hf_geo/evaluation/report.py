"""A walk as data, as a table, as pictures, and as a section of a model card."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_geo.subspaces import SubspaceConfig
from hf_geo.subspaces.shapes import SHAPES

from .figures import draw_distances, draw_path, draw_triangle
from .plans import Plan
from .walk import Walk

_COLUMNS = {
    "perplexity": "perplexity",
    "accuracy": "accuracy",
    "nll": "NLL",
    "brier": "Brier",
    "ece": "ECE",
    "total_variation": "total variation",
}
_FIRST = "network or ensemble"
_SHARES = ("accuracy", "ece", "total_variation")
_START, _END = "<!-- walk -->", "<!-- end of walk -->"


def name_positions(plan: Plan, config: SubspaceConfig) -> list[str]:
    """A short name for each position of a plan."""
    names = []
    for index, position in enumerate(plan.positions):
        if index >= plan.grid:
            names.append(f"layer-wise draw {index - plan.grid + 1}")
        elif config.shape.is_path:
            names.append(f"{position.item():.4g}")
        else:
            names.append("(" + ", ".join(f"{w:.3g}" for w in position.tolist()) + ")")
    return names


def as_data(
    walk: Walk, names: Sequence[str], positions: Sequence[Any], config: SubspaceConfig | None = None
) -> dict[str, Any]:
    """Plain data for JSON.

    Args:
        walk: What was measured.
        names: Of its points.
        positions: Of its points; None for a model that has none.
        config: Of the subspace that was walked, if it was one.
    """
    return {
        "subspace": config and {"kind": config.kind, "num_points": config.num_points},
        "samples": walk.samples,
        "recalibration_samples": walk.recalibration_samples,
        "points": [
            {"name": name, "position": position, **row}
            for name, position, row in zip(names, positions, walk.points, strict=True)
        ],
        "ensembles": [
            {
                **row,
                "members": [names[m] for m in row["members"]],
                "member_accuracies": [walk.points[m]["accuracy"] for m in row["members"]],
            }
            for row in walk.ensembles
        ],
    }


def as_table(data: Mapping[str, Any]) -> str:
    """The data of `as_data` as a Markdown table, shares in per cent."""
    rows = [(row["name"], row) for row in data["points"]]
    rows += [(" + ".join(row["members"]), row) for row in data["ensembles"]]
    first = max(len(_FIRST), *(len(name) for name, _ in rows))
    columns = {column: title for column, title in _COLUMNS.items() if any(column in row for _, row in rows)}
    widths = {column: max(len(title), 8) for column, title in columns.items()}
    titles = (title.rjust(widths[column]) for column, title in columns.items())
    lines = [f"| {_FIRST.ljust(first)} | {' | '.join(titles)} |"]
    lines.append(f"|{'-' * (first + 2)}|{'|'.join('-' * (width + 1) + ':' for width in widths.values())}|")
    for name, row in rows:
        cells = (_shown(column, row.get(column)).rjust(width) for column, width in widths.items())
        lines.append(f"| {name.ljust(first)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(column: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{100 * value:.2f} %" if column in _SHARES else f"{value:.4f}"


def draw(data: Mapping[str, Any], folder: str | Path, title: str = "") -> dict[str, str]:
    """Draws the walk of a subspace into `folder`; returns file names with captions.

    Lines and curves are drawn along their position, simplexes against the distance from the centre and, with three
    points, as a heat map. Layer-wise draws are in the data and not in the pictures.

    Args:
        data: As of `as_data`.
        folder: Made if missing.
        title: Above each picture.
    """
    folder, kind = Path(folder), data["subspace"]["kind"]
    # A layer-wise position has one more axis than those of the grid.
    points = [row for row in data["points"] if np.ndim(row["position"]) == np.ndim(data["points"][0]["position"])]
    numbers = {row["name"]: number for number, row in enumerate(points)}
    ensembles = [
        {**row, "members": [numbers[name] for name in row["members"]]}
        for row in data["ensembles"]
        if numbers.keys() >= set(row["members"])
    ]
    grid = Walk(points, ensembles, data["samples"], data["recalibration_samples"])
    positions = [row["position"] for row in points]
    what = "Perplexity" if "perplexity" in points[0] else "Accuracy"
    if SHAPES[kind].is_path:
        draw_path(grid, positions, folder / "walk.png", title)
        return {"walk.png": f"{what} and calibration along the {kind}"}
    figures = {"distances.png": f"{what} against the distance from the centre of the simplex"}
    draw_distances(grid, positions, folder / "distances.png", title)
    if data["subspace"]["num_points"] == 3:
        draw_triangle(grid, positions, folder / "triangle.png", title)
        figures["triangle.png"] = f"{what} over the simplex"
    return figures


def note_on(data: Mapping[str, Any]) -> str:
    """A sentence on what the figures of `as_data` were measured on."""
    note = f"Measured on {data['samples']:,} predictions on the {data['split']} split"
    if data["recalibration_samples"]:
        note += f", with norm statistics of {data['recalibration_samples']:,} training samples at each position"
    return note + "."


def add_to_card(card: str, figures: Mapping[str, str], table: str, note: str) -> str:
    """A model card with a walk in place of an earlier one, or else before "How it was trained" or at the end.

    Args:
        card: The text of a README.md.
        figures: Paths from the card's folder, with captions.
        table: Markdown.
        note: A sentence on what was measured.
    """
    pictures = "\n\n".join(f"![{caption}]({path})" for path, caption in figures.items())
    section = (
        f"{_START}\n## Along the subspace\n\n{pictures}\n\n{note}\n\n<details><summary>All values</summary>\n\n"
        f"{table}\n\n</details>\n{_END}\n\n"
    )
    if _START in card and _END in card:
        before, rest = card.split(_START, 1)
        return before + section.rstrip("\n") + rest.split(_END, 1)[1]
    before, heading, after = card.partition("## How it was trained")
    return before + section + heading + after if heading else card.rstrip("\n") + "\n\n" + section
