"""From a name to a model that transformers' Trainer saves natively and timm opens."""

import textwrap
from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.data import resolve_data_config
from torch import nn
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    PreTrainedModel,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)

from .sources import ModelSource, find_model, opening

# What an export has to say about preprocessing and adaptation; the rest of timm's record is about the weights' past.
_KEPT = ("fixed_input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std", "first_conv", "classifier")

# Arguments of `timm.create_model` and its helpers, not of architectures: a file that names them could have any file loaded.
_RESERVED = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "pretrained_filter_fn",
             "checkpoint_path", "cache_dir", "scriptable", "exportable", "no_jit", "model_name", "kwargs_filter",
             "model_cfg", "feature_cfg", "pretrained_model_args"}  # fmt: skip


def build_image_classifier(
    name: str | None,
    *,
    num_classes: int,
    id2label: Mapping[int, str] | None = None,
    in_chans: int | None = None,
    img_size: int | None = None,
    pretrained: bool = False,
    model_args: Mapping[str, Any] | None = None,
    data_config: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Builds an image classifier.

    A timm architecture becomes a `TimmWrapperForImageClassification` around the very model `timm.create_model` makes,
    with timm's initialisation (the wrapper alone would draw other weights) or pretrained ones. Any other folder or Hub id
    is opened with `AutoModelForImageClassification`. A folder or Hub id always brings its weights; a classifier for
    another number of classes is made anew.

    How images have to be prepared is `input_config(model)`: a model trained from scratch takes the data's size, mean and
    standard deviation, one that brings weights keeps those it was trained with.

    Args:
        name: A timm architecture, `hf-hub:ID` or a Hub id, `local-dir:PATH` or a folder.
        num_classes: Classes to tell apart.
        id2label: Names of the classes.
        in_chans: Channels of the images; default: the data's from scratch, otherwise the weights'.
        img_size: Height and width of the images in pixels; default: the data's from scratch, otherwise the weights'.
        pretrained: Load timm's pretrained weights for a timm architecture.
        model_args: Further arguments of the architecture.
        data_config: The data's own `input_size` (C, H, W), `mean`, `std`, `interpolation`, `crop_pct`; any may be missing.
        trust_remote_code: Run Python code that a model of transformers brings along.

    Raises:
        ValueError: Unknown name, unreachable weights, or arguments the architecture does not take.
    """
    args = dict(model_args or {})
    if "num_classes" in args:
        raise ValueError("num_classes follows from the data set: leave it out of --model_args.")
    source = find_model(name)
    labels = {int(k): str(v) for k, v in (id2label or {i: str(i) for i in range(num_classes)}).items()}
    label_config = {"num_labels": num_classes, "id2label": labels, "label2id": {v: k for k, v in labels.items()}}
    if source.architecture is None:
        return _build_transformers(source, args, label_config, trust_remote_code)

    from_scratch = source.kind == "timm" and not pretrained
    wanted = dict(data_config or {}) if from_scratch else {}
    size = wanted.pop("input_size", (None, None, None))
    args = {
        **(source.config.get("model_args") or {}),
        "in_chans": in_chans or size[0],
        "img_size": img_size or size[-1],
        **args,
    }
    args.pop("num_classes", None)
    reserved = sorted(_RESERVED & set(args))
    if reserved:
        raise ValueError(
            f"{reserved[0]}={args[reserved[0]]!r} among the arguments of {source.name!r} says from where to load what: "
            "leave it out, the model's name says that."
        )
    network = _build_timm(source, pretrained, num_classes, args)

    known = network.pretrained_cfg
    known.pop("state_dict", None)  # a second copy of the weights
    channels = args.get("in_chans") or known["input_size"][0]
    height, width = _pair(args["img_size"]) if args.get("img_size") else known["input_size"][1:]
    record = {k: known[k] for k in _KEPT if k in known} | wanted | {"input_size": (channels, height, width)}
    record |= {k: _per_channel(record[k], channels) for k in ("mean", "std")}
    # `img_size` is an argument of architectures built for one size; for others it is about the data alone.
    kept_args = {k: v for k, v in args.items() if v is not None and (k != "img_size" or known.get("fixed_input_size"))}
    config = TimmWrapperConfig(
        architecture=source.architecture.split(".")[0], model_args=kept_args, pretrained_cfg=record, **label_config
    )
    # The wrapper initialises weights its own way: it is made without any, and then given timm's network.
    with torch.device("meta"):
        model = TimmWrapperForImageClassification(config)
    model.timm_model = network
    return model


def input_config(model: PreTrainedModel, *, trust_remote_code: bool = False) -> dict[str, Any]:
    """How images are prepared for a model of `build_image_classifier`, in timm's terms.

    Args:
        model: The model; of transformers' own, its image processor is opened from where it came from.
        trust_remote_code: Run Python code that the image processor brings along.

    Returns:
        `input_size` (C, H, W), `interpolation`, `mean`, `std`, `crop_pct`, `crop_mode`.
    """
    if isinstance(model, TimmWrapperForImageClassification):
        return resolve_data_config(pretrained_cfg=model.config.pretrained_cfg)
    with opening("image processor", model.name_or_path):
        processor = AutoImageProcessor.from_pretrained(model.name_or_path, trust_remote_code=trust_remote_code)
    size, crop = dict(processor.size), dict(getattr(processor, "crop_size", None) or {})
    resized = size.get("height") or size["shortest_edge"]
    target = crop.get("height", resized) if getattr(processor, "do_center_crop", False) else resized
    return resolve_data_config(
        {"input_size": (len(processor.image_mean), target, target), "crop_pct": target / resized,
         "mean": processor.image_mean, "std": processor.image_std}
    )  # fmt: skip


def _build_timm(source: ModelSource, pretrained: bool, num_classes: int, args: Mapping[str, Any]) -> nn.Module:
    name, known = source.architecture, None
    if source.kind != "timm":
        stored = source.config.get("pretrained_cfg") or source.config  # flat in configurations of old
        known = {k: stored[k] for k in (*_KEPT, "input_size") if k in stored}
        known |= {"architecture": name, "num_classes": _classes(source), "state_dict": source.weights()}
        pretrained = True
    try:
        accepts_size = (known or timm.get_pretrained_cfg(name).to_dict()).get("fixed_input_size", False)
        args = {k: v for k, v in args.items() if v is not None and (k != "img_size" or accepts_size)}
        return timm.create_model(name, pretrained=pretrained, pretrained_cfg=known, num_classes=num_classes, **args)
    except OSError as error:
        raise ValueError(
            f"The pretrained weights of {source.name!r} are not on this machine and the Hub cannot be reached: check the "
            "network, or download them elsewhere and give their folder with --model."
        ) from error
    except (TypeError, ValueError, RuntimeError, AssertionError, AttributeError, KeyError) as error:
        given = ", ".join(f"{k}={v!r}" for k, v in args.items())
        said = textwrap.shorten(str(error), 300).rstrip(".")  # weights that do not fit are listed one by one
        raise ValueError(
            f"timm cannot build {source.name!r} with {given or 'its defaults'}: {said}; change --model_args or --model."
        ) from error


def _classes(source: ModelSource) -> int:
    """How many classes stored weights tell apart."""
    count = source.config.get("num_classes", len(source.config.get("id2label") or ()))
    if not isinstance(count, int) or count < 0:
        raise ValueError(f"The config.json of {source.name!r} names num_classes={count!r}: it is a number, 0 or more.")
    return count


def _build_transformers(
    source: ModelSource, args: Mapping[str, Any], label_config: Mapping[str, Any], trust_remote_code: bool
) -> PreTrainedModel:
    if args:
        raise ValueError(
            f"--model_args are arguments of timm architectures, but {source.name!r} is a transformers model."
        )
    with opening("image classifier", source.name):
        return AutoModelForImageClassification.from_pretrained(
            source.name, ignore_mismatched_sizes=True, trust_remote_code=trust_remote_code, **label_config
        )


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Statistics of colour images for greyscale ones, or the other way round."""
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels
