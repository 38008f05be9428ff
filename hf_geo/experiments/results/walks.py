"""Draws evaluations of several runs in one figure: subspaces beside plain networks and their ensembles, over seeds."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hf_geo.markdown import format_table
from hf_geo.plotting import save, style

SHARES = {"accuracy": "accuracy (%)", "ece": "calibration error (%)", "disagreement": "disagreement (%)"}
_DRAW = "draw "  # in the names of positions that were drawn as in training
_DRAWS = "random draws of the subspace"


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of scripts/evaluate.py.

    Args:
        folder: Where it lies.
        label: What it is of: an ensemble, several models, or one, by the variant of the run beside it or its kind.
        data: Contents of evaluation.json.
        log: The log of the run beside it; empty without one.
    """

    folder: Path
    label: str
    data: dict[str, Any]
    log: Sequence[dict[str, Any]]

    @property
    def is_path(self) -> bool:
        """Whether it is of a line or curve."""
        return isinstance(self.data["points"][0]["position"], int | float)

    @property
    def centre(self) -> dict[str, Any]:
        """The row of the network that would be exported of a subspace; empty if it was not evaluated."""
        count = self.data["subspace"]["num_points"]
        middle = 0.5 if self.is_path else [1 / count] * count
        return next((row for row in self.data["points"] if row["position"] == middle), {})

    @property
    def measured_on(self) -> str:
        """The data that it was made on, in words."""
        return f"{self.data['samples']:,} samples of the {self.data['split']} split of {self.data['dataset']}"


def read_evaluations(folders: Iterable[str | Path]) -> list[Evaluation]:
    """Reads all evaluations of classifiers, and all barriers of scripts/merge.py, in folders and below them.

    Raises:
        ValueError: A folder holds none, none of them has anything to draw, or they were made on different data.
    """
    found = {}
    for folder in map(Path, folders):
        paths = [path for name in ("evaluation.json", "merge.json") for path in sorted(folder.rglob(name))]
        if not paths:
            raise ValueError(f"{str(folder)!r} holds no evaluation.json: scripts/evaluate.py writes it.")
        for path in paths:
            data = json.loads(path.read_text(encoding="utf-8"))
            if path.name == "merge.json":
                data = _as_walk(data) if data["method"] == "barrier" else {"points": [{}]}
            if "accuracy" in data["points"][0]:
                settings, state = (_read(path.with_name(f"{name}.json")) for name in ("training_args", "trainer_state"))
                log = state.get("log_history", [])
                found[path.resolve()] = Evaluation(path.parent, _label(data, settings), data, log)
    if not found:
        raise ValueError("There is nothing to draw: evaluations of classifiers have an accuracy, and barriers.")
    evaluations = list(found.values())
    for each in evaluations[1:]:
        if each.measured_on != evaluations[0].measured_on:
            raise ValueError(
                f"{str(evaluations[0].folder)!r} was evaluated on {evaluations[0].measured_on} and {str(each.folder)!r} on "
                f"{each.measured_on}, which no figure compares: leave one of them out."
            )
    return evaluations


def _as_walk(merge: dict[str, Any]) -> dict[str, Any]:
    """The line between two networks, as a walk that has no ensembles."""
    rows = zip(merge["curve_positions"], next(iter(merge["curves"].values())), strict=True)
    points = [{"name": f"{position:.4g}", "position": position, **row} for position, row in rows]
    kind = " to ".join(parent["name"] for parent in merge["parents"])
    data = {name: merge[name] for name in ("dataset", "split", "samples")}
    return {**data, "subspace": {"kind": kind, "num_points": 2}, "points": points, "ensembles": []}


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _label(data: dict[str, Any], settings: dict[str, Any]) -> str:
    space = data["subspace"]
    if space is None and data["ensembles"]:
        return f"ensemble of {len(data['models'])} networks"
    if space is None and len(data["points"]) > 1:
        return ", ".join(data["models"])
    kind = f"{'layer-wise ' if space.get('layerwise') else ''}{space['kind']}" if space else data["models"][0]
    name = settings.get("variant") or kind
    return f"{name}, mean logits" if space and data.get("average") == "logits" else name


