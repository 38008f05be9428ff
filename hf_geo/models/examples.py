"""Builds a model from its configuration alone, with random inputs of the kind that it takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from huggingface_hub.errors import StrictDataclassError
from timm.data import resolve_data_config
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from .config import parse_model_args
from .language import max_positions
from .sources import find_model, opening, warn_of_code

_HEADS = {
    "ForImageClassification": AutoModelForImageClassification,
    "ForCausalLM": AutoModelForCausalLM,
    "LMHeadModel": AutoModelForCausalLM,
    "ForMaskedLM": AutoModelForMaskedLM,
    "ForSequenceClassification": AutoModelForSequenceClassification,
}
_ELSEWHERE = "call hf_geo.optim.measure_invariance(model, example_inputs) on a model and a batch of yours."


@dataclass(frozen=True)
class ExampleSizes:
    """Sizes of random inputs.

    Args:
        batch_size: Number of samples.
        img_size: Height and width of images; the model's own by default.
        length: Tokens of a text.
    """

    batch_size: int = 4
    img_size: int | None = None
    length: int = 32


def build_example(
    name: str, model_args: str | None, sizes: ExampleSizes, *, trust_remote_code: bool = False
) -> tuple[nn.Module, dict[str, Tensor]]:
    """Builds a freshly initialized model, and random inputs under the names of the arguments of `forward`.

    Args:
        name: A timm architecture, a folder, a Hub id, or a model type of transformers in its default configuration.
        model_args: Further arguments of the architecture, such as "drop_path_rate=0.1,num_classes=10".
        sizes: Sizes of the inputs.
        trust_remote_code: Run Python code that the model brings along.

    Raises:
        ValueError: The model is unknown, does not take the arguments, or takes inputs other than images or tokens.
    """
    args = parse_model_args(model_args)
    if name in CONFIG_MAPPING and not timm.is_model(name):
        return _build_transformers(name, AutoConfig.for_model(name), args, sizes, trust_remote_code)
    source = find_model(name)
    if source.architecture is None:
        if trust_remote_code:
            warn_of_code(source.name)
        with opening("configuration", source.name):
            config = AutoConfig.from_pretrained(source.name, trust_remote_code=trust_remote_code)
        return _build_transformers(name, config, args, sizes, trust_remote_code)
    stored = {key: source.config[key] for key in ("num_classes",) if key in source.config} | source.model_args
    return _build_timm(source.architecture, {**stored, **args}, sizes)


def _build_timm(name: str, args: Mapping[str, Any], sizes: ExampleSizes) -> tuple[nn.Module, dict[str, Tensor]]:
    args = dict(args)
    if sizes.img_size and timm.get_pretrained_cfg(name).fixed_input_size:
        args["img_size"] = sizes.img_size
    try:
        model = timm.create_model(name, **args)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ValueError(f"timm cannot build {name!r} with {args}: {error}; change --model_args.") from error
    channels, height, width = resolve_data_config(args, model=model)["input_size"]
    size = (sizes.img_size or height, sizes.img_size or width)
    return model, {"x": torch.randn(sizes.batch_size, args.get("in_chans", channels), *size)}


def _build_transformers(
    name: str, config: PretrainedConfig, args: Mapping[str, Any], sizes: ExampleSizes, trust_remote_code: bool
) -> tuple[nn.Module, dict[str, Tensor]]:
    given = ", ".join(f"{key}={value!r}" for key, value in args.items())
    unknown = [key for key in args if not hasattr(config, key)]
    if unknown:
        raise ValueError(f"The configuration of {name!r} has no {unknown[0]!r} to be set by --model_args.")
    try:
        config.update(args)
    except StrictDataclassError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{name!r} does not take {given}: {reason}; change --model_args.") from error
    head = _choose_head(config)
    try:
        model = head.from_config(config, trust_remote_code=trust_remote_code)
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        if args:
            raise ValueError(f"{name!r} cannot be made with --model_args {given}: {error}") from error
        raise ValueError(
            f"transformers makes no {head.__name__} of {name!r} ({config.model_type}): {_ELSEWHERE}"
        ) from error
    return model, _random_inputs(model, config, sizes)


def _choose_head(config: PretrainedConfig) -> type:
    """Chooses the class that makes a model with the configuration's own head, or the usual one of its modality."""
    architecture = (getattr(config, "architectures", None) or [""])[0]
    is_text = hasattr(config.get_text_config(), "vocab_size")
    usual = AutoModelForCausalLM if is_text else AutoModelForImageClassification
    return next((head for suffix, head in _HEADS.items() if architecture.endswith(suffix)), usual)


def _random_inputs(model: PreTrainedModel, config: PretrainedConfig, sizes: ExampleSizes) -> dict[str, Tensor]:
    text = config.get_text_config()
    if model.main_input_name == "pixel_values":
        size = sizes.img_size or getattr(config, "image_size", 224)
        height, width = size if isinstance(size, list | tuple) else (size, size)
        return {"pixel_values": torch.randn(sizes.batch_size, getattr(config, "num_channels", 3), height, width)}
    if model.main_input_name == "input_ids" and hasattr(text, "vocab_size"):
        length = min(sizes.length, max_positions(model) or sizes.length)
        return {"input_ids": torch.randint(text.vocab_size, (sizes.batch_size, length))}
    raise ValueError(
        f"{type(model).__name__} takes {model.main_input_name}, which cannot be made up here: {_ELSEWHERE}"
    )
