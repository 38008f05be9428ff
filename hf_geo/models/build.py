"""Builds image classifiers by name, as models that transformers' Trainer saves natively and timm opens."""

import textwrap
from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.data import resolve_data_config
from torch import nn
from transformers import (
    AutoModelForImageClassification,
    PreTrainedModel,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)

from .image_processors import ProcessorImages, image_channels, open_image_processor
from .image_sizes import size_timm_takes
from .sources import ModelSource, find_model, opening

# Entries of timm's record that describe preprocessing and adaptation; the others describe where weights came from.
_KEPT = ("fixed_input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std", "first_conv", "classifier")
# Entries that timm needs to read stored weights.
_SOURCE = (*_KEPT, "input_size", "label_offset")

# Arguments of `timm.create_model` and its helpers, not of architectures: a config.json with them could load any file.
_RESERVED = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "pretrained_filter_fn",
             "checkpoint_path", "cache_dir", "scriptable", "exportable", "no_jit", "model_name", "kwargs_filter",
             "model_cfg", "feature_cfg", "pretrained_model_args"}  # fmt: skip
# What timm raises over arguments that an architecture does not take; a KeyError over unknown names of layers.
_BAD_ARGUMENTS = (TypeError, ValueError, RuntimeError, AssertionError, KeyError)


