"""What a sweep found: the best of every line, how much of the learning rates is good, and the figure."""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from hf_geo.metrics import higher_is_better, is_share

from .plan import LINES, SEED, as_number, as_text
from .records import FINISHED

NEAR = 0.1  # "within 10 % of the best"
MARKERS = "osD^vPX*"


def choose_metric(columns: Sequence[str], asked: str | None) -> str:
    """The metric that ranks trials: the one asked for, or the task's own on the evaluation split.

    Raises:
        ValueError: No trial measured the one asked for.
    """
    if asked is not None:
        if asked not in columns:
            known = ", ".join(name for name in columns if name.startswith(("eval_", "test_", "train_")))
            raise ValueError(f"No trial measured {asked!r}: --metric is one of {known}.")
        return asked
    return next(name for name in ("eval_accuracy", "eval_perplexity", "eval_loss") if name in columns)


class Summary:
    """A sweep's finished trials by line and x.

    Args:
        table: Of `Records.table`.
        axes: The sweep's fields; those that are neither line, x nor the seed are optimized over.
        metric: What ranks trials.
        x: The field along the figure's horizontal axis.
    """

    def __init__(self, table: pd.DataFrame, axes: Sequence[str], metric: str, x: str) -> None:
        self.metric, self.x = metric, x
        self.lines = [field for field in LINES if field in axes]
        self.others = [field for field in axes if field not in (*self.lines, x, SEED)]
        self.seeds = table[SEED].nunique() if SEED in table else 1
        self.ended = table.assign(line=[self._name(row) for _, row in table.iterrows()])
        finished = self.ended[self.ended.state == FINISHED]
        self.names = list(dict.fromkeys(self.ended.line))
        fields = ["line", x, *self.others]
        # A setting counts with all its seeds or not at all: the mean of those that survived would flatter it.
        means = finished.groupby(fields, sort=False, dropna=False)[metric].agg(["mean", "std", "count"]).reset_index()
        runs = self.ended.groupby(fields, sort=False, dropna=False).size().reset_index(name="runs")
        means = means.merge(runs, on=fields)
        self.means = means[means["count"] == means["runs"]].rename(columns={"mean": metric})

    def _name(self, row: pd.Series) -> str:
        return " ".join(str(row[field]) for field in self.lines) or "all trials"

    def of(self, line: str) -> pd.DataFrame:
        """The best of a line at each x, by ascending x."""
        rows = self.means[self.means.line == line]
        order = rows.sort_values(self.metric, ascending=not higher_is_better(self.metric))
        return order.drop_duplicates(self.x).sort_values(self.x, key=lambda column: column.map(as_number))

    def best(self, rows: pd.DataFrame) -> pd.Series:
        """The best row."""
        return rows.loc[rows[self.metric].idxmax() if higher_is_better(self.metric) else rows[self.metric].idxmin()]

    def shown(self, row: pd.Series) -> str:
        """A value of the metric with its spread over seeds."""
        share = is_share(self.metric)
        text = f"{100 * row[self.metric]:.2f}" if share else f"{row[self.metric]:.4g}"
        if self.seeds > 1:
            text += f" ± {100 * row['std']:.2f}" if share else f" ± {row['std']:.2g}"
        return text + " %" * share

    def near(self, line: str, best: float) -> tuple[pd.DataFrame, bool]:
        """The unbroken stretch of x around the line's best value at which it stays within 10 % of `best`.

        Returns:
            Its rows, none if the line never comes that close, and whether it ends inside what was tried.
        """
        rows = self.of(line).reset_index(drop=True)
        limit = best * (1 - NEAR if higher_is_better(self.metric) else 1 + NEAR)
        close = rows[self.metric] >= limit if higher_is_better(self.metric) else rows[self.metric] <= limit
        if rows.empty or not close.any():
            return rows[:0], True
        first = last = self.best(rows).name
        while first > 0 and close[first - 1]:
            first -= 1
        while last < len(rows) - 1 and close[last + 1]:
            last += 1
        tried = [as_number(value) for value in self.ended[self.ended.line == line][self.x]]
        inside = as_number(rows[self.x][first]) > min(tried) and as_number(rows[self.x][last]) < max(tried)
        return rows[first : last + 1], inside

    def as_markdown(self) -> str:
        """Over learning rates the best of every line and how many powers of ten stay near it; else the best at each x."""
        return self._rates() if self.x == "learning_rate" else self._by_x()

    def _by_x(self) -> str:
        xs = sorted(self.ended[self.x].unique(), key=as_number)
        shown = " | ".join(as_text(as_number(x)) for x in xs)
        lines = [f"| {self.metric} at {label(xs[0], self.x)} | {shown} |", f"|---|{'---|' * len(xs)}"]
        for name in self.names:
            best = {row[self.x]: row for _, row in self.of(name).iterrows()}
            lines.append(f"| {name} | {' | '.join(self._with_others(best[x]) if x in best else 'none' for x in xs)} |")
        return "\n".join(lines)

    def _with_others(self, row: pd.Series) -> str:
        at = ", ".join(f"{field} {as_text(row[field])}" for field in self.others)
        return self.shown(row) + (f" ({at})" if at else "")

    def _rates(self) -> str:
        head = [self.lines[0] if self.lines else "", f"best {self.metric}", "at"]
        head += [f"powers of ten within {NEAR:.0%} of its best", f"within {NEAR:.0%} of the best of all"]
        head += ["trials", "diverged or failed"]
        lines = [f"| {' | '.join(head)} |", f"|{'|'.join(['---'] * len(head))}|"]
        overall = self.best(self.means)[self.metric] if len(self.means) else math.nan
        for name in self.names:
            rows, ended = self.of(name), self.ended[self.ended.line == name]
            cells = [name, "none", ""]
            if len(rows):
                best = self.best(rows)
                at = ", ".join(f"{field} {as_text(best[field])}" for field in (self.x, *self.others))
                cells = [name, self.shown(best), at]
                cells += [self._stretch(name, best[self.metric]), self._stretch(name, overall)]
            cells += [""] * (len(head) - len(cells) - 2)
            lines.append(f"| {' | '.join([*cells, str(len(ended)), str(int((ended.state != FINISHED).sum()))])} |")
        return "\n".join(lines)

    def _stretch(self, line: str, best: float) -> str:
        rows, inside = self.near(line, best)
        if rows.empty:
            return "none"
        low, high = (as_number(rows[self.x].iloc[i]) for i in (0, -1))
        powers = f"{'' if inside else '≥ '}{round(math.log10(high / low), 2):g}"
        return f"{powers} ({as_text(low)})" if low == high else f"{powers} ({as_text(low)} to {as_text(high)})"

    def draw(self, path: str | Path, title: str) -> None:
        """Draws the metric against x, a line for each optimizer; settings that diverged or failed are crosses below.

        Args:
            path: PNG file to write.
            title: Title of the picture.
        """
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.subplots()
        share, labels = is_share(self.metric), {}
        ticks = sorted({as_number(value) for value in self.ended[self.x]} - {None})
        scale = 100 if share else 1
        for number, name in enumerate(self.names):
            rows = self.of(name)
            xs = [as_number(value) for value in rows[self.x]]
            spread = scale * rows["std"] if self.seeds > 1 else None
            drawn = axes.errorbar(
                xs, scale * rows[self.metric], spread, marker=MARKERS[number % len(MARKERS)], label=name, capsize=2
            )
            # Where nothing that was tried at an x came through, a cross at the foot says so.
            lost = sorted({as_number(v) for v in self.ended[self.ended.line == name][self.x]} - set(xs))
            shift = 0.03 * (len(self.names) - 1 - number)
            axes.plot(
                lost, [0.03 + shift] * len(lost), "x", color=drawn[0].get_color(), transform=axes.get_xaxis_transform()
            )
            labels["lost"] = labels.get("lost") or bool(lost)
        if labels["lost"]:
            axes.plot([], [], "x", color="grey", label="diverged or failed")
        if ticks[0] > 0 and (self.x == "learning_rate" or ticks[-1] / ticks[0] >= 100):
            axes.set_xscale("log")
        if not share:
            axes.set_yscale("log")
        over = " and ".join(
            [field.replace("_", " ") for field in self.others] + (["mean over seeds"] if self.seeds > 1 else [])
        )
        axes.set(
            xlabel=label(self.ended[self.x].iloc[0], self.x),
            ylabel=f"{self.metric.replace('_', ' ')}{' (%)' if share else ''}" + (f", best {over}" if over else ""),
        )
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize="small")
        figure.suptitle(title, fontsize="medium", parse_math=False)
        figure.savefig(path, dpi=120)


def label(value: object, field: str) -> str:
    """The name of what varies: the field, or "depth" of "depth=20,width=64"."""
    return (str(value).partition("=")[0] if "=" in str(value) else field).replace("_", " ")


def failures(table: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    """What happened to each trial that has no figures, a sentence each."""
    rows = table[table.state != FINISHED]
    return [
        f"{', '.join(f'{field} {as_text(row[field])}' for field in axes)} {row.state}: {row.error}"
        for _, row in rows.iterrows()
    ]
