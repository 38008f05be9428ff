"""From an image to what the network sees: timm's geometry, light augmentation for small images, timm's for others."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL.Image
import torch
from timm.data import create_transform

from .bad_samples import BadSample
from .randomness import seeded

_MODES = {1: "L", 3: "RGB"}


def to_channels(image: PIL.Image.Image, channels: int) -> PIL.Image.Image:
    """Converts to greyscale (1 channel) or colour (3).

    Raises:
        BadSample: The image has more than 8 bits a channel.
        ValueError: The network takes neither 1 nor 3.
    """
    if channels not in _MODES:
        raise ValueError(f"The network takes {channels} channels, but images have 1 (grey) or 3 (colour).")
    if image.mode.startswith(("I", "F")):
        raise BadSample(f"it has mode {image.mode!r}, more than 8 bits a channel")
    return image if image.mode == _MODES[channels] else image.convert(_MODES[channels])


def crop_and_flip(images: torch.Tensor, seeds: np.ndarray, padding: int, flip: bool) -> torch.Tensor:
    """Shifts each image by up to `padding` pixels over a black border, and mirrors half of them if `flip`.

    Args:
        images: (N, C, H, W).
        seeds: One random 64-bit number an image, (N,) uint64; the result depends on nothing else.
    """
    n, c, h, w = images.shape
    span = np.uint64(2 * padding + 1)
    top, left = (torch.from_numpy((bits % span).astype(np.int64)) for bits in (seeds & 0xFFFF, (seeds >> 16) & 0xFFFF))
    rows = top[:, None] + torch.arange(h)
    columns = left[:, None] + torch.arange(w)
    if flip:
        mirrored = torch.from_numpy(((seeds >> 32) & 1).astype(bool))
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    padded = torch.nn.functional.pad(images, [padding] * 4)
    places = rows[:, :, None] * (w + 2 * padding) + columns[:, None, :]
    return padded.flatten(2).gather(2, places.view(n, 1, h * w).expand(n, c, h * w)).view(n, c, h, w)


class PixelTransform:
    """Resizes and centre-crops as timm does for evaluation, optionally shifts and mirrors, normalizes.

    Works in two steps, so that the first, which is the same in every epoch, can be done once for all: `pixels` and
    `finish`.

    Args:
        config: `input_size` (C, H, W), `mean`, `std`, `interpolation`, `crop_pct`, `crop_mode`, as timm resolves them.
        padding: Largest shift in pixels.
        flip: Mirror half of the images.
    """

    def __init__(self, config: Mapping[str, Any], padding: int = 0, flip: bool = False) -> None:
        self.size = tuple(config["input_size"])
        self.padding, self.flip = padding, flip
        self.keeps_size = config["crop_pct"] == 1.0
        self.mean, self.std = (torch.tensor(config[k]).view(-1, 1, 1) for k in ("mean", "std"))
        self._geometry = create_transform(**config, is_training=False, normalize=False)

    def pixels(self, image: PIL.Image.Image) -> torch.Tensor:
        """The image at the network's size: (C, H, W) uint8."""
        return self._geometry(to_channels(image, self.size[0]))

    def finish(self, pixels: torch.Tensor, seeds: np.ndarray) -> torch.Tensor:
        """Augments and normalizes: (N, C, H, W) uint8 and (N,) uint64 to (N, C, H, W) float32."""
        if self.padding or self.flip:
            pixels = crop_and_flip(pixels, seeds, self.padding, self.flip)
        return pixels.float().div_(255).sub_(self.mean).div_(self.std)

    def __call__(self, image: PIL.Image.Image, seed: np.uint64) -> torch.Tensor:
        return self.finish(self.pixels(image)[None], np.array([seed]))[0]


class TimmTransform:
    """timm's training transform (random resized crop, flip, colours), seeded for each sample."""

    def __init__(self, config: Mapping[str, Any], flip: bool = True) -> None:
        self.channels = config["input_size"][0]
        self._transform = create_transform(**config, is_training=True, hflip=0.5 if flip else 0.0)

    def __call__(self, image: PIL.Image.Image, seed: np.uint64) -> torch.Tensor:
        with seeded(int(seed)):
            return self._transform(to_channels(image, self.channels))


def make_transform(config: Mapping[str, Any], augmentation: str, mirror: bool) -> PixelTransform | TimmTransform:
    """The transform of a kind that `DataArguments.augmentation` names.

    Args:
        config: As `PixelTransform` takes it.
        augmentation: "none", "crop", "crop-flip", "timm" or "auto".
        mirror: Whether "auto" and "timm" may mirror: not where a mirrored image is another class, or none.
    """
    size = min(config["input_size"][1:])
    if augmentation == "auto":
        augmentation = "timm" if size > 64 else "crop-flip" if mirror else "crop"
    if augmentation == "timm":
        return TimmTransform(config, flip=mirror)
    padding = size // 8 if augmentation.startswith("crop") else 0
    return PixelTransform(config, padding, flip=augmentation == "crop-flip")
