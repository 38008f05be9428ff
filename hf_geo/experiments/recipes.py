"""Which recipe a run came from, and whether it still is that recipe's."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# How often is looked at and saved, on what machine, with which random numbers: a recipe's run whatever these are.
_FREE = re.compile(
    "seed|data_seed|logging_.*|log_.*|save_.*|eval_(strategy|steps|delay|on_start|accumulation_steps|do_concat_batches)|"
    "report_to|disable_tqdm|dataloader_.*|ddp_.*|fsdp.*|use_cpu|per_device_eval_batch_size|auto_find_batch_size|"
    "full_determinism|torch_compile.*|skip_memory_metrics|include_.*|overwrite|fallback_dir|restore_.*|do_.*"
)
# What follows from the data once they are opened, so that it is in a run's settings and not in a recipe's.
_DERIVED = {"remove_unused_columns", "train_sampling_strategy"}
_BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps")


def origin(config: str | None, variant: str | None) -> dict[str, str | None]:
    """What a run notes about its recipe: the file's place under `configs`, or its name, and the variant."""
    if config is None:
        return {"recipe": None, "variant": None}
    parts = Path(config).resolve().parts
    below = parts[len(parts) - parts[::-1].index("configs") :] if "configs" in parts else parts[-1:]
    return {"recipe": "/".join(below), "variant": variant}


def differences(run: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[str]:
    """In what two sets of settings differ, as parts of a sentence; a setting that only one of them knows is left out."""
    recipe = json.loads(json.dumps(dict(recipe), default=str))
    return [
        f"{name} is {run[name]!r} and not {recipe[name]!r}"
        for name in run
        if name in recipe and run[name] != recipe[name]
    ]


def deviations(run: Mapping[str, Any], recipe: Mapping[str, Any], processes: int) -> list[str]:
    """In what a run's settings are not its recipe's, as parts of a sentence.

    A batch may be divided over micro-batches and processes in any way, and a data set may lie in a folder.

    Args:
        run: Of its `training_args.json`.
        recipe: What the recipe means.
        processes: That the run had.
    """
    run, recipe = dict(run), dict(recipe)
    for settings, times in ((run, processes), (recipe, 1)):
        settings["dataset"] = Path(str(settings["dataset"])).name
        batch = times
        for name in _BATCH:
            batch *= settings.pop(name)
        if settings["columns"] is None:  # the columns of a stream are its batch
            settings["batch"] = batch
    names = {name for name in run if name not in _DERIVED and not _FREE.fullmatch(name)}
    return differences({name: run[name] for name in names}, recipe)
