"""One split of an image data set: its labels, checked, and its images, in memory where they fit."""

from dataclasses import dataclass
from functools import cached_property

import datasets
import numpy as np
import PIL.Image
import torch
from tqdm.auto import tqdm

from .columns import Columns
from .image_datasets import EncodedImages, TensorImages, Transform, decode
from .transforms import PixelTransform, to_channels

# Decoded images of a split are kept in memory up to so many bytes; every process of a launch has its own copy.
MEMORY_LIMIT = 2 * 2**30


@dataclass
class ImageSplit:
    """A split that can be indexed.

    Args:
        name: For messages.
        rows: With an undecoded column "image".
        labels: (N,) integers.
    """

    name: str
    rows: datasets.Dataset
    labels: np.ndarray

    @classmethod
    def read(cls, rows: datasets.Dataset, columns: Columns, name: str) -> "ImageSplit":
        """Takes the columns that matter; images stay encoded.

        Raises:
            ValueError: There are no samples, or samples without an image or a label.
        """
        if len(rows) == 0:
            raise ValueError(f"The split {name!r} is empty.")
        labels = rows.select_columns([columns.label]).with_format("arrow")[:][columns.label]
        rows = rows.select_columns([columns.image]).cast_column(columns.image, datasets.Image(decode=False))
        if columns.image != "image":
            rows = rows.rename_column(columns.image, "image")
        for what, column in (("images", rows.data.column("image")), ("labels", labels)):
            if column.null_count:
                raise ValueError(f"{column.null_count} {what} of the split {name!r} are missing: remove those rows.")
        return cls(name, rows, labels.to_numpy().astype(np.int64))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labels_hidden(self) -> bool:
        """Whether the labels are withheld, as in the test split of a contest."""
        return bool((self.labels == -1).all())

    def check_labels(self, num_classes: int) -> None:
        """Raises `ValueError` unless all labels are classes."""
        low, high = self.labels.min(), self.labels.max()
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"The labels of the split {self.name!r} run from {low} to {high}, but there are {num_classes} classes, "
                f"0 to {num_classes - 1}."
            )

    def select(self, indices: np.ndarray) -> "ImageSplit":
        """The part at `indices`."""
        return ImageSplit(self.name, self.rows.select(indices), self.labels[indices])

    @cached_property
    def pixels(self) -> np.ndarray | None:
        """All images decoded, (N, H, W, C) uint8; None where they differ in size or exceed `MEMORY_LIMIT`."""
        first = decode(self.rows[0]["image"])
        channels = 1 if first.mode == "L" else 3
        shape = (len(self), first.height, first.width, channels)
        if np.prod(shape) > MEMORY_LIMIT:
            return None
        pixels = np.empty(shape, dtype=np.uint8)
        cells = (cell for batch in self.rows.iter(1000) for cell in batch["image"])  # one row at a time is slow
        progress = tqdm(cells, f"Decoding {self.name}", len(self), unit=" images", delay=3, leave=False, disable=None)
        for i, cell in enumerate(progress):
            image = decode(cell)
            if image.size != first.size or (channels == 1 and image.mode != "L"):
                return None
            pixels[i] = np.asarray(to_channels(image, channels)).reshape(shape[1:])
        return pixels

    def dataset(self, transform: Transform, seed: int) -> torch.utils.data.Dataset:
        """Samples for the Trainer, from memory where `transform` and the images allow it."""
        fits = isinstance(transform, PixelTransform) and np.prod((len(self), *transform.size)) <= MEMORY_LIMIT
        if fits and self.pixels is not None:
            return TensorImages(_resized(self.pixels, transform), self.labels, transform, seed)
        return EncodedImages(self.rows, self.labels, transform, seed)


def _resized(pixels: np.ndarray, transform: PixelTransform) -> torch.Tensor:
    """(N, H, W, C) to the (N, C', H', W') that `transform.finish` takes."""
    channels, height, width = transform.size
    if transform.keeps_size and pixels.shape[1:3] == (height, width) and pixels.shape[3] in (1, channels):
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        return images.expand(-1, channels, -1, -1).contiguous()
    return torch.stack(
        [transform.pixels(PIL.Image.fromarray(x.squeeze(-1) if x.shape[-1] == 1 else x)) for x in pixels]
    )
