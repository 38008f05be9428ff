"""Finished runs: which recipe each was made from, and whether its settings still are the recipe's."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_geo.runs.report import finite

_HUB_ID = re.compile(r"(?:hf-hub:|from_pretrained\(\")([\w.-]+/[\w.-]+)\"")
_FILES = ("training_args.json", "train_results.json", "eval_results.json")
# A run belongs to its recipe whatever its seed and machine are, and however often it was logged, evaluated and saved.
_FREE = re.compile(
    "seed|data_seed|logging_.*|log_.*|save_.*|eval_(strategy|steps|delay|on_start|accumulation_steps|do_concat_batches)|"
    "report_to|disable_tqdm|dataloader_.*|ddp_.*|fsdp.*|use_cpu|per_device_eval_batch_size|auto_find_batch_size|"
    "full_determinism|torch_compile.*|skip_memory_metrics|include_.*|overwrite|fallback_dir|restore_.*|do_.*"
)
# Settings that a run derives from its data or that the Trainer sets, and that a recipe therefore does not have.
_DERIVED = {"remove_unused_columns", "train_sampling_strategy", "average_tokens_across_devices"}
_BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps")


@dataclass(frozen=True)
class FinishedRun:
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
        """A link to the run's card on the Hub, or "not pushed" if there is no card or it names no repository."""
        card = self.folder / "README.md"
        found = card.is_file() and _HUB_ID.search(card.read_text(encoding="utf-8"))
        return f"[{found[1]}](https://huggingface.co/{found[1]})" if found else "not pushed"

    def __str__(self) -> str:
        return f"{self.recipe}" + (f", variant {self.variant}" if self.variant else "")


def find_runs(folders: Sequence[str | Path], *, in_each: bool = True) -> list[FinishedRun]:
    """Finds the finished runs in folders and anywhere below them.

    Args:
        folders: The folders.
        in_each: Whether each folder has to hold a run, rather than any of them.

    Raises:
        ValueError: A folder does not exist, or there is no finished run where there has to be one.
    """
    runs = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise ValueError(f"There is no folder {str(folder)!r}.")
        candidates = [path.parent for path in sorted(folder.rglob(_FILES[0]))]
        finished = [path for path in candidates if all((path / name).is_file() for name in _FILES)]
        if in_each and not finished:
            raise ValueError(f"{str(folder)!r} holds no finished run: that has {', '.join(_FILES)}.")
        for path in finished:
            settings, trained, evaluated = (json.loads((path / name).read_text(encoding="utf-8")) for name in _FILES)
            runs[path.resolve()] = FinishedRun(path, settings, trained | evaluated)
    if not runs:
        raise ValueError(f"There is no finished run in {', '.join(map(str, folders))}: that has {', '.join(_FILES)}.")
    return list(runs.values())


def common_recipe(runs: Sequence[FinishedRun]) -> str:
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


def check_runs(runs: Sequence[FinishedRun], resolve: Callable[[str | None], Mapping[str, Any]]) -> None:
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


def origin(config: str | None, variant: str | None) -> dict[str, str | None]:
    """Describes where a run's settings come from.

    Returns:
        `recipe`, the file's path below `configs` or else its name, and `variant`; both None without a recipe.
    """
    if config is None:
        return {"recipe": None, "variant": None}
    parts = Path(config).resolve().parts
    below = parts[len(parts) - parts[::-1].index("configs") :] if "configs" in parts else parts[-1:]
    return {"recipe": "/".join(below), "variant": variant}


def differences(run: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[str]:
    """Describes each setting in which a run differs from its recipe; settings that only one of them has are left out."""
    # A run's record has null for an infinite number.
    run, recipe = finite(run), finite(json.loads(json.dumps(dict(recipe), default=str)))
    return [
        f"{name} is {run[name]!r} and not {recipe[name]!r}"
        for name in run
        if name in recipe and run[name] != recipe[name]
    ]


def deviations(run: Mapping[str, Any], recipe: Mapping[str, Any], num_processes: int) -> list[str]:
    """Describes each setting in which a run deviates from its recipe in more than the machine and the seed.

    The same batch may be divided into micro-batches and over processes in any way, and the data set may be a folder.

    Args:
        run: Settings of the run's `training_args.json`.
        recipe: Settings of the recipe.
        num_processes: The run's world size.
    """
    run, recipe = dict(run), dict(recipe)
    for settings, world_size in ((run, num_processes), (recipe, 1)):
        settings["dataset"] = Path(str(settings["dataset"])).name
        batch_size = world_size
        for name in _BATCH:
            batch_size *= settings.pop(name)
        if settings["columns"] is None:  # the columns of a stream are its batch
            settings["batch"] = batch_size
    names = {name for name in run if name not in _DERIVED and not _FREE.fullmatch(name)}
    return differences({name: run[name] for name in names}, recipe)
