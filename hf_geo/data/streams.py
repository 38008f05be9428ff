"""Splits that are read from the Hub while iterating over them."""

import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import datasets
import numpy as np
import PIL.Image
import torch

from .bad_samples import BadSampleError, BadSamples
from .columns import Columns
from .image_datasets import Transform, decode
from .randomness import EpochCounter, sample_seeds

_SHUFFLE_BUFFER = 1000  # samples; the order of the files is shuffled too


class StreamedImages(EpochCounter, torch.utils.data.IterableDataset):
    """Yields `{"pixel_values": float32 (C, H, W), "labels": int}`, once or without end.

    After its last sample an endless stream begins anew, in another order and with another augmentation. To a Trainer that
    is one long epoch, so that a run that is resumed in any pass goes on with the batch that comes next.

    Several workers share the files; of several processes accelerate lets the first one read and deals the batches out.
    What is random about a sample depends on its contents, as it has no index.

    Args:
        stream: With an undecoded column "image" and a column "label".
        num_classes: Labels are checked against it.
        transform: From an image and a random number to the network's input.
        seed: Of the augmentation and of the order.
        bad: Where samples are counted that cannot be used.
        endless: Whether passes follow each other in orders of their own; otherwise there is one, in the stream's order.
    """

    def __init__(
        self,
        stream: datasets.IterableDataset,
        num_classes: int,
        transform: Transform,
        seed: int,
        bad: BadSamples | None = None,
        endless: bool = False,
    ) -> None:
        super().__init__()
        self.endless = endless
        self.stream, self.num_classes, self.transform, self.seed = stream, num_classes, transform, seed
        self.bad = BadSamples() if bad is None else bad

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not self.endless:
            yield from self._one_pass(self.stream, self.epoch)
            return
        for epoch in itertools.count(self.epoch):
            # Not by the stream's own `set_epoch`, which workers share although they do not begin a pass together.
            order = np.random.default_rng((self.seed, epoch))
            samples = self._one_pass(self.stream.shuffle(generator=order, buffer_size=_SHUFFLE_BUFFER), epoch)
            first = next(samples, None)
            if first is None:  # a worker without a file, or nothing at all: there is nothing to begin anew
                return
            yield first
            yield from samples

    def _one_pass(self, stream: datasets.IterableDataset, epoch: int) -> Iterator[dict[str, Any]]:
        for row in stream:
            label, cell = row["label"], row["image"]
            if label is None or not 0 <= label < self.num_classes:
                raise ValueError(f"A label is {label}, but there are {self.num_classes} classes, from 0 on.")
            contents = _checksum(cell)
            seed = sample_seeds(self.seed, epoch, np.array([contents]))[0]
            try:
                image = self.transform(decode(cell), seed)
            except BadSampleError as reason:
                self.bad.skip(_sample(contents), reason)
            else:
                yield {"pixel_values": image, "labels": label}


def _checksum(cell: dict[str, Any] | None) -> int:
    return zlib.crc32((cell["bytes"] or (cell["path"] or "").encode()) if cell else b"")


def _sample(contents: int) -> str:
    return f"streamed image of checksum {contents:08x}"


@dataclass
class StreamedSplit:
    """A split that can only be iterated over.

    Args:
        stream: With an undecoded column "image" and a column "label".
        num_classes: Labels are checked against it.
        first: The first image that can be read.
        labelled: Whether it has a label.
        bad: Where samples are counted that cannot be used.
    """

    stream: datasets.IterableDataset
    num_classes: int
    first: PIL.Image.Image
    labelled: bool
    bad: BadSamples
    pixels: ClassVar[None] = None

    @classmethod
    def read(
        cls, stream: datasets.IterableDataset, columns: Columns, name: str, bad: BadSamples | None = None
    ) -> "StreamedSplit":
        """Takes the columns that matter; images stay encoded.

        Raises:
            ValueError: The split is empty, or nothing tells how many classes there are.
        """
        if columns.class_names is None:
            raise ValueError(
                f"The column {columns.label!r} does not list its classes, and which there are cannot be told while streaming: "
                "leave --streaming out, or name a column of classes with --label_column."
            )
        names = {columns.image: "image", columns.label: "label"}
        # Undecoded first: what renames columns would decode images and encode them again, with loss.
        stream = stream.cast_column(columns.image, datasets.Image(decode=False)).select_columns(list(names))
        stream = stream.rename_columns({old: new for old, new in names.items() if old != new})
        bad = BadSamples() if bad is None else bad
        for row in stream:
            try:
                return cls(stream, len(columns.class_names), decode(row["image"]), row["label"] != -1, bad)
            except BadSampleError as reason:
                bad.skip(_sample(_checksum(row["image"])), reason)
        raise ValueError(
            f"The split {name!r} is empty: name another one with --train_split, --eval_split or --test_split."
        )

    @property
    def is_empty(self) -> bool:
        return next(iter(self.stream), None) is None

    def part(self, first: int = 0, size: int | None = None) -> "StreamedSplit":
        """The `size` samples from `first` on; all from there when not given."""
        stream = self.stream.skip(first) if first else self.stream
        return replace(self, stream=stream if size is None else stream.take(size))

    def dataset(self, transform: Transform, seed: int, endless: bool = False) -> StreamedImages:
        """Samples for the Trainer, in an order that changes with every pass if there is no end to them."""
        return StreamedImages(self.stream, self.num_classes, transform, seed, self.bad, endless=endless)
