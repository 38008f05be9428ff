"""Splits that are read from the Hub while iterating over them."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

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


@dataclass
class StreamedSplit:
    """A split that can only be iterated over.

    Args:
        stream: With an undecoded column "image" and a column "label".
        num_classes: Labels are checked against it.
        first: The first row.
    """

    stream: datasets.IterableDataset
    num_classes: int
    first: dict[str, Any]
    pixels: ClassVar[None] = None

    @classmethod
    def read(cls, stream: datasets.IterableDataset, columns: Columns, name: str) -> "StreamedSplit":
        """Takes the columns that matter; images stay encoded.

        Raises:
            ValueError: The split is empty, or nothing tells how many classes there are.
        """
        if columns.class_names is None:
            raise ValueError(
                f"The column {columns.label!r} holds integers, and how many classes there are cannot be told while streaming: "
                "leave --streaming out, or name a column of classes with --label_column."
            )
        names = {columns.image: "image", columns.label: "label"}
        # Undecoded first: what renames columns would decode images and encode them again, with loss.
        stream = stream.cast_column(columns.image, datasets.Image(decode=False)).select_columns(list(names))
        stream = stream.rename_columns({old: new for old, new in names.items() if old != new})
        first = next(iter(stream), None)
        if first is None:
            raise ValueError(f"The split {name!r} is empty.")
        return cls(stream, len(columns.class_names), first)

    def part(self, first: int = 0, size: int | None = None) -> "StreamedSplit":
        """The `size` samples from `first` on; all from there when not given."""
        stream = self.stream.skip(first) if first else self.stream
        return replace(self, stream=stream if size is None else stream.take(size))

    def shuffled(self, seed: int) -> "StreamedSplit":
        """The same samples in an order that changes with the epoch."""
        return replace(self, stream=self.stream.shuffle(seed=seed, buffer_size=_SHUFFLE_BUFFER))

    def dataset(self, transform: Transform, seed: int) -> StreamedImages:
        return StreamedImages(self.stream, self.num_classes, transform, seed)
