"""The report of a sweep in Markdown."""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hf_geo.markdown import format_table
from hf_geo.metrics import is_quality, is_share
from hf_geo.metrics.intervals import WITHIN, interval, is_within_chance

from .records import FINISHED
from .summary import NEAR, Summary, describe_failures, list_values
from .trials import SERIES, Trial, axis_label, format_value, parse_number

FIGURE, REPORT, ORIGIN = "figure.png", "sweep.md", "sweep.json"


def describe_sweep(
    title: str, config: str | Path, trials: Sequence[Trial], given: Collection[str], summary: Summary
) -> str:
    """Writes the report of a sweep.

    Args:
        title: Its heading.
        config: The recipe's file.
        trials: The trials that have ended.
        given: Names of the settings that the recipe and the command line give to all trials.
        summary: The results.
    """
    parts = [
        f"## {title}",
        f"![{title}]({FIGURE})",
        _describe_trials(summary, Path(config).name),
        *_describe_settings(trials, given, summary.axes),
        format_summary(summary),
        _describe_failures(summary),
        f"<details><summary>All trials</summary>\n\n{_format_trials(summary)}\n\n</details>",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _describe_trials(summary: Summary, recipe: str) -> str:
    """Says how many trials there were, over what, and what they took."""
    trials = summary.trials
    axes = "; ".join(_describe_axis(trials, axis) for axis in summary.axes)
    hardware = " and ".join(dict.fromkeys(trials["hardware"].dropna())) if "hardware" in trials else ""
    minutes = f"{trials['train_runtime'].sum() / 60:.0f} minutes of training"
    return f"{len(trials)} trials of `{recipe}` over {axes}. {minutes}{f' on {hardware}' if hardware else ''}."


def _describe_axis(trials: pd.DataFrame, axis: str) -> str:
    """Lists the values of an axis, by optimizer or variant if these were given different ones."""
    name = axis_label(axis)
    if axis in SERIES:
        return f"{name} {', '.join(trials[axis].unique())}"
    by_series = {
        series: ", ".join(map(format_value, sorted(rows[axis].unique(), key=lambda value: parse_number(value) or 0.0)))
        for series, rows in trials.groupby("panel", sort=False)
    }
    if len(set(by_series.values())) == 1:
        return f"{name} {next(iter(by_series.values()))}"
    return f"{name} " + ", ".join(f"{values} ({series})" for series, values in by_series.items())


def _describe_settings(trials: Sequence[Trial], given: Collection[str], axes: Sequence[str]) -> list[str]:
    shared, by_series = split_settings(trials, axes)
    shared = {name: value for name, value in shared.items() if name.partition(".")[0] in given}
    lines = [f"- {name}: {_list_settings(settings)}" for name, settings in by_series.items()]
    return [f"Settings of all: {_list_settings(shared)}.", "\n".join(lines)]


def split_settings(trials: Sequence[Trial], axes: Sequence[str]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Splits the settings of trials into those that all of them share and those that distinguish the series.

    Returns:
        The settings that all trials share; and by series those that its trials share and that are not in the first. The
        axes are in neither, nor is what differs within a series.
    """
    by_series: dict[str, list[Trial]] = {}
    for trial in trials:
        name = list_values(trial.values, [field for field in SERIES if field in axes])
        by_series.setdefault(name, []).append(trial)
    shared = _shared_settings(trials, axes)
    rest = {
        name: {key: value for key, value in _shared_settings(some, axes).items() if key not in shared}
        for name, some in by_series.items()
    }
    return shared, rest if any(rest.values()) else {}


def _shared_settings(trials: Sequence[Trial], axes: Sequence[str]) -> dict[str, Any]:
    first, *others = (trial.settings for trial in trials)
    return {
        name: value
        for name, value in first.items()
        if name not in axes and all(settings.get(name) == value for settings in others)
    }


def _list_settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}` {_format_short(value)}" for name, value in settings.items() if value is not None)


def _format_short(value: Any) -> str:
    if not isinstance(value, list | tuple):
        return format_value(value)
    texts = [format_value(item) for item in value]
    return ", ".join(texts if len(texts) <= 6 else [*texts[:2], "...", texts[-1]])


def format_summary(summary: Summary) -> str:
    """Formats the best of every series: at each x, or over all learning rates with the width of the range near it."""
    if summary.x not in (None, "learning_rate"):
        return _table_by_x(summary)
    transfer = [_table_of_transfer(summary)] if summary.over and summary.x else []
    return "\n\n".join([*transfer, _table_of_best(summary)])


def _table_of_transfer(summary: Summary) -> str:
    """Shows at which x each panel's curves are best, and how far that moves from the first value to the last of one field."""
    shift = ["shift from the first to the last"] if len(summary.over) == 1 else []
    rows = []
    for panel, series in summary.panels.items():
        names = [series.get(curve) for curve in summary.curves]
        shifts = [_describe_shift(summary, names[0], names[-1]) for _ in shift]
        rows.append([panel or "all trials", *(_format_best(summary, name) for name in names), *shifts])
    return format_table([f"best {axis_label(summary.x)} at", *summary.curves, *shift], rows)


def _format_best(summary: Summary, series: str | None) -> str:
    """Names the best x of a series, as a bound if it is at an end of what was tried; "none" if none finished."""
    if series is None:
        return ""
    best = summary.best_x(series)
    if best is None:
        return "none"
    edge = summary.edge(series)
    return f"{edge} {format_value(best)}" if len(edge) == 1 else format_value(best)


def _describe_shift(summary: Summary, first: str | None, last: str | None) -> str:
    """Says by which factor the best x of one series differs from that of another, or at least; empty if that is unknown."""
    if first is None or last is None or first == last:
        return ""
    before, after = summary.best_x(first), summary.best_x(last)
    if before is None or after is None or before <= 0 or math.isinf(before):
        return ""
    bounds = {*summary.edge(first).translate(str.maketrans("≤≥", "≥≤")), *summary.edge(last)}
    if len(bounds) > 1:
        return ""
    factor = "none" if before == after and not bounds else f"× {after / before:.3g}"
    return " ".join([*bounds, factor])


def _table_of_best(summary: Summary) -> str:
    rows = [_row_of_best(summary, name) for name in summary.series]
    return format_table(list(rows[0]), [list(row.values()) for row in rows])


def _row_of_best(summary: Summary, series: str) -> dict[str, object]:
    """Describes the best setting of a series; returns the cells by their columns' titles."""
    trials, settings = summary.trials[summary.trials.series == series], summary.best_by_x(series)
    best_title = f"best {summary.metric}" + (" ± deviation (95 % interval)" if summary.num_seeds > 1 else "")
    cells = {best_title: "none", "at": ""}
    near = [f"powers of ten within {NEAR:.0%} of its best", f"within {NEAR:.0%} of the best of all"]
    cells |= dict.fromkeys(near if summary.x else [], "")
    cells |= {"from the best of all": ""} if summary.num_seeds > 1 else {}
    if len(settings):
        best, first = summary.best(settings), summary.best(summary.settings)
        cells[best_title] = _format_metric(summary, best)
        cells["at"] = list_values(best, [*filter(None, [summary.x]), *summary.searched])
        if summary.x:
            ranges = [summary.describe_range(series, limit[summary.metric]) for limit in (best, first)]
            cells |= dict(zip(near, ranges, strict=True))
        if summary.num_seeds > 1:
            cells["from the best of all"] = _describe_difference(summary, best, first)
    name = summary.series_axes[0] if summary.series_axes else ""
    lost = (trials.state != FINISHED).sum()
    return {name: series, **cells, "trials": len(trials), "diverged or failed": lost}


def _describe_difference(summary: Summary, setting: pd.Series, best: pd.Series) -> str:
    """Says by how much a setting differs from the best one, and whether that may be chance."""
    if setting.name == best.name:
        return ""
    scale, digits = (100, 2) if is_share(summary.metric) else (1, 4)
    difference = f"{scale * (setting[summary.metric] - best[summary.metric]):+.{digits}f}"
    has_spread = min(setting["count"], best["count"]) > 1
    return difference + (WITHIN if has_spread and is_within_chance(setting, best, summary.metric) else "")


def _table_by_x(summary: Summary) -> str:
    xs = sorted(summary.trials[summary.x].unique(), key=parse_number)
    columns = [f"{summary.metric} at {axis_label(summary.x)}", *(format_value(parse_number(x)) for x in xs)]
    rows = []
    for name in summary.series:
        cells = dict.fromkeys(xs, "none")
        for _, setting in summary.best_by_x(name).iterrows():
            values = list_values(setting, summary.searched)
            cells[setting[summary.x]] = _format_metric(summary, setting) + (f" ({values})" if values else "")
        rows.append([name, *cells.values()])
    return format_table(columns, rows)


def _format_metric(summary: Summary, setting: pd.Series) -> str:
    """Formats the metric of a setting; over seeds with its standard deviation and the 95 % interval of the mean."""
    unit, scale, form = (" %", 100, ".2f") if is_share(summary.metric) else ("", 1, ".4g")
    value = scale * setting[summary.metric]
    if setting["count"] < 2:
        return f"{value:{form}}{unit}"
    deviation = scale * setting["std"]
    low, high = interval(value, deviation, setting["count"])
    return f"{value:{form}} ± {deviation:{form if unit else '.2g'}}{unit} ({low:{form}} to {high:{form}})"


def _describe_failures(summary: Summary) -> str:
    failures = describe_failures(summary.trials, summary.axes)
    return "Without figures:\n\n" + "\n".join(f"- {sentence}" for sentence in failures) if failures else ""


def _format_trials(summary: Summary) -> str:
    trials, axes = summary.trials, summary.axes
    columns = [*axes, "state", *(name for name in trials if is_quality(name) and name not in axes)]
    rows = [["" if pd.isna(row[name]) else format_value(row[name]) for name in columns] for _, row in trials.iterrows()]
    return format_table(columns, rows)
