"""Finished runs of one recipe, beside what its paper published."""

import json
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_geo.metrics import is_share

from .recipes import deviations

PUBLISHED = "published.json"  # beside the recipes of a paper
_ON_HUB = re.compile(r"(?:hf-hub:|from_pretrained\(\")([\w.-]+/[\w.-]+)\"")
_RUN = ("training_args.json", "train_results.json", "eval_results.json")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        folder: Where it is.
        settings: Of its `training_args.json`.
        metrics: Of its `train_results.json` and `eval_results.json`.
    """

    folder: Path
    settings: Mapping[str, Any]
    metrics: Mapping[str, Any]

    @property
    def recipe(self) -> str | None:
        return self.settings.get("recipe")

    @property
    def variant(self) -> str | None:
        return self.settings.get("variant")

    @property
    def card(self) -> str:
        """A link to its card on the Hub; "not pushed" for one that names no repository."""
        found = _ON_HUB.search((self.folder / "README.md").read_text(encoding="utf-8"))
        return f"[{found[1]}](https://huggingface.co/{found[1]})" if found else "not pushed"


def find_runs(folders: Iterable[str | Path]) -> list[Run]:
    """The finished runs in folders and anywhere below them.

    Raises:
        ValueError: A folder that is not there or holds no finished run.
    """
    runs = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise ValueError(f"There is no folder {str(folder)!r}.")
        places = [path.parent for path in sorted(folder.rglob(_RUN[0]))]
        found = [place for place in places if all((place / name).is_file() for name in _RUN)]
        if not found:
            raise ValueError(f"{str(folder)!r} holds no finished run: that has {', '.join(_RUN)}.")
        for place in found:
            settings, *metrics = (json.loads((place / name).read_text(encoding="utf-8")) for name in _RUN)
            runs[place.resolve()] = Run(place, settings, metrics[0] | metrics[1])
    return list(runs.values())


def only_recipe(runs: Sequence[Run]) -> str:
    """The recipe that all runs are of.

    Raises:
        ValueError: A run of no recipe, or runs of several.
    """
    for run in runs:
        if run.recipe is None:
            raise ValueError(
                f"{str(run.folder)!r} was not made from a recipe (--config), so it has nothing to stand beside."
            )
    recipes = sorted({run.recipe for run in runs})
    if len(recipes) > 1:
        raise ValueError(f"These are runs of several recipes ({', '.join(recipes)}): name those of one.")
    return recipes[0]


def check_runs(runs: Sequence[Run], resolve: Callable[[str | None], Mapping[str, Any]]) -> None:
    """Refuses runs that are not what the recipe says, and the same run twice.

    Args:
        runs: Of one recipe.
        resolve: From a variant to the settings it means.

    Raises:
        ValueError: The settings of a run differ from the recipe's, or two runs of a variant have the same seed.
    """
    seen: dict[tuple, Path] = {}
    for run in runs:
        if found := deviations(run.settings, resolve(run.variant), run.metrics.get("num_processes", 1)):
            raise ValueError(f"{str(run.folder)!r} is not a run of {_named(run)}: {'; '.join(found)}.")
        key = (run.variant, run.settings["seed"])
        if key in seen:
            raise ValueError(
                f"{str(seen[key])!r} and {str(run.folder)!r} are runs of {_named(run)} with the same seed, {key[1]}, which "
                "count once: leave one of them out."
            )
        seen[key] = run.folder


def _named(run: Run) -> str:
    return f"{run.recipe}" + (f", variant {run.variant}" if run.variant else "")


def read_published(paper: Path, recipe: str) -> Mapping[str, Any]:
    """What a paper published for a recipe: `metric`, `source` and `values` by variant; empty where nothing is known."""
    path = paper / PUBLISHED
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return known.get(Path(recipe).stem, {})


def as_table(runs: Sequence[Run], published: Mapping[str, Any]) -> str:
    """The runs as Markdown, a row a variant: ours, published, the difference, and what it took.

    Args:
        runs: Of one recipe.
        published: Of `read_published`; its variants come first.

    Raises:
        ValueError: A run did not measure what was published.
    """
    metric = published.get("metric") or next(
        name
        for name in ("test_accuracy", "test_perplexity", "eval_accuracy", "eval_perplexity")
        if name in runs[0].metrics
    )
    for run in runs:
        if metric not in run.metrics:
            raise ValueError(f"{str(run.folder)!r} did not measure {metric}, which was published.")
    digits = 3 if metric.endswith("loss") else 2
    share, theirs_by = is_share(metric), published.get("values", {})
    unit = " (%)" if share else ""
    head = ["variant", f"ours, {metric}{unit}", "n", "published", "difference", "hardware", "time a run", "cards"]
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join(['---'] * len(head))}|"]
    for variant in dict.fromkeys([*theirs_by, *sorted({run.variant or "" for run in runs})]):
        mine = sorted((run for run in runs if (run.variant or "") == variant), key=lambda run: run.settings["seed"])
        if not mine:
            continue
        values = [run.metrics[metric] * (100 if share else 1) for run in mine]
        mean, theirs = statistics.fmean(values), theirs_by.get(variant)
        spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
        cells = [variant or "as it stands", f"{mean:.{digits}f}{spread}", str(len(values))]
        if theirs is None:
            cells += ["not known", ""]
        else:
            deviation = f" ± {theirs['std']:.{digits}f}" if theirs.get("std") is not None else ""
            cells += [f"{theirs['value']:.{digits}f}{deviation}", f"{mean - theirs['value']:+.{digits}f}"]
        hardware = dict.fromkeys(run.metrics.get("hardware", "not recorded") for run in mine)
        seconds = statistics.fmean(run.metrics["train_runtime"] for run in mine)
        cells += [", ".join(hardware), _duration(seconds), ", ".join(dict.fromkeys(run.card for run in mine))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
