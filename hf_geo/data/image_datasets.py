"""Samples for the Trainer, `{"pixel_values": float32 (C, H, W), "labels": int}`, from memory or decoded one by one.

Augmentation depends on the seed, the epoch and the sample alone. So one process or several, no workers or many, a run
without a break or a resumed one all see the same images.
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

from .bad_samples import BadSampleError, BadSamples, SamplesInProgress
from .transforms import PixelTransform

Transform = Callable[[PIL.Image.Image, np.uint64], torch.Tensor]
_DECODER = datasets.Image()


def sample_seeds(seed: int, epoch: int, samples: np.ndarray) -> np.ndarray:
    """Derives one well-mixed 64-bit number from the seed, the epoch and each sample.

    Args:
        seed: The run's seed.
        epoch: Counted from 0.
        samples: What identifies each sample, such as its index; integers (N,).

    Returns:
        (N,) uint64.
    """
    words = np.array([seed, epoch], dtype=np.int64).astype(np.uint64)
    mixed = np.zeros(len(samples), dtype=np.uint64)
    for word in (*words, np.asarray(samples, dtype=np.int64).astype(np.uint64)):
        mixed = mix(mixed ^ word)
    return mixed


def mix(z: np.ndarray) -> np.ndarray:
    """Mixes the bits of 64-bit numbers by SplitMix64 (Steele, Lea and Flood 2014); arithmetic wraps around."""
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class EpochCounter:
    """The epoch, in shared memory: `set_epoch` in the main process reaches workers that are already running."""

    def __init__(self) -> None:
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)


def decode(cell: dict[str, Any] | None) -> PIL.Image.Image:
    """Decodes a cell of an undecoded `datasets.Image` column, and turns the image upright.

    Raises:
        BadSampleError: The cell holds no image, a broken one, or one of more than `PIL.Image.MAX_IMAGE_PIXELS`, which
            would fill the memory.
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
    except Exception as error:  # each of Pillow's decoders raises errors of its own for a broken file
        said = " ".join(str(error).split()) or type(error).__name__
        raise BadSampleError(re.sub("<_io.BytesIO object at 0x[0-9a-f]+>", "", said).strip(" .")) from error


class TensorImages(EpochCounter, torch.utils.data.Dataset):
    """Images in memory, of which a whole batch is augmented at once.

    Args:
        pixels: (N, C, H, W) uint8.
        labels: (N,) integers.
        transform: Its `finish` is applied.
        seed: Seed of the augmentation.
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
    """Images that are decoded when they are asked for, in the loader's workers; the next one replaces a skipped one.

    Args:
        rows: Rows with an undecoded column "image".
        labels: (N,) integers.
        transform: From an image and a random number to the network's input.
        seed: Seed of the augmentation.
        name_sample: Names a sample for messages, by its index.
        bad: Counts the samples that cannot be used.
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        labels: np.ndarray,
        transform: Transform,
        seed: int,
        name_sample: Callable[[int], str],
        bad: BadSamples,
    ) -> None:
        super().__init__()
        self.rows, self.labels, self.transform, self.seed = rows, labels, transform, seed
        self.name_sample, self.bad, self.in_progress = name_sample, bad, SamplesInProgress()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = int(index)
        seed = sample_seeds(self.seed, self.epoch, np.array([index]))[0]
        while True:
            self.in_progress.begin(index)
            try:
                image = self.transform(decode(self.rows[index]["image"]), seed)
            except BadSampleError as reason:
                self.bad.skip(self.name_sample(index), reason)
                index = (index + 1) % len(self)
            else:
                return {"pixel_values": image, "labels": int(self.labels[index])}

    def samples_of_workers(self, pids: Iterable[int]) -> list[str]:
        """Names the samples that the data-loader workers with these process ids were reading."""
        return [self.name_sample(index) for index in self.in_progress.of_workers(pids)]


class LatentSamples(torch.utils.data.Dataset):
    """The samples of an image dataset, each with latent variables from N(0, 1): what a generator is trained with.

    They depend on the seed, the epoch and the sample alone, as the augmentation does. So one process or several, micro-batches
    of any size, a run without a break or a resumed one use the same.

    Samples are `{"pixel_values": float32 (C, H, W), "class_labels": int, "latents": float32 (latent_dim,)}`.

    Args:
        images: The images and their classes.
        latent_dim: Latent variables of a sample.
        seed: Seed of the draws.
    """

    def __init__(self, images: TensorImages | EncodedImages, latent_dim: int, seed: int) -> None:
        self.images, self.latent_dim, self.seed = images, latent_dim, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        many = getattr(self.images, "__getitems__", None)
        samples = many(indices) if many else [self.images[i] for i in indices]
        latents = draw_normals(sample_seeds(self.seed, self.images.epoch, np.asarray(indices)), self.latent_dim)
        return [
            {"pixel_values": sample["pixel_values"], "class_labels": sample["labels"], "latents": z}
            for sample, z in zip(samples, latents, strict=True)
        ]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def set_epoch(self, epoch: int) -> None:
        self.images.set_epoch(epoch)

    def samples_of_workers(self, pids: Iterable[int]) -> list[str]:
        """Names the samples that the data-loader workers with these process ids were reading."""
        named = getattr(self.images, "samples_of_workers", None)
        return named(pids) if named else []


def draw_normals(seeds: np.ndarray, count: int) -> torch.Tensor:
    """Draws numbers from N(0, 1), for each seed its own.

    Args:
        seeds: (N,) uint64.
        count: How many for each seed.

    Returns:
        (N, count) float32.
    """
    bits = mix(seeds[:, None] ^ mix(np.arange(count, dtype=np.uint64)))
    shares = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # inside (0, 1)
    return torch.special.ndtri(torch.from_numpy(shares)).float()