def draw_evaluations(evaluations: Sequence[Evaluation], path: str | Path, title: str = "") -> None:
    """Draws as many of these panels as there are data for, as means with the standard deviation over runs of one label.

    Accuracy and calibration error along lines and curves, of one network and of the ensemble of a and 1 - a, with plain
    networks and ensembles of independent ones as horizontal lines; the disagreement of a and 1 - a; a simplex's centre
    against its number of points; ensembles of two and more numbers of random draws; cosine and distance of control points during training.

    Args:
        evaluations: As read.
        path: PNG file to write; its folder is made.
        title: Title above the panels.
    """
    walks = [each for each in evaluations if each.data["subspace"] is not None]
    singles, joint = _along_paths(walks)
    panels: list[Callable[[Axes], None]] = []
    plain = [each for each in evaluations if each.data["subspace"] is None]
    if len(singles) or plain:
        panels += [partial(_draw_paths, singles, joint, plain, name) for name in ("accuracy", "ece")]
    if len(joint):
        panels.append(partial(_draw_rows, joint, "position", "disagreement", "disagreement of a and 1 - a (%)"))
    centres = pd.DataFrame(
        {"label": each.label, "points": each.data["subspace"]["num_points"], "accuracy": 100 * each.centre["accuracy"]}
        for each in walks
        if not each.is_path
    )
    if len(centres):
        panels.append(partial(_draw_rows, centres, "points", "accuracy", "accuracy at the simplex's centre (%)"))
    draws = pd.DataFrame(_draws(walks))
    if len(draws) and draws[_DRAWS].nunique() > 1:
        panels.append(partial(_draw_rows, draws, _DRAWS, "accuracy", "accuracy of ensembles (%)"))
    training = pd.DataFrame(_points_in_training(walks))
    for measure in ("cosine", "distance") if len(training) else ():
        panels.append(partial(_draw_rows, training, "update", measure, f"{measure} of control points"))
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.5 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes, draw in zip(grid, panels, strict=False):
        draw(axes)
        axes.legend(framealpha=0.85, edgecolor="none", fontsize="x-small")
    save(figure, path, title)


