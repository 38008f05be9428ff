"""A table that compares finished runs of a recipe with what its paper published."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_geo.experiments.runs import FinishedRun
from hf_geo.markdown import format_table
from hf_geo.metrics import is_share, main_metric
from hf_geo.metrics.intervals import WITHIN, interval

PUBLISHED = "published.json"  # beside the recipes of a paper


def read_published(paper: Path, recipe: str) -> Mapping[str, Any]:
    """Reads what a paper published for a recipe.

    Args:
        paper: Folder of the paper's recipes.
        recipe: Name of the recipe.

    Returns:
        `metric`, `source` and `values` by variant; empty if nothing is known.
    """
    path = paper / PUBLISHED
    published = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return published.get(recipe, {})


def compare_with_published(runs: Sequence[FinishedRun], published: Mapping[str, Any]) -> str:
    """Formats a Markdown table with a row for each variant: ours, its interval, published, the difference, hardware, time and cards.

    Args:
        runs: Runs of one recipe.
        published: As `read_published` returns it; its variants come first.

    Raises:
        ValueError: A run did not measure what was published, or it is not finite.
    """
    metric = published.get("metric") or main_metric(list(runs[0].metrics), "test", "eval")
    for run in runs:
        if metric not in run.metrics:
            raise ValueError(f"{str(run.folder)!r} did not measure {metric}, which was published.")
        if run.metrics[metric] is None:
            raise ValueError(
                f"The {metric} of {str(run.folder)!r} is not finite, so {run} has no mean: leave all runs of that variant out."
            )
    values = published.get("values", {})
    by_variant: dict[str, list[FinishedRun]] = {variant: [] for variant in values}
    for run in sorted(runs, key=lambda run: (run.variant or "", run.settings["seed"])):
        by_variant.setdefault(run.variant or "", []).append(run)
    rows = [_row(variant, some, metric, values.get(variant)) for variant, some in by_variant.items() if some]
    return format_table(list(rows[0]), [list(row.values()) for row in rows])


def _row(
    variant: str, runs: Sequence[FinishedRun], metric: str, published: Mapping[str, float] | None
) -> dict[str, object]:
    """Compares the runs of a variant with its published value; returns the cells by their columns' titles."""
    digits = 3 if metric.endswith("loss") else 2
    unit, scale = (" (%)", 100) if is_share(metric) else ("", 1)
    ours = [scale * run.metrics[metric] for run in runs]
    mean, deviation = statistics.fmean(ours), statistics.stdev(ours) if len(ours) > 1 else None
    low, high = (mean, mean) if deviation is None else interval(mean, deviation, len(ours))
    shown, difference = "not known", ""
    if published is not None:
        shown = _with_deviation(published["value"], published.get("std"), digits)
        difference = f"{mean - published['value']:+.{digits}f}{WITHIN if low <= published['value'] <= high else ''}"
    return {
        "variant": variant or "as it stands",
        f"ours, {metric}{unit}": _with_deviation(mean, deviation, digits),
        "n": len(ours),
        "95 % interval": "" if deviation is None else f"{low:.{digits}f} to {high:.{digits}f}",
        "published": shown,
        "difference": difference,
        "hardware": ", ".join(dict.fromkeys(run.metrics.get("hardware", "not recorded") for run in runs)),
        "time a run": format_duration(statistics.fmean(run.metrics["train_runtime"] for run in runs)),
        "cards": ", ".join(dict.fromkeys(run.card_link for run in runs)),
    }


def _with_deviation(mean: float, deviation: float | None, digits: int) -> str:
    return f"{mean:.{digits}f}" + ("" if deviation is None else f" ± {deviation:.{digits}f}")


def format_duration(seconds: float) -> str:
    """Writes a duration in seconds, minutes or hours, whichever reads best."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
