"""Which recipe a run was made from, and whether its settings still are the recipe's."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# A run belongs to its recipe whatever its seed and machine are, and however often it was logged, evaluated and saved.
_FREE = re.compile(
    "seed|data_seed|logging_.*|log_.*|save_.*|eval_(strategy|steps|delay|on_start|accumulation_steps|do_concat_batches)|"
    "report_to|disable_tqdm|dataloader_.*|ddp_.*|fsdp.*|use_cpu|per_device_eval_batch_size|auto_find_batch_size|"
    "full_determinism|torch_compile.*|skip_memory_metrics|include_.*|overwrite|fallback_dir|restore_.*|do_.*"
)
# Settings that a run derives from its data, and that a recipe therefore does not have.
_DERIVED = {"remove_unused_columns", "train_sampling_strategy"}
_BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps")


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
    recipe = json.loads(json.dumps(dict(recipe), default=str))
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