def _along_paths(walks: Sequence[Evaluation]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The networks on lines and curves, and the ensembles of a and 1 - a at both positions, with shares in per cent."""
    singles, joint = [], []
    for each in walks:
        if not each.is_path:
            continue
        at = {row["name"]: row["position"] for row in each.data["points"] if _DRAW not in row["name"]}
        for row in each.data["points"]:
            if row["name"] in at:
                singles.append({"label": each.label, "position": at[row["name"]], **_in_per_cent(row)})
        for row in each.data["ensembles"]:
            if at.keys() >= set(row["members"]):
                joint += [{"label": each.label, "position": at[m], **_in_per_cent(row)} for m in row["members"]]
    return pd.DataFrame(singles), pd.DataFrame(joint)


def _in_per_cent(row: dict[str, Any]) -> dict[str, float]:
    return {name: 100 * row[name] for name in SHARES if row.get(name) is not None}


def _draws(walks: Sequence[Evaluation]) -> Iterator[dict[str, Any]]:
    for each in walks:
        for row in each.data["ensembles"]:
            if all(_DRAW in name for name in row["members"]):
                size, members = len(row["members"]), pd.Series(row["member_accuracies"])
                for name, value in (("its members", members.mean()), ("ensemble", row["accuracy"])):
                    yield {"label": f"{each.label}: {name}", _DRAWS: size, "accuracy": 100 * value}


def _points_in_training(walks: Sequence[Evaluation]) -> Iterator[dict[str, Any]]:
    for each in walks:
        for row in each.log:
            found = {
                measure: [value for name, value in row.items() if name.startswith(f"subspace/{measure}/")]
                for measure in ("cosine", "distance")
            }
            if found["cosine"]:
                yield {"label": each.label, "update": row["step"], **{k: sum(v) / len(v) for k, v in found.items()}}


def _draw_rows(rows: pd.DataFrame, x: str, y: str, ylabel: str, axes: Axes, **look: Any) -> None:
    """Draws the mean of y over rows of one label and x, a line a label, with the deviation as a band."""
    suffix, labels = look.pop("suffix", ""), look.pop("labels", None) or sorted(rows["label"].unique())
    for label, some in rows.groupby("label", sort=True):
        found = some.groupby(x)[y].agg(["mean", "std"])
        colour = f"C{labels.index(label)}"
        marker = "." if len(found) < 40 else ""
        axes.plot(found.index, found["mean"], color=colour, label=f"{label}{suffix}", marker=marker, **look)
        low, high = found["mean"] - found["std"], found["mean"] + found["std"]
        axes.fill_between(found.index, low, high, color=colour, alpha=0.2)
    style(axes, xlabel=x, ylabel=ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=x != "position"))


def _draw_paths(singles: pd.DataFrame, joint: pd.DataFrame, plain: Sequence[Evaluation], name: str, axes: Axes) -> None:
    for rows, suffix, look in ((singles, "", "-"), (joint, ", ensemble", "--")):
        if len(rows):
            labels = sorted(singles["label"].unique())
            _draw_rows(rows, "position", name, SHARES[name], axes, linestyle=look, suffix=suffix, labels=labels)
    values: dict[str, list[float]] = {}  # by label
    for each in plain:
        rows = each.data["ensembles"] or each.data["points"]
        values.setdefault(each.label, []).extend(row[name] for row in map(_in_per_cent, rows) if name in row)
    for number, (label, found) in enumerate(values.items()):
        series, look = pd.Series(found, dtype=float), (":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))[number % 4]
        axes.axhline(series.mean(), color="black", linestyle=look, linewidth=1.2, label=label)
        if len(series) > 1:
            axes.axhspan(series.mean() - series.std(), series.mean() + series.std(), color="black", alpha=0.08)
    style(axes, xlabel="position", ylabel=SHARES[name])


def tabulate_evaluations(evaluations: Sequence[Evaluation]) -> str:
    """Formats the network in the centre, the worst one, and the ensemble of the ends of each label, as mean ± deviation.

    Of independent models it shows their ensemble, or without one each model as a run of its own.
    """
    rows: dict[str, list[dict[str, float]]] = {}
    for each in evaluations:
        points = [row for row in each.data["points"] if _DRAW not in row["name"]]
        ensembles = [row for row in each.data["ensembles"] if _DRAW not in row["members"][0]]
        best = max(ensembles, key=lambda row: len(row["members"]), default={})  # of a path the first, of both ends
        space = each.data["subspace"]
        values = {"disagreement": best.get("disagreement")}
        if space is None:
            label, networks = each.label, [best] if best else points
        else:
            label = each.label if each.is_path else f"{each.label} of {space['num_points']} points"
            networks = [each.centre]
            values["worst position"] = min(row["accuracy"] for row in points)
            values["ensemble of the ends"] = best.get("accuracy")
        for shown in networks:
            values |= {"accuracy": shown.get("accuracy"), "calibration error": shown.get("ece")}
            rows.setdefault(label, []).append({k: 100 * v for k, v in values.items() if v is not None})
    columns = ["accuracy", "calibration error", "worst position", "ensemble of the ends", "disagreement"]
    cells = [[label, len(some), *(_mean(some, column) for column in columns)] for label, some in rows.items()]
    return format_table(["network", "runs", *(f"{column} (%)" for column in columns)], cells)


def _mean(rows: Sequence[dict[str, float]], column: str) -> str:
    values = pd.Series([row[column] for row in rows if column in row], dtype=float)
    if values.empty:
        return ""
    return f"{values.mean():.2f}" + (f" ± {values.std():.2f}" if len(values) > 1 else "")
