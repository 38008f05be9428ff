"""From an image to the network's input, prepared as the exported model does it, with light augmentation or timm's."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import PIL.Image
import torch
from timm.data import create_transform

from .bad_samples import BadSampleError

MODES = {1: "L", 3: "RGB"}  # Pillow's mode of an image by the channels that a network takes


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the generators of Python, NumPy and torch (CPU) within the block, and restores their states after it."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed % 2**63)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def to_channels(image: PIL.Image.Image, channels: int) -> PIL.Image.Image:
    """Converts to greyscale (1 channel) or colour (3).

    Raises:
        BadSampleError: The image has more than 8 bits a channel.
    """
    if image.mode.startswith(("I", "F")):
        raise BadSampleError(f"it has mode {image.mode!r}, more than 8 bits a channel")
    return image if image.mode == MODES[channels] else image.convert(MODES[channels])


BORDERS = {"black": "constant", "reflect": "reflect"}  # torch's modes of padding


def crop_and_flip(
    images: torch.Tensor, seeds: np.ndarray, padding: int, flip: bool, border: str = "black"
) -> torch.Tensor:
    """Shifts each image by up to `padding` pixels over a border, and mirrors half of them if `flip`.

    Args:
        images: (N, C, H, W).
        seeds: One random 64-bit number an image, (N,) uint64; the result depends on nothing else.
        border: "black", or "reflect" for the image's own reflection.
    """
    n, c, h, w = images.shape
    span = np.uint64(2 * padding + 1)
    top, left = (torch.from_numpy((bits % span).astype(np.int64)) for bits in (seeds & 0xFFFF, (seeds >> 16) & 0xFFFF))
    rows = top[:, None] + torch.arange(h)
    columns = left[:, None] + torch.arange(w)
    if flip:
        mirrored = torch.from_numpy(((seeds >> 32) & 1).astype(bool))
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    padded = torch.nn.functional.pad(images, [padding] * 4, BORDERS[border])
    places = rows[:, :, None] * (w + 2 * padding) + columns[:, None, :]
    return padded.flatten(2).gather(2, places.view(n, 1, h * w).expand(n, c, h * w)).view(n, c, h, w)


class Preparation(Protocol):
    """How images are prepared for a network, without augmentation: by timm's transform or by an image processor.

    Attributes:
        size: (C, H, W) of a prepared image.
        keeps_size: Whether `pixels` leaves images of that size unchanged.
        uniform: Whether images of every size are prepared to that size.
        divisible: Whether `pixels` and then `values` give what `whole` gives; otherwise only `whole` can be used.
        interpolation: timm's name for how images are resized.
    """

    size: tuple[int, int, int]
    keeps_size: bool
    uniform: bool
    divisible: bool
    interpolation: str

    def pixels(self, image: PIL.Image.Image) -> torch.Tensor:
        """The image at the network's size: (C, H, W) uint8."""

    def values(self, pixels: torch.Tensor) -> torch.Tensor:
        """The network's input for pixels of its size: (N, C, H, W) uint8 to float32."""

    def whole(self, image: PIL.Image.Image) -> torch.Tensor:
        """The network's input (C, H, W) for an image, as float32."""

    def shown(self, values: torch.Tensor) -> torch.Tensor:
        """The inverse of `values`: the network's inputs (N, C, H, W) as colours from 0 to 1."""


