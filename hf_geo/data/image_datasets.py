"""Samples for the Trainer, from memory or decoded one by one.

Both yield `{"pixel_values": float32 (C, H, W), "labels": int}`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import datasets
import numpy as np
import PIL.Image
import torch

from .randomness import EpochCounter, sample_seeds
from .transforms import PixelTransform

Transform = Callable[[PIL.Image.Image, np.uint64], torch.Tensor]
_DECODER = datasets.Image()


def decode(cell: dict[str, Any]) -> PIL.Image.Image:
    """The image in a cell of an undecoded `datasets.Image` column, turned upright.

    Raises:
        ValueError: The cell holds no image.
    """
    try:
        return _DECODER.decode_example(cell)
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"An image of the data set cannot be decoded: {error}") from error


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
    """Images decoded as they are asked for, in the loader's workers.

    Args:
        rows: With an undecoded column "image".
        labels: (N,) integers.
        transform: From an image and a random number to the network's input.
        seed: Of the augmentation.
    """

    def __init__(self, rows: datasets.Dataset, labels: np.ndarray, transform: Transform, seed: int) -> None:
        super().__init__()
        self.rows, self.labels, self.transform, self.seed = rows, labels, transform, seed

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        seed = sample_seeds(self.seed, self.epoch, np.array([index]))[0]
        image = decode(self.rows[int(index)]["image"])
        return {"pixel_values": self.transform(image, seed), "labels": int(self.labels[index])}
