"""A walk as data, as a table, as figures, and as a section of a model card."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_geo.markdown import format_table, replace_section
from hf_geo.metrics import is_share
from hf_geo.metrics.directions import nan_is_worst
from hf_geo.subspaces import SubspaceConfig
from hf_geo.subspaces.shapes import SHAPES

from .figures import draw_distances, draw_path, draw_severities, draw_triangle, draw_trust
from .plans import Plan
from .walk import Walk

_TITLES = {"fid": "FID", "frechet_distance": "Fréchet distance", "precision": "precision", "recall": "recall",
           "perplexity": "perplexity", "accuracy": "accuracy", "nll": "NLL", "brier": "Brier", "ece": "ECE",
           "total_variation": "total variation", "disagreement": "disagreement", "adaptive_ece": "adaptive ECE", "aurc": "AURC", "temperature": "T",
           "scaled_nll": "NLL at T", "scaled_ece": "ECE at T", "ood_auroc": "OOD AUROC", "ood_fpr95": "OOD FPR95",
           "validation_loss": "validation loss", "features": "features", "protocol": "protocol"}  # fmt: skip


def name_positions(plan: Plan, config: SubspaceConfig) -> list[str]:
    """Names each position of a plan."""
    names = []
    for index, position in enumerate(plan.positions):
        if index >= plan.grid:
            names.append(f"{'layer-wise ' if config.layerwise else ''}draw {index - plan.grid + 1}")
        elif config.shape.is_path:
            names.append(f"{position.item():.4g}")
        else:
            names.append("(" + ", ".join(f"{w:.3g}" for w in position.tolist()) + ")")
    return names


def as_data(
    walk: Walk, names: Sequence[str], positions: Sequence[Any], config: SubspaceConfig | None = None
) -> dict[str, Any]:
    """A walk as plain data for JSON.

    Args:
        walk: The walk.
        names: A name for each of its points.
        positions: The position of each point, as plain numbers; None for independent models.
        config: Configuration of the subspace, if one was walked.
    """
    points = zip(names, positions, walk.points, strict=True)
    return {
        "subspace": config and {"kind": config.kind, "num_points": config.num_points, "layerwise": config.layerwise},
        "samples": walk.samples,
        "recalibration_samples": walk.recalibration_samples,
        "points": [{"name": name, "position": position, **row} for name, position, row in points],
        "ensembles": [
            {
                **row,
                "members": [names[m] for m in row["members"]],
                "member_accuracies": [walk.points[m]["accuracy"] for m in row["members"]],
            }
            for row in walk.ensembles
        ],
    }


def select_position(data: Mapping[str, Any]) -> dict[str, Any]:
    """The row of the data of `as_data` whose network has the lowest loss on the validation split; NaN is the highest."""
    return min(data["points"], key=lambda row: nan_is_worst(row["validation_loss"]))


def as_table(data: Mapping[str, Any]) -> str:
    """The data of `as_data` as a Markdown table, aligned for terminals, with shares in per cent."""
    rows = [(row["name"], row) for row in data["points"]]
    rows += [(" + ".join(row["members"]), row) for row in data["ensembles"]]
    columns = [column for column in _TITLES if any(column in row for _, row in rows)]
    lines = [["network or ensemble", *(_TITLES[column] for column in columns)]]
    lines += [[name, *(_format(column, row.get(column)) for column in columns)] for name, row in rows]
    first, *widths = (max(map(len, cells)) for cells in zip(*lines, strict=True))
    titles, *aligned = (
        [name.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))]
        for name, *cells in lines
    )
    return format_table(titles, aligned)


def shift_table(data: Mapping[str, Any]) -> str:
    """Accuracy and calibration error of chosen networks on each shifted data set, as a Markdown table; empty without any."""
    if not data.get("shifts"):
        return ""
    names = list(_chosen_rows(data))
    columns = [f"{_TITLES[column]} of {name}" for name in names for column in ("accuracy", "ece")]
    rows = []
    for shift in [{"shift": "none", **data}, *data["shifts"]]:
        found = _chosen_rows(data, shift)
        values = [_format(column, found[name][column]) for name in names for column in ("accuracy", "ece")]
        rows.append([shift["shift"], shift.get("severity") or "", *values])
    return "\n" + format_table(["shift", "severity", *columns], rows) + "\n"


def _format(column: str, value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{100 * value:.2f} %" if is_share(column) else f"{value:.4f}"


def draw(data: Mapping[str, Any], folder: str | Path, title: str = "") -> dict[str, str]:
    """Draws the walk of a subspace, and the trust in its networks or in independent models, into `folder`.

    Lines and curves are drawn along their position, simplexes against the distance from the centre and, with three
    points, as a heat map. Layer-wise draws are in the data and not in the figures.

    Args:
        data: The data of `as_data`.
        folder: Made if missing.
        title: Title of each figure.

    Returns:
        File names with captions.
    """
    folder, figures = Path(folder), {}
    rows = {name: row for name, row in _chosen_rows(data).items() if "reliability" in row}
    if rows:
        draw_trust(rows, folder / "trust.png", title)
        figures["trust.png"] = "Reliability, before and after temperature scaling, and risk against coverage"
    shifts = [shift for shift in data.get("shifts", ()) if shift["severity"]]
    if shifts:
        by_severity = [(0, _chosen_rows(data)), *((shift["severity"], _chosen_rows(data, shift)) for shift in shifts)]
        kinds = ", ".join(dict.fromkeys(shift["shift"] for shift in shifts))
        draw_severities(by_severity, folder / "severities.png", f"{title}: {kinds}")
        figures["severities.png"] = "Accuracy and calibration error by the severity of the corruption"
    return figures if data["subspace"] is None else _draw_walk(data, folder, title) | figures


def _chosen_rows(data: Mapping[str, Any], measured: Mapping[str, Any] | None = None) -> dict[str, Mapping[str, Any]]:
    """The networks and ensembles that are drawn in detail, by name; of a subspace an end, the centre, and the selected one.

    Args:
        data: Chooses them.
        measured: Has their values; `data` itself by default.
    """
    points, joint = data["points"], 0
    if data["subspace"] is not None:
        count = data["subspace"]["num_points"]
        if not SHAPES[data["subspace"]["kind"]].is_path:
            joint = count - 2  # after the ensembles of the first two, three, ... that of all control points
        centre = [row for row in points if row["position"] in (0.5, [1 / count] * count)]
        points = [points[0], *centre, *([data["selected"]] if "selected" in data else [])]
    measured = measured or data
    by_name = {row["name"]: row for row in measured["points"]}
    chosen = {row["name"]: by_name[row["name"]] for row in points}
    return chosen | ({"ensemble": measured["ensembles"][joint]} if measured["ensembles"] else {})


def _draw_walk(data: Mapping[str, Any], folder: Path, title: str) -> dict[str, str]:
    kind = data["subspace"]["kind"]
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
    metric = "Perplexity" if "perplexity" in points[0] else "Accuracy"
    if SHAPES[kind].is_path:
        draw_path(grid, positions, folder / "walk.png", title)
        return {"walk.png": f"{metric} and calibration along the {kind}"}
    figures = {"distances.png": f"{metric} against the distance from the centre of the simplex"}
    draw_distances(grid, positions, folder / "distances.png", title)
    if data["subspace"]["num_points"] == 3:
        draw_triangle(grid, positions, folder / "triangle.png", title)
        figures["triangle.png"] = f"{metric} over the simplex"
    return figures


def note_on(data: Mapping[str, Any]) -> str:
    """Says on which data the metrics of `as_data` were measured."""
    kind = "images" if "features" in data["points"][0] else "predictions"
    note = f"Measured on {data['samples']:,} {kind} on the {data['split']} split of {data['dataset']}"
    if data["recalibration_samples"]:
        note += f", with norm statistics of {data['recalibration_samples']:,} training samples at each position"
    note += "."
    if "selected" in data:
        chosen, columns = data["selected"], ("perplexity", "accuracy", "nll", "ece")
        found = ", ".join(
            f"{_TITLES[column]} {_format(column, chosen[column])}" for column in columns if column in chosen
        )
        note += f" The validation loss chooses position {chosen['name']}; on the {data['split']} split it has {found}."
    return note


def add_to_card(card: str, figures: Mapping[str, str], table: str, note: str) -> str:
    """Adds a walk to a model card, in place of an earlier one.

    A new section goes in front of "How it was trained", or to the end.

    Args:
        card: The text of a README.md.
        figures: Paths from the card's folder, with captions.
        table: The table in Markdown.
        note: A sentence on what was measured.
    """
    images = "\n\n".join(f"![{caption}]({path})" for path, caption in figures.items())
    section = f"## Along the subspace\n\n{images}\n\n{note}\n\n<details><summary>All values</summary>\n\n{table}\n\n</details>"
    return replace_section(card, "walk", section, before="## How it was trained")