class TimmImages:
    """The `Preparation` of a timm network.

    Args:
        config: `input_size` (C, H, W), `mean`, `std`, `interpolation`, `crop_pct`, `crop_mode`, from timm's
            `resolve_data_config`.
    """

    uniform = divisible = True

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.size, self.interpolation = tuple(config["input_size"]), config["interpolation"]
        self.keeps_size = config["crop_pct"] == 1.0
        self.mean, self.std = (torch.tensor(config[k]).view(-1, 1, 1) for k in ("mean", "std"))
        self.pixels = create_transform(**config, is_training=False, normalize=False)

    def values(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.float().div_(255).sub_(self.mean).div_(self.std)

    def whole(self, image: PIL.Image.Image) -> torch.Tensor:
        return self.values(self.pixels(image)[None])[0]

    def shown(self, values: torch.Tensor) -> torch.Tensor:
        return values * self.std + self.mean


class WholeTransform:
    """Prepares images in one step, without augmentation."""

    def __init__(self, images: Preparation) -> None:
        self.images = images

    def __call__(self, image: PIL.Image.Image, seed: np.uint64) -> torch.Tensor:
        return self.images.whole(to_channels(image, self.images.size[0]))


class PixelTransform:
    """Prepares images as for evaluation, optionally shifted and mirrored.

    It works in two steps, because the first (`pixels`) is the same in every epoch and can be done once; `finish` follows.

    Args:
        images: How images are prepared.
        padding: Largest shift in pixels.
        flip: Mirror half of the images.
        border: As for `crop_and_flip`.
    """

    def __init__(self, images: Preparation, padding: int = 0, flip: bool = False, border: str = "black") -> None:
        self.images, self.padding, self.flip, self.border = images, padding, flip, border

    def pixels(self, image: PIL.Image.Image) -> torch.Tensor:
        """The image at the network's size: (C, H, W) uint8."""
        return self.images.pixels(to_channels(image, self.images.size[0]))

    def finish(self, pixels: torch.Tensor, seeds: np.ndarray) -> torch.Tensor:
        """Augments and normalizes: (N, C, H, W) uint8 and (N,) uint64 to (N, C, H, W) float32."""
        if self.padding or self.flip:
            pixels = crop_and_flip(pixels, seeds, self.padding, self.flip, self.border)
        return self.images.values(pixels)

    def __call__(self, image: PIL.Image.Image, seed: np.uint64) -> torch.Tensor:
        return self.finish(self.pixels(image)[None], np.array([seed]))[0]


class TimmTransform:
    """timm's training transform (random resized crop, flip, colours), seeded for each sample."""

    def __init__(self, images: Preparation, flip: bool = True, color_jitter: float | Sequence[float] = 0.4) -> None:
        self.images = images
        self._transform = create_transform(
            images.size,
            is_training=True,
            interpolation=images.interpolation,
            hflip=0.5 if flip else 0.0,
            color_jitter=color_jitter,
            normalize=False,
        )

    def __call__(self, image: PIL.Image.Image, seed: np.uint64) -> torch.Tensor:
        with seeded(int(seed)):
            pixels = self._transform(to_channels(image, self.images.size[0]))
        return self.images.values(pixels[None])[0]


def crop_share(size: int | None, resize: int) -> float:
    """timm's `crop_pct` for images that are resized to `resize` pixels, of which the network sees `size` in the middle.

    Raises:
        ValueError: The size is not known, or larger.
    """
    if size is None or size > resize:
        asked = "needs --image_size" if size is None else f"is at least the image size of {size}"
        raise ValueError(f"--eval_resize {asked}, whose centre is cut out of it, but it is {resize}.")
    share = size / resize
    while int(size / share) < resize:  # as timm computes it
        share = math.nextafter(share, 0)
    return share


def preparation(config: Mapping[str, Any] | Preparation) -> Preparation:
    """How images are prepared for a network, from a timm network's settings or as it is."""
    return TimmImages(config) if isinstance(config, Mapping) else config


Transform = PixelTransform | TimmTransform | WholeTransform


def make_transform(
    config: Mapping[str, Any] | Preparation,
    augmentation: str,
    mirror: bool,
    *,
    shift: int | None = None,
    border: str = "black",
    color_jitter: Sequence[float] | None = None,
) -> Transform:
    """Makes the transform that `DataArguments.augmentation` names.

    Args:
        config: How images are prepared for evaluation; for a timm network the argument of `TimmImages`.
        augmentation: "none", "flip", "crop", "crop-flip", "timm" or "auto".
        mirror: Whether "auto" and "timm" may mirror images; mirrored digits, for one, would be of another class or none.
        shift: Largest shift of "crop" and "crop-flip" in pixels; an eighth of the size by default.
        border: What they shift into the image: "black" or "reflect".
        color_jitter: Strength of timm's changes of colour: one number, or three or four; timm's default of 0.4.

    Raises:
        ValueError: A reflected border is as wide as the image, the network takes images of neither 1 nor 3 channels, or
            its preparation cannot be divided into two steps with the augmentation between them.
    """
    images = preparation(config)
    channels = images.size[0]
    if channels not in MODES:
        raise ValueError(f"The network takes {channels} channels, but images have 1 (grey) or 3 (colour).")
    if not images.divisible:
        if augmentation != "none":
            raise ValueError(
                f"The image processor of this model prepares images in one step, which leaves no place for --augmentation "
                f"{augmentation}: choose --augmentation none."
            )
        return WholeTransform(images)
    size = min(images.size[1:])
    if augmentation == "auto":
        augmentation = "timm" if size > 64 else "crop-flip" if mirror else "crop"
    if augmentation == "timm":
        jitter = color_jitter or [0.4]
        return TimmTransform(images, flip=mirror, color_jitter=jitter[0] if len(jitter) == 1 else tuple(jitter))
    padding = (size // 8 if shift is None else shift) if augmentation.startswith("crop") else 0
    if border == "reflect" and padding >= size:
        raise ValueError(
            f"--crop_shift {padding} leaves nothing to reflect of images of {size} pixels: choose a smaller one."
        )
    return PixelTransform(images, padding, augmentation.endswith("flip"), border)
