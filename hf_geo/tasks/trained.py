"""Trained models by name, and the settings of the runs that they come from."""

import json
from typing import Any

from hf_geo.models.sources import ModelSource, find_model

SETTINGS = "training_args.json"


def find_trained(name: str) -> ModelSource:
    """The source of a trained model.

    Raises:
        ValueError: There is no such model, or `name` is an architecture without weights.
    """
    source = find_model(name)
    if source.kind == "timm":
        raise ValueError(
            f"{name!r} names an architecture without weights of a run: give a trained model's folder or id."
        )
    return source


def read_run_settings(source: ModelSource) -> dict[str, Any]:
    """The public settings of the run that trained a model; empty where they were not kept.

    Raises:
        ValueError: The file of settings is damaged.
    """
    path = source.find_file(SETTINGS)
    if path is None:
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{str(path)!r} is not JSON ({error}): remove it, and name the data with --dataset."
        ) from error
    if not isinstance(settings, dict):
        raise ValueError(f"{str(path)!r} holds no settings: remove it, and name the data with --dataset.")
    return settings
