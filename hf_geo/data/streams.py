"""Splits that are read from the Hub while iterating over them."""

import zlib
from collections.abc import Iterator
from typing import Any

import datasets
import numpy as np
import torch

from .columns import Columns
from .image_datasets import Transform, decode
from .randomness import EpochCounter, sample_seeds

_SHUFFLE_BUFFER = 1000  # samples; the order of the files is shuffled too


class StreamedImages(EpochCounter, torch.utils.data.IterableDataset):
    """Yields `{"pixel_values": float32 (C, H, W), "labels": int}`.

    Several workers share the files; of several processes accelerate lets the first one read and deals the batches out.
    What is random about a sample depends on its contents, as it has no index.

    Args:
        stream: With an undecoded column "image" and a column "label".
        num_classes: Labels are checked against it.
        transform: From an image and a random number to the network's input.
        seed: Of the augmentation.
    """

    def __init__(self, stream: datasets.IterableDataset, num_classes: int, transform: Transform, seed: int) -> None:
        super().__init__()
        self.stream, self.num_classes, self.transform, self.seed = stream, num_classes, transform, seed

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        self.stream.set_epoch(epoch)  # another order

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self.stream:
            label, cell = row["label"], row["image"]
            if label is None or not 0 <= label < self.num_classes:
                raise ValueError(f"A label is {label}, but there are {self.num_classes} classes, from 0 on.")
            contents = zlib.crc32(cell["bytes"] or cell["path"].encode())
            seed = sample_seeds(self.seed, self.epoch, np.array([contents]))[0]
            yield {"pixel_values": self.transform(decode(cell), seed), "labels": label}


class StreamedSplit:
    """A split that can only be iterated over.

    Args:
        stream: The split.
        columns: Where its images and labels are; the classes have to be known.
        name: For messages.

    Raises:
        ValueError: The split is empty, or nothing tells how many classes there are.
    """

    pixels = None

    def __init__(self, stream: datasets.IterableDataset, columns: Columns, name: str) -> None:
        if columns.class_names is None:
            raise ValueError(
                f"The column {columns.label!r} holds integers, and how many classes there are cannot be told while streaming: "
                "leave --streaming out, or name a column of classes with --label_column."
            )
        self.num_classes = len(columns.class_names)
        # Undecoded first: what renames columns would decode images and encode them again, with loss.
        stream = stream.cast_column(columns.image, datasets.Image(decode=False)).select_columns(
            [columns.image, columns.label]
        )
        self.stream = stream.rename_columns(
            {k: v for k, v in ((columns.image, "image"), (columns.label, "label")) if k != v}
        )
        self.first = next(iter(self.stream), None)
        if self.first is None:
            raise ValueError(f"The split {name!r} is empty.")

    def part(self, first: int = 0, size: int | None = None) -> "StreamedSplit":
        """The `size` samples from `first` on; all from there when not given."""
        part = object.__new__(StreamedSplit)
        part.num_classes, part.first = self.num_classes, self.first
        part.stream = self.stream.skip(first) if first else self.stream
        part.stream = part.stream if size is None else part.stream.take(size)
        return part

    def shuffled(self, seed: int) -> "StreamedSplit":
        """The same samples in an order that changes with the epoch."""
        part = self.part()
        part.stream = part.stream.shuffle(seed=seed, buffer_size=_SHUFFLE_BUFFER)
        return part

    def dataset(self, transform: Transform, seed: int) -> StreamedImages:
        return StreamedImages(self.stream, self.num_classes, transform, seed)
