"""Opens or makes a model's image processor, sets it to a size, and divides its work in two steps for augmentation."""

import json
import logging
import tempfile
import textwrap
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from transformers import AutoImageProcessor, BaseImageProcessor, PreTrainedModel, ViTImageProcessor

from .sources import find_model, opening

logger = logging.getLogger(__name__)

# Switches of an image processor that change the values of pixels; all others change the positions of pixels.
_VALUES = ("do_rescale", "do_normalize", "do_flip_channel_order", "include_top")
_SIZES = ("size", "crop_size", "pad_size", "resize_short")
_PROBES = ((64, 96), (96, 64))  # height and width of images that show whether all are prepared to one size


class ProcessorImages:
    """Prepares images by an image processor, at once or in two steps with augmentation between them.

    Args:
        processor: The image processor, which is exported with the model.
        channels: Channels of the network's images.
        native_size: Height and width of an image of the data in pixels.

    Attributes:
        size: (C, H, W) of a prepared image of the data.
        uniform: Whether images of every size are prepared to that size.

    Raises:
        ValueError: The image processor does not turn an image into pixels of that many channels.
    """

    keeps_size = False  # unknown, so images of the network's size are processed too

    def __init__(self, processor: BaseImageProcessor, channels: int, native_size: tuple[int, int]) -> None:
        self.processor, self._native = processor, noise(channels, native_size)
        try:
            shape = tuple(self.whole(self._native).shape)
            found = f"a tensor of shape {shape}"
        except (TypeError, ValueError, RuntimeError) as error:
            shape, found = (), textwrap.shorten(str(error), 200).rstrip(".")
        if len(shape) != 3 or shape[0] != channels:
            raise ValueError(
                f"The network takes images of {channels} channel{'s' * (channels > 1)}, but of such an image its "
                f"{type(processor).__name__} makes no pixels of as many channels ({found}): correct its "
                "preprocessor_config.json, or choose another --model."
            )
        self.size = shape
        self.uniform = {tuple(self.whole(noise(channels, probe)).shape) for probe in _PROBES} == {shape}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProcessorImages) and self.processor.to_dict() == other.processor.to_dict()

    __hash__ = None

    @cached_property
    def divisible(self) -> bool:
        """Whether the two steps give what the processor gives at once."""
        try:
            pixels = self.pixels(self._native)
            return pixels.dtype == torch.uint8 and torch.equal(self.values(pixels[None])[0], self.whole(self._native))
        except (TypeError, ValueError):  # a custom processor that takes no switches
            return False

    @property
    def interpolation(self) -> str:
        """timm's name for how the processor resizes images."""
        names = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
        return names.get(getattr(self.processor, "resample", None), "bilinear")

    def whole(self, image: PIL.Image.Image) -> torch.Tensor:
        """The network's input (C, H, W) for an image, as float32."""
        return self._call(image)[0].float()

    def pixels(self, image: PIL.Image.Image) -> torch.Tensor:
        """The image at the network's size: (C, H, W) uint8."""
        return self._call(image, without=_VALUES)[0]

    def values(self, pixels: torch.Tensor) -> torch.Tensor:
        """The network's input for pixels of its size: (N, C, H, W) uint8 to float32."""
        return self._call(pixels, without=set(self._switches) - set(_VALUES)).float()

    def shown(self, values: torch.Tensor) -> torch.Tensor:
        """The inverse of `values`: the network's inputs (N, C, H, W) as colours from 0 to 1."""
        settings = self.processor.to_dict()
        if settings.get("do_normalize"):
            mean, std = (torch.tensor(settings[name]).view(-1, 1, 1) for name in ("image_mean", "image_std"))
            values = values * std + mean
        scale = 255 * settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale") else 255
        return values / scale

    @cached_property
    def _switches(self) -> list[str]:
        return [name for name in self.processor.to_dict() if name.startswith("do_") or name in _VALUES]

    def _call(self, images: PIL.Image.Image | torch.Tensor, without: Iterable[str] = ()) -> torch.Tensor:
        off = {name: False for name in self._switches if name in without}
        return self.processor(images, return_tensors="pt", **off)["pixel_values"]


