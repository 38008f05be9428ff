"""Summarizes a sweep: the best trials of each optimizer or variant, and how wide a range of x comes close to them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hf_geo.metrics import higher_is_better, is_quality, main_metric

from .records import FINISHED
from .trials import SEED, SERIES, axis_label, format_value, parse_number

NEAR = 0.1  # "within 10 % of the best"


def choose_metric(measured: Sequence[str], asked: str | None) -> str:
    """Chooses the metric that ranks trials: the one asked for, or the main one on the evaluation split.

    Raises:
        ValueError: No trial measured the one asked for.
    """
    if asked is None:
        return main_metric(measured, "eval")
    if asked not in measured:
        known = ", ".join(filter(is_quality, measured))
        raise ValueError(f"No trial measured {asked!r}: --metric is one of {known}.")
    return asked


class Summary:
    """The finished trials of a sweep, averaged over seeds.

    Trials with the same optimizer, variant and values of `over` are a series: a line of the figure and a row of the table.

    Args:
        table: The trials that have ended, as `Records.table` returns them.
        axes: The sweep's axes. Those that have no other role are optimized over.
        metric: The metric that ranks trials.
        x: The axis that the figure has along its horizontal axis; None if each series has one setting.
        over: The axes of which each value has a series of its own.

    Attributes:
        axes, metric, x, over: As given.
        trials: The table, with the series of each trial and its "panel", the part of the name before the values of `over`.
        series: Names of the series.
        panels: The series of each panel by the values of `over`: {"sgd": {"width 64": "sgd, width 64"}}.
        curves: The values of `over` that any panel has, numbers in ascending order.
        searched: The axes that are optimized over.
        num_seeds: How many seeds each setting was given.
        settings: A row for each setting that finished with all of its seeds: the metric's mean, its "std" and "count".

    Raises:
        ValueError: It is not known whether a higher metric is better.
    """

    def __init__(
        self, table: pd.DataFrame, axes: Sequence[str], metric: str, x: str | None, over: Sequence[str] = ()
    ) -> None:
        self.axes, self.metric, self.x, self.over = list(axes), metric, x, list(over)
        self.higher_is_better = higher_is_better(metric)
        self.series_axes = [field for field in SERIES if field in axes]
        self.searched = [field for field in axes if field not in (*self.series_axes, x, SEED, *over)]
        self.num_seeds = table[SEED].nunique() if SEED in table else 1
        panels = [list_values(row, self.series_axes) for _, row in table.iterrows()]
        curves = [list_values(row, self.over) for _, row in table.iterrows()]
        names = [", ".join(filter(None, pair)) or "all trials" for pair in zip(panels, curves, strict=True)]
        self.trials = table.assign(panel=panels, series=names)
        self.series = list(dict.fromkeys(names))
        self.panels: dict[str, dict[str, str]] = {}
        numbers = {
            curve: [parse_number(row[field]) or 0.0 for field in self.over]
            for curve, (_, row) in zip(curves, table.iterrows(), strict=True)
        }
        self.curves = sorted(numbers, key=numbers.get)
        for panel, curve, name in zip(panels, curves, names, strict=True):
            self.panels.setdefault(panel, {})[curve] = name
        fields = ["series", *filter(None, [x]), *self.searched]
        finished = self.trials[self.trials.state == FINISHED]
        means = finished.groupby(fields, sort=False, dropna=False)[metric].agg(["mean", "std", "count"]).reset_index()
        runs = self.trials.groupby(fields, sort=False, dropna=False).size().reset_index(name="runs")
        means = means.merge(runs, on=fields)
        # A setting counts with all of its seeds or not at all: the mean of those that survived would flatter it.
        self.settings = means[means["count"] == means["runs"]].rename(columns={"mean": metric})

    def best(self, settings: pd.DataFrame) -> pd.Series:
        """Returns the best of some settings."""
        column = settings[self.metric]
        return settings.loc[column.idxmax() if self.higher_is_better else column.idxmin()]

    def best_by_x(self, series: str) -> pd.DataFrame:
        """Returns the best setting of a series at each x, in ascending order of x; of all if there is no x."""
        settings = self.settings[self.settings.series == series]
        ranked = settings.sort_values(self.metric, ascending=not self.higher_is_better)
        if self.x is None:
            return ranked.head(1)
        return ranked.drop_duplicates(self.x).sort_values(self.x, key=lambda column: column.map(parse_number))

    def best_x(self, series: str) -> float | None:
        """Returns the x of a series' best setting; None if none finished."""
        settings = self.best_by_x(series)
        return parse_number(self.best(settings)[self.x]) if len(settings) else None

    def edge(self, series: str) -> str:
        """Says where the best x of a series may lie beyond the values that were tried: "≤", "≥", "≤≥" (only one was) or "".

        Args:
            series: Name of a series of which a setting has finished.
        """
        tried = {parse_number(x) for x in self.trials[self.trials.series == series][self.x]} - {math.inf}
        best = self.best_x(series)
        return "≤" * (best == min(tried, default=None)) + "≥" * (best == max(tried, default=None))

    def describe_range(self, series: str, best: float) -> str:
        """Describes the unbroken range of x around the best setting of a series that stays within 10 % of `best`.

        Args:
            series: Name of the series.
            best: A value of the metric.

        Returns:
            The range's powers of ten and its ends, as in "1 (0.01 to 0.1)"; after "≥" if the values that were tried end
            there; "none" if the series never comes that close.
        """
        settings = self.best_by_x(series)
        limit = best * (1 - NEAR if self.higher_is_better else 1 + NEAR)
        is_near = settings[self.metric] >= limit if self.higher_is_better else settings[self.metric] <= limit
        if not is_near.any():
            return "none"
        stretch = (is_near != is_near.shift()).cumsum()  # numbers the stretches of equal `is_near`
        near = settings[stretch == stretch[self.best(settings).name]]
        low, high = (parse_number(near[self.x].iloc[row]) for row in (0, -1))
        tried = [parse_number(x) for x in self.trials[self.trials.series == series][self.x]]
        is_inside = min(tried) < low and high < max(tried)
        ends = format_value(low) if low == high else f"{format_value(low)} to {format_value(high)}"
        if low <= 0 and low < high:  # no power of ten
            return f"{'' if is_inside else '≥ '}({ends})"
        width = 0.0 if low == high else math.log10(high / low)
        return f"{'' if is_inside else '≥ '}{round(width, 2):g} ({ends})"


def list_values(row: Mapping[str, Any], fields: Sequence[str]) -> str:
    """Lists the values that a trial or a setting has on some axes: "sgd, width 64, depth 2"."""
    names = (f"{axis_label(field)} " * (field not in SERIES) for field in fields)
    return ", ".join(f"{name}{format_value(row[field])}" for name, field in zip(names, fields, strict=True))


def describe_failures(table: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    """Describes each trial that has no results, in a sentence each."""
    return [
        f"{', '.join(f'{field} {format_value(row[field])}' for field in axes)} {row.state}: {row.error}"
        for _, row in table[table.state != FINISHED].iterrows()
    ]
