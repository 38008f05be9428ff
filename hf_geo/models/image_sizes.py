"""Checks, before training, that a network takes images of a size and gives logits, and finds a size that it takes."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import timm
import torch
from transformers import PreTrainedModel, TimmWrapperForImageClassification

_STRIDES = (8, 14, 16, 28, 32, 64)  # sizes of patches and windows, and factors that feature maps shrink by
_USUAL = (96, 128, 160, 192, 224, 256, 288, 320, 384)


def check_images(model: PreTrainedModel, name: str, size: tuple[int, int, int]) -> None:
    """Runs a model on two images as in training and on one as in evaluation; leaves it and the random state unchanged.

    Args:
        model: A model of `build_image_classifier`.
        name: The user's name for it.
        size: (C, H, W) of the images.

    Raises:
        ValueError: The model takes no such images (the message names a size that it takes), or gives no logits.
    """
    try:
        outputs = {count: _run(model, count, size) for count in (2, 1)}
    except Exception as error:  # networks have no common way to refuse a size
        said = textwrap.shorten(str(error), 200).rstrip(".") or type(error).__name__
        raise ValueError(
            f"{name!r} does not take images of {' x '.join(map(str, size))} ({said}): {_remedy(model, size)}."
        ) from error
    for count, logits in outputs.items():
        shape = (count, model.config.num_labels)
        if not (isinstance(logits, torch.Tensor) and logits.shape == shape):
            found = f"shape {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else f"a {type(logits).__name__}"
            raise ValueError(
                f"{name!r} gives {found} for {count} image{'s' * (count > 1)} instead of logits of shape {shape}, so it is no "
                "classifier as it is built: leave out what --model_args change of its outputs, or choose another --model."
            )


def size_timm_takes(
    architecture: str, num_classes: int, args: Mapping[str, Any], channels: int, size: int, *, fixed: bool
) -> int | None:
    """Finds a size of square images near `size` that a timm network takes, without weights or computation.

    Returns None if there is none, or if the network takes `size` too, which then is not the mistake.

    Args:
        architecture: timm's name of the network.
        num_classes: Number of its outputs.
        args: Its further arguments.
        channels: Channels of the images.
        size: Height and width that the network does not take.
        fixed: Whether it is built for one size, given by the argument `img_size`.
    """

    def takes(side: int) -> bool:
        try:
            with torch.device("meta"):
                resized = {**args, "img_size": side} if fixed else args
                network = timm.create_model(architecture, num_classes=num_classes, **resized)
                images = torch.zeros(2, channels, side, side)
                return all(network.train(mode)(images).shape == (2, num_classes) for mode in (True, False))
        except Exception:  # as above
            return False

    sizes = _near(size, timm.get_pretrained_cfg(architecture).input_size[-1])
    return None if takes(size) else next(filter(takes, sizes), None)


def _run(model: PreTrainedModel, count: int, size: tuple[int, int, int]) -> Any:
    """Runs a model on `count` random images and returns its logits, or what it has in their place."""
    images = torch.randn(count, *size, generator=torch.Generator().manual_seed(0))
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    modes = {module: module.training for module in model.modules()}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        model.train(count > 1)  # a batch of one has no variance in 1 x 1 feature maps
        try:
            outputs = torch.func.functional_call(model, buffers, kwargs={"pixel_values": images})
        finally:
            for module, mode in modes.items():
                module.training = mode
    return outputs.get("logits") if isinstance(outputs, Mapping) else outputs[0]


def _remedy(model: PreTrainedModel, size: tuple[int, int, int]) -> str:
    """The advice that ends the message: a size that the model takes, or another model."""
    channels, height, width = size
    config, side = model.config, max(height, width)
    if isinstance(model, TimmWrapperForImageClassification):
        fixed = config.pretrained_cfg.get("fixed_input_size", False) or "img_size" in config.model_args
        found = size_timm_takes(config.architecture, config.num_labels, config.model_args, channels, side, fixed=fixed)
    else:

        def takes(other: int) -> bool:
            try:
                _run(model, 1, (channels, other, other))
            except Exception:  # as above
                return False
            return True

        made_for = getattr(config, "image_size", None)
        sizes = [made_for] if isinstance(made_for, int) else _near(side, None)
        found = next(filter(takes, sizes), None)
    return f"give --image_size {found}" if found else "choose another --model"


def _near(size: int, default: int | None) -> Iterator[int]:
    """Yields usual sizes near `size`: the larger ones first, each in the order of their distance."""
    multiples = {side for stride in _STRIDES for side in (size // stride * stride, -(-size // stride) * stride)}
    sides = {*multiples, *_USUAL, *([default] if default else [])} - {0, size}
    yield from sorted(side for side in sides if side > size)
    yield from sorted((side for side in sides if side < size), reverse=True)
