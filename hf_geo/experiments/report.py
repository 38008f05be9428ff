"""Sweeps and gathered runs as Markdown, and the sections of a RESULTS.md that hold them."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from .plan import LINES, Trial, as_number, as_text
from .summary import Summary

FIGURE, REPORT, ORIGIN = "figure.png", "sweep.md", "sweep.json"
_HEAD = "# Results\n\nMeasured with this package, each with its budget. What the papers published stands beside it where it is known.\n"


def describe_sweep(
    title: str,
    config: str | Path,
    trials: Sequence[Trial],
    given: Collection[str],
    axes: Sequence[str],
    summary: Summary,
    lost: Sequence[str],
) -> str:
    """A sweep's report.

    Args:
        title: Its heading.
        config: The recipe.
        trials: Those that ended.
        given: Settings that the recipe and the command line name for all trials.
        axes: The fields swept over.
        summary: What was found.
        lost: What happened to each trial without figures.
    """
    ended = summary.ended
    hardware = " and ".join(dict.fromkeys(ended["hardware"].dropna())) if "hardware" in ended else ""
    minutes = ended["train_runtime"].sum() / 60
    tried = "; ".join(_tried(ended, axis) for axis in axes)
    same, by_line = split_settings(trials, axes)
    parts = [
        f"## {title}",
        f"![{title}]({FIGURE})",
        f"{len(ended)} trials of `{Path(config).name}` over {tried}. {minutes:.0f} minutes of training"
        + (f" on {hardware}." if hardware else "."),
        f"Settings of all: {_listed({name: same[name] for name in same if name in given})}.",
        *(["\n".join(f"- {line}: {_listed(settings)}" for line, settings in by_line.items())] if by_line else []),
        summary.as_markdown(),
    ]
    if lost:
        parts.append("Without figures:\n\n" + "\n".join(f"- {sentence}" for sentence in lost))
    parts.append(f"<details><summary>All trials</summary>\n\n{_all_trials(ended, axes)}\n\n</details>")
    return "\n\n".join(parts) + "\n"


def split_settings(trials: Sequence[Trial], axes: Sequence[str]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The settings that all trials share, and by optimizer or variant those in which these differ from each other.

    What is swept over is in neither, nor is what differs within an optimizer or variant.
    """
    lines: dict[str, list[Trial]] = {}
    for trial in trials:
        lines.setdefault(" ".join(str(trial.values[field]) for field in LINES if field in axes), []).append(trial)

    def common(some: Sequence[Trial]) -> dict[str, Any]:
        first = some[0].settings
        names = [name for name in first if name not in axes]
        return {name: first[name] for name in names if all(trial.settings.get(name) == first[name] for trial in some)}

    same = common(trials)
    by_line = {line: {k: v for k, v in common(some).items() if k not in same} for line, some in lines.items()}
    return same, by_line if any(by_line.values()) else {}


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}` {_short(value)}" for name, value in settings.items() if value is not None)


def _short(value: Any) -> str:
    if not isinstance(value, list | tuple):
        return as_text(value)
    texts = [as_text(item) for item in value]
    return ", ".join(texts if len(texts) <= 6 else [*texts[:2], "...", texts[-1]])


def _tried(ended: pd.DataFrame, axis: str) -> str:
    """The values of an axis, by optimizer or variant where these were given other ones."""
    name = axis.replace("_", " ")
    of_lines = {
        line: ", ".join(map(as_text, sorted(rows[axis].unique(), key=lambda value: as_number(value) or 0.0)))
        for line, rows in ended.groupby("line", sort=False)
    }
    if axis in LINES:
        return f"{name} {', '.join(ended[axis].unique())}"
    if len(set(of_lines.values())) == 1:
        return f"{name} {next(iter(of_lines.values()))}"
    return f"{name} " + ", ".join(f"{values} ({line})" for line, values in of_lines.items())


def _all_trials(ended: pd.DataFrame, axes: Sequence[str]) -> str:
    measured = ("train_loss", "eval_accuracy", "eval_perplexity", "test_accuracy", "test_perplexity", "test_loss")
    columns = [*axes, "state", *(name for name in measured if name in ended)]
    lines = [f"| {' | '.join(columns)} |", f"|{'|'.join(['---'] * len(columns))}|"]
    for _, row in ended.iterrows():
        lines.append(f"| {' | '.join('' if pd.isna(row[name]) else as_text(row[name]) for name in columns)} |")
    return "\n".join(lines)


def put_section(path: str | Path, name: str, text: str) -> None:
    """Puts a section into a RESULTS.md, in place of the earlier one of that name, or at the end.

    What people wrote outside of the sections stays.
    """
    path = Path(path)
    whole = path.read_text(encoding="utf-8") if path.exists() else _HEAD
    section = f"<!-- {name} -->\n{text.strip()}\n<!-- end of {name} -->\n"
    earlier = re.compile(rf"<!-- {re.escape(name)} -->\n.*?<!-- end of {re.escape(name)} -->\n", re.S)
    whole = earlier.sub(lambda _: section, whole) if earlier.search(whole) else f"{whole.rstrip()}\n\n{section}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(whole, encoding="utf-8")