def open_image_processor(
    model: PreTrainedModel,
    *,
    native_size: tuple[int, int],
    image_size: int | None = None,
    trust_remote_code: bool = False,
) -> BaseImageProcessor:
    """Opens the image processor of a model, or makes one for a model without.

    Args:
        model: A model of transformers; its image processor is searched where the model came from.
        native_size: Height and width of an image of the data in pixels. If a network has neither an image processor nor a
            size of its own, images of up to 64 pixels are prepared at their size, but at 32 pixels at least.
        image_size: Height and width of prepared images; by default the processor's own.
        trust_remote_code: Run Python code that the image processor brings along.

    Raises:
        ValueError: The image processor cannot be opened, or cannot be set to the size.
    """
    source = find_model(model.name_or_path)
    if any(source.has_file(name) for name in ("preprocessor_config.json", "processor_config.json")):
        with opening("image processor", source.name):
            processor = AutoImageProcessor.from_pretrained(source.name, trust_remote_code=trust_remote_code)
    else:
        processor = _usual_processor(model)
        logger.info("%r has no image processor: a %s is exported with it.", source.name, type(processor).__name__)
        image_size = image_size or getattr(model.config, "image_size", None)
        if image_size is None and max(native_size) <= 64:
            image_size = max(32, *native_size)
    if image_size is None:
        return processor
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return resized(processor, height, width, image_channels(model))


def image_channels(model: PreTrainedModel) -> int:
    """Number of channels of the images that a model of transformers takes."""
    config = model.config
    return getattr(config, "num_channels", None) or getattr(getattr(config, "vision_config", None), "num_channels", 3)


def resized(processor: BaseImageProcessor, height: int, width: int, channels: int) -> BaseImageProcessor:
    """Makes the same image processor for another size; resizing and cropping keep their proportions.

    Raises:
        ValueError: The processor does not follow its settings, and prepares images at another size.
    """
    settings, found = processor.to_dict(), _sizes(processor, channels)
    if found == {(height, width)}:
        return processor
    if len(found) == 1:
        ((h, w),) = found
        scale = {"height": height / h, "width": width / w}
        edge = max(scale.values())
        changed = {
            name: {side: round(length * scale.get(side, edge)) for side, length in settings[name].items()}
            if isinstance(settings[name], dict)
            else round(settings[name] * edge)
            for name in _SIZES
            if name in settings
        }
    elif "do_center_crop" in settings:
        changed = {"do_resize": True, "size": {"shortest_edge": max(height, width)}}
        changed |= {"do_center_crop": True, "crop_size": {"height": height, "width": width}}
    else:
        changed = {"do_resize": True, "size": {"height": height, "width": width}}
    other = type(processor).from_dict({**settings, **changed})
    if _sizes(other, channels) != {(height, width)}:
        raise ValueError(
            f"The {type(processor).__name__} of this model cannot be set to images of {height} x {width} pixels: leave out "
            "--image_size, or set its preprocessor_config.json."
        )
    return other


def noise(channels: int, size: tuple[int, int]) -> PIL.Image.Image:
    """Makes a grey or coloured image of random pixels, the same in each call."""
    shape = size if channels == 1 else (*size, 3)
    return PIL.Image.fromarray(np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8))


def _sizes(processor: BaseImageProcessor, channels: int) -> set[tuple[int, ...]]:
    images = (noise(channels, probe) for probe in _PROBES)
    return {tuple(processor(image, return_tensors="pt")["pixel_values"].shape[2:]) for image in images}


def _usual_processor(model: PreTrainedModel) -> BaseImageProcessor:
    """Makes transformers' image processor for a kind of model, or a ViT's for a kind that has none."""
    with tempfile.TemporaryDirectory() as folder:
        model.config.save_pretrained(folder)
        Path(folder, "preprocessor_config.json").write_text(json.dumps({}), encoding="utf-8")
        try:
            processor = AutoImageProcessor.from_pretrained(folder)
        except ValueError:
            processor = ViTImageProcessor()
    channels = image_channels(model)
    means = {name: getattr(processor, name, None) or () for name in ("image_mean", "image_std")}
    changed = {k: [sum(v) / len(v)] * channels for k, v in means.items() if len(v) not in (0, channels)}
    return type(processor).from_dict({**processor.to_dict(), **changed})
