"""Finds the finished runs of one recipe, and refuses runs that are not what the recipe says."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .recipes import deviations

_HUB_ID = re.compile(r"(?:hf-hub:|from_pretrained\(\")([\w.-]+/[\w.-]+)\"")
_FILES = ("training_args.json", "train_results.json", "eval_results.json")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        folder: The run's folder.
        settings: Contents of its `training_args.json`.
        metrics: Contents of its `train_results.json` and `eval_results.json`.
    """

    folder: Path
    settings: Mapping[str, Any]
    metrics: Mapping[str, Any]

    @property
    def recipe(self) -> str | None:
        """The recipe's path below `configs`; None for a run without one."""
        return self.settings.get("recipe")

    @property
    def variant(self) -> str | None:
        """The recipe's variant."""
        return self.settings.get("variant")

    @property
    def card_link(self) -> str:
        """A link to the run's card on the Hub, or "not pushed" if the card names no repository."""
        found = _HUB_ID.search((self.folder / "README.md").read_text(encoding="utf-8"))
        return f"[{found[1]}](https://huggingface.co/{found[1]})" if found else "not pushed"

    def __str__(self) -> str:
        return f"{self.recipe}" + (f", variant {self.variant}" if self.variant else "")


def find_runs(folders: Iterable[str | Path]) -> list[Run]:
    """Finds the finished runs in folders and anywhere below them.

    Raises:
        ValueError: A folder does not exist or holds no finished run.
    """
    runs = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise ValueError(f"There is no folder {str(folder)!r}.")
        candidates = [path.parent for path in sorted(folder.rglob(_FILES[0]))]
        finished = [path for path in candidates if all((path / name).is_file() for name in _FILES)]
        if not finished:
            raise ValueError(f"{str(folder)!r} holds no finished run: that has {', '.join(_FILES)}.")
        for path in finished:
            settings, trained, evaluated = (json.loads((path / name).read_text(encoding="utf-8")) for name in _FILES)
            runs[path.resolve()] = Run(path, settings, trained | evaluated)
    return list(runs.values())


def common_recipe(runs: Sequence[Run]) -> str:
    """Returns the recipe that all runs were made from.

    Raises:
        ValueError: A run was made from no recipe, or runs were made from several.
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
    """Refuses runs whose settings are not the recipe's, and two runs that are the same.

    Args:
        runs: Runs of one recipe.
        resolve: Returns the recipe's settings for a variant.

    Raises:
        ValueError: The settings of a run differ from the recipe's, or two runs of a variant have the same seed.
    """
    seen: dict[tuple, Path] = {}
    for run in runs:
        if found := deviations(run.settings, resolve(run.variant), run.metrics.get("num_processes", 1)):
            raise ValueError(f"{str(run.folder)!r} is not a run of {run}: {'; '.join(found)}.")
        key = (run.variant, run.settings["seed"])
        if key in seen:
            raise ValueError(
                f"{str(seen[key])!r} and {str(run.folder)!r} are runs of {run} with the same seed, {key[1]}, which count "
                "once: leave one of them out."
            )
        seen[key] = run.folder