def build_image_classifier(
    name: str | None,
    *,
    num_classes: int,
    id2label: Mapping[int, str] | None = None,
    img_size: int | None = None,
    pretrained: bool = False,
    model_args: Mapping[str, Any] | None = None,
    data_config: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Builds an image classifier.

    A timm architecture becomes a `TimmWrapperForImageClassification` around the model that `timm.create_model` makes, with
    timm's initialisation (the wrapper alone would draw other weights) or pretrained weights. Any other folder or Hub id is
    opened with `AutoModelForImageClassification`. A folder or Hub id always brings its weights; its classifier is made
    anew for another number of classes.

    `input_config(model)` tells how images are prepared: a model trained from scratch takes the data's size, mean and
    standard deviation, and one that brings weights keeps those it was trained with.

    Args:
        name: A timm architecture, `hf-hub:ID` or a Hub id, `local-dir:PATH` or a folder.
        num_classes: Number of classes.
        id2label: Names of the classes.
        img_size: Height and width of the images in pixels; by default the data's from scratch, otherwise the weights'.
        pretrained: Load timm's pretrained weights for a timm architecture.
        model_args: Further arguments of the architecture.
        data_config: The data's own `input_size` (C, H, W), `mean`, `std`, `interpolation`, `crop_pct`; any may be missing.
        trust_remote_code: Run Python code that a model of transformers brings along.

    Raises:
        ValueError: Unknown name, unreachable weights, or arguments the architecture does not take.
    """
    if "num_classes" in (model_args or {}):
        raise ValueError("num_classes follows from the data set: leave it out of --model_args.")
    source = find_model(name)
    labels = {int(k): str(v) for k, v in (id2label or {i: str(i) for i in range(num_classes)}).items()}
    label_config = {"num_labels": num_classes, "id2label": labels, "label2id": {v: k for k, v in labels.items()}}
    if source.architecture is None:
        return _build_transformers(source, model_args, label_config, trust_remote_code)

    from_scratch = source.kind == "timm" and not pretrained
    preprocessing = dict(data_config or {}) if from_scratch else {}
    size = preprocessing.pop("input_size", (None, None, None))
    asked = {"in_chans": size[0], "img_size": img_size or size[-1], **(model_args or {})}
    asked = {k: v for k, v in asked.items() if v is not None}
    args = {**source.model_args, **asked}
    reserved = sorted(_RESERVED & set(args))
    if reserved:
        raise ValueError(
            f"{reserved[0]}={args[reserved[0]]!r} is no argument of an architecture, but says where {source.name!r} is loaded from: "
            "leave it out, because the model's name says that."
        )
    if not _takes_size(source):
        args.pop("img_size", None)
    network = _build_timm(source, pretrained, num_classes, args)
    known = network.pretrained_cfg
    known.pop("state_dict", None)  # a second copy of the weights
    channels, *size = _stored_config(source).get("input_size") or known["input_size"]
    channels = args.get("in_chans", channels)
    size = asked.get("img_size") or (known.get("fixed_input_size") and args.get("img_size")) or size
    record = {k: known[k] for k in _KEPT if k in known} | preprocessing | {"input_size": (channels, *_pair(size))}
    record |= {k: _per_channel(record[k], channels) for k in ("mean", "std")}
    architecture = source.architecture.split(".")[0]
    config = TimmWrapperConfig(architecture=architecture, model_args=args, pretrained_cfg=record, **label_config)
    return _wrap(network, config)


def _wrap(network: nn.Module, config: TimmWrapperConfig) -> TimmWrapperForImageClassification:
    # The wrapper would initialise weights in its own way, so it is made without any and then given timm's network.
    with torch.device("meta"):
        model = TimmWrapperForImageClassification(config)
    model.timm_model = network
    if len(list(network.parameters())) < len(list(network.named_parameters(remove_duplicate=False))):
        model.register_state_dict_post_hook(_copy_shared_tensors)
    return model


def input_config(
    model: PreTrainedModel,
    *,
    native_size: tuple[int, int] = (224, 224),
    image_size: int | None = None,
    trust_remote_code: bool = False,
) -> dict[str, Any] | ProcessorImages:
    """Tells how images are prepared for a model of `build_image_classifier`, in training, evaluation and its export.

    Args:
        model: The model. The image processor of a model of transformers is opened from where the model came from.
        native_size: Height and width of an image of the data in pixels.
        image_size: Height and width to set an image processor to; timm's networks are built for theirs.
        trust_remote_code: Run Python code that the image processor brings along.

    Returns:
        For timm's networks `input_size` (C, H, W), `interpolation`, `mean`, `std`, `crop_pct`, `crop_mode`; for others
        the image processor.

    Raises:
        ValueError: The image processor cannot be opened, set to that size, or does not fit the model.
    """
    if isinstance(model, TimmWrapperForImageClassification):
        return resolve_data_config(pretrained_cfg=model.config.pretrained_cfg)
    processor = open_image_processor(
        model, native_size=native_size, image_size=image_size, trust_remote_code=trust_remote_code
    )
    return ProcessorImages(processor, image_channels(model), native_size)


def _copy_shared_tensors(model: nn.Module, state_dict: dict[str, Any], prefix: str, local_metadata: object) -> None:
    """Copies tensors that modules share (CoaT's) for each of their names: safetensors stores none under two names."""
    seen = set()
    for name, tensor in model.named_parameters(prefix.removesuffix("."), remove_duplicate=False):
        if id(tensor) in seen and not isinstance(state_dict[name], nn.Parameter):  # as with keep_vars
            state_dict[name] = state_dict[name].clone()
        seen.add(id(tensor))


def _build_timm(source: ModelSource, pretrained: bool, num_classes: int, args: Mapping[str, Any]) -> nn.Module:
    known = None
    if source.kind != "timm":
        known = {k: v for k, v in _stored_config(source).items() if k in _SOURCE}
        known |= {"architecture": source.architecture, "num_classes": _stored_classes(source)}
        known |= {"input_size": _weights_size(source), "state_dict": source.weights()}
    try:
        return timm.create_model(
            source.architecture,
            pretrained=pretrained or source.kind != "timm",
            pretrained_cfg=known,
            num_classes=num_classes,
            **args,
        )
    except OSError as error:
        raise ValueError(
            f"The pretrained weights of {source.name!r} are not on this machine and the Hub cannot be reached: check the "
            "network, or download them elsewhere and give their folder with --model."
        ) from error
    except (*_BAD_ARGUMENTS, AttributeError) as error:
        # timm looks up the layers that a folder's config.json names; anywhere else such an error is a mistake of ours.
        if isinstance(error, AttributeError) and source.kind == "timm":
            raise
        raise ValueError(_explain(source, num_classes, args, error)) from error


def _explain(source: ModelSource, num_classes: int, args: Mapping[str, Any], error: Exception) -> str:
    """The message for a network that timm cannot build; it names a size that works where the size is wrong."""
    said = textwrap.shorten(str(error), 300).rstrip(".")  # it may list all weights that do not fit
    if "img_size" in args:
        channels, height, width = args.get("in_chans", 3), *_pair(args["img_size"])
        other = size_timm_takes(source.architecture, num_classes, args, channels, max(height, width), fixed=True)
        if other:
            return f"{source.name!r} is not made for images of {height} x {width} ({said}): give --image_size {other}."
    given = ", ".join(f"{k}={v!r}" for k, v in args.items())
    return f"timm cannot build {source.name!r} with {given or 'its defaults'}: {said}; change --model_args or --model."


def _stored_config(source: ModelSource) -> Mapping[str, Any]:
    """timm's record of stored weights; empty for an architecture without weights."""
    return source.config.get("pretrained_cfg") or source.config  # older configurations are flat


def _takes_size(source: ModelSource) -> bool:
    """Whether the architecture has an argument `img_size`; others take images of any size."""
    configs = (timm.get_pretrained_cfg(source.architecture).to_dict(), _stored_config(source))
    return "img_size" in source.model_args or any(config.get("fixed_input_size") for config in configs)


def _weights_size(source: ModelSource) -> tuple[int, int, int]:
    """(C, H, W) that the network with the stored weights takes: its arguments take precedence over the record."""
    recorded = _stored_config(source).get("input_size") or timm.get_pretrained_cfg(source.architecture).input_size
    channels = source.model_args.get("in_chans", recorded[0])
    return channels, *_pair(source.model_args.get("img_size", recorded[1:]))


def _stored_classes(source: ModelSource) -> int:
    """Number of classes of the stored weights."""
    count = source.config.get("num_classes")
    return len(source.config.get("id2label") or ()) if count is None else count


def _build_transformers(
    source: ModelSource, model_args: Mapping[str, Any] | None, label_config: Mapping[str, Any], trust_remote_code: bool
) -> PreTrainedModel:
    if model_args:
        raise ValueError(
            f"--model_args are arguments of timm architectures, but {source.name!r} is a transformers model."
        )
    with opening("image classifier", source.name):
        return AutoModelForImageClassification.from_pretrained(
            source.name,
            dtype=torch.float32,  # as timm's networks are, whatever the weights were stored in
            ignore_mismatched_sizes=True,
            trust_remote_code=trust_remote_code,
            problem_type="single_label_classification",
            **label_config,
        )


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Converts statistics of colour images for greyscale ones, or the other way round."""
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels
