"""Samples for the Trainer, from memory or decoded one by one.

Both yield `{"pixel_values": float32 (C, H, W), "labels": int}`.
"""

import os
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import datasets
import numpy as np
import PIL.Image
import torch

from .bad_samples import BadSampleError, BadSamples, Places
from .randomness import EpochCounter, sample_seeds
from .transforms import PixelTransform

Transform = Callable[[PIL.Image.Image, np.uint64], torch.Tensor]
_DECODER = datasets.Image()


def decode(cell: dict[str, Any] | None) -> PIL.Image.Image:
    """The image in a cell of an undecoded `datasets.Image` column, turned upright.

    Raises:
        BadSampleError: The cell holds no image, a broken one, or one of more than `PIL.Image.MAX_IMAGE_PIXELS`, which would fill
            the memory.
    """
    if cell is None or (cell["bytes"] is None and cell["path"] is None):
        raise BadSampleError("there is no image")
    path = cell["path"] or ""
    if cell["bytes"] is None and "://" not in path and not os.path.isfile(path):
        raise BadSampleError(f"there is no file {path!r}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            return _DECODER.decode_example(cell)
    except Exception as error:  # decoders fail in whatever way a broken file makes them
        said = " ".join(str(error).split()) or type(error).__name__
        raise BadSampleError(re.sub("<_io.BytesIO object at 0x[0-9a-f]+>", "", said).strip(" .")) from error


class TensorImages(EpochCounter, torch.utils.data.Dataset):
    """Images that are all in memory at the network's size; whole batches are augmented at once.

    Args:
        pixels: (N, C, H, W) uint8.
        labels: (N,) integers.
        transform: Its `finish` is applied.
        seed: Of the augmentation.
    """

    def __init__(self, pixels: torch.Tensor, labels: np.ndarray, transform: PixelTransform, seed: int) -> None:
        super().__init__()
        self.pixels, self.labels, self.transform, self.seed = pixels, labels, transform, seed

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        seeds = sample_seeds(self.seed, self.epoch, np.asarray(indices))
        images = self.transform.finish(self.pixels[torch.as_tensor(indices)], seeds)
        return [{"pixel_values": x, "labels": int(self.labels[i])} for x, i in zip(images, indices, strict=True)]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]


class EncodedImages(EpochCounter, torch.utils.data.Dataset):
    """Images decoded as they are asked for, in the loader's workers. The next one stands in for one that is skipped.

    Args:
        rows: With an undecoded column "image".
        labels: (N,) integers.
        transform: From an image and a random number to the network's input.
        seed: Of the augmentation.
        name: What a sample is called, from its index.
        bad: Where samples are counted that cannot be used; without it there may be none.
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        labels: np.ndarray,
        transform: Transform,
        seed: int,
        name: Callable[[int], str] = "image {}".format,
        bad: BadSamples | None = None,
    ) -> None:
        super().__init__()
        self.rows, self.labels, self.transform, self.seed = rows, labels, transform, seed
        self.name, self.bad, self.places = name, BadSamples() if bad is None else bad, Places()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        seed = sample_seeds(self.seed, self.epoch, np.array([index]))[0]
        while True:
            self.places.note(int(index))
            try:
                image = self.transform(decode(self.rows[int(index)]["image"]), seed)
            except BadSampleError as reason:
                self.bad.skip(self.name(int(index)), reason)
                index = (int(index) + 1) % len(self)
            else:
                return {"pixel_values": image, "labels": int(self.labels[index])}

    def dying(self, pids: Iterable[int]) -> list[str]:
        """What data-loader workers of these process ids were reading, in words."""
        return [self.name(index) for index in self.places.of(pids)]
