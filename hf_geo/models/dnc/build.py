"""Builds models that copy sequences by name, and registers them with transformers' Auto classes."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel

from ..config import build_from_args
from ..sources import opening
from .configuration_dnc import DncConfig
from .modeling_dnc import DncForSequenceCopy

AutoConfig.register(DncConfig.model_type, DncConfig)
AutoModel.register(DncConfig, DncForSequenceCopy)
# `save_pretrained` then writes the code beside the weights, for those who open them without this package.
DncConfig.register_for_auto_class()
DncForSequenceCopy.register_for_auto_class("AutoModel")


def build_copy_model(
    name: str,
    input_size: int,
    output_size: int,
    *,
    model_args: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Builds a model that reads `input_size` numbers a step and predicts `output_size` bits.

    Args:
        name: "dnc", built from scratch; or a folder or Hub id, opened with its weights.
        input_size, output_size: As the data have them.
        model_args: For "dnc", the other fields of its configuration (`memory_size=32,num_read_heads=2`).
        trust_remote_code: Run Python code that the folder or repository brings along.

    Raises:
        ValueError: An unknown model or argument, sizes that make no network, or a model for other data.
    """
    args, sizes = dict(model_args or {}), {"input_size": input_size, "output_size": output_size}
    if name != DncConfig.model_type:
        if args:
            raise ValueError(f"--model_args are for {DncConfig.model_type!r}: {name!r} brings its own configuration.")
        with opening("model of sequences", name):
            model = AutoModel.from_pretrained(name, dtype=torch.float32, trust_remote_code=trust_remote_code)
        found = {key: getattr(model.config, key, None) for key in sizes}
        if found != sizes:
            raise ValueError(
                f"{name!r} reads {found['input_size']} numbers a step and predicts {found['output_size']}, but the data have "
                f"{input_size} and {output_size}: give the --copy_bits it was trained with."
            )
        return model

    known = DncConfig.__annotations__.keys() - sizes.keys()
    return build_from_args(name, known, args, lambda **given: DncForSequenceCopy(DncConfig(**sizes, **given)))
