"""Image splits that are read from the Hub while iterating over them."""

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
from .config import DataArguments
from .image_datasets import EpochCounter, Transform, decode, sample_seeds
from .sources import Source
from .splits import SplitNames, divide_stream, first_rows

_SHUFFLE_BUFFER = 1000  # samples; the order of the files is shuffled too


class StreamedImages(EpochCounter, torch.utils.data.IterableDataset):
    """Yields `{"pixel_values": float32 (C, H, W), "labels": int}`, once or without end.

    After its last sample an endless stream begins anew, in another order and with another augmentation. A Trainer sees one
    long epoch, so a run that resumes in any pass goes on with the next batch.

    Several workers divide the files among them; with several processes, accelerate lets the first one read and sends
    batches to the others. A sample has no index, so its augmentation depends on its contents.

    Args:
        stream: Rows with an undecoded column "image" and a column "label".
        num_classes: Labels are checked against it.
        transform: From an image and a random number to the network's input.
        seed: Seed of the augmentation and of the order.
        bad: Counts the samples that cannot be used.
        endless: Whether passes follow each other, each in its own order; otherwise there is one, in the stream's order.
    """

    def __init__(
        self,
        stream: datasets.IterableDataset,
        num_classes: int,
        transform: Transform,
        seed: int,
        bad: BadSamples,
        endless: bool = False,
    ) -> None:
        super().__init__()
        self.stream, self.num_classes, self.transform, self.seed = stream, num_classes, transform, seed
        self.bad, self.endless = bad, endless

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not self.endless:
            yield from self._one_pass(self.stream, self.epoch)
            return
        for epoch in itertools.count(self.epoch):
            # Not the stream's own `set_epoch`: workers share it, but do not begin a pass at the same time.
            order = np.random.default_rng((self.seed, epoch))
            samples = self._one_pass(self.stream.shuffle(generator=order, buffer_size=_SHUFFLE_BUFFER), epoch)
            first = next(samples, None)
            if first is None:  # an empty stream, or a worker without a file
                return
            yield first
            yield from samples

    def _one_pass(self, stream: datasets.IterableDataset, epoch: int) -> Iterator[dict[str, Any]]:
        for row in stream:
            label, cell = row["label"], row["image"]
            if label is None or not 0 <= label < self.num_classes:
                raise ValueError(f"A label is {label}, but there are {self.num_classes} classes, from 0 on.")
            checksum = _checksum(cell)
            seed = sample_seeds(self.seed, epoch, np.array([checksum]))[0]
            try:
                image = self.transform(decode(cell), seed)
            except BadSampleError as reason:
                self.bad.skip(_name_sample(checksum), reason)
            else:
                yield {"pixel_values": image, "labels": label}


@dataclass
class StreamedSplit:
    """A split that can only be iterated over.

    Args:
        stream: Rows with an undecoded column "image" and a column "label".
        num_classes: Labels are checked against it.
        first: The first image that can be read.
        has_labels: Whether the labels are known; those of a contest's test split are withheld.
        bad: Counts the samples that cannot be used.
    """

    stream: datasets.IterableDataset
    num_classes: int
    first: PIL.Image.Image
    has_labels: bool
    bad: BadSamples
    pixels: ClassVar[None] = None

    @classmethod
    def read(cls, stream: datasets.IterableDataset, columns: Columns, name: str, bad: BadSamples) -> "StreamedSplit":
        """Takes the image and the label column; images stay encoded.

        Raises:
            ValueError: The split is empty, or its features do not list the classes.
        """
        if columns.class_names is None:
            raise ValueError(
                f"The column {columns.label!r} does not list its classes, and they cannot be counted while streaming: "
                "leave --streaming out, or name a column of classes with --label_column."
            )
        names = {columns.image: "image", columns.label: "label"}
        # Cast first: renaming would decode images and encode them again, with loss.
        stream = stream.cast_column(columns.image, datasets.Image(decode=False)).select_columns(list(names))
        stream = stream.rename_columns({old: new for old, new in names.items() if old != new})
        for row in stream:
            try:
                return cls(stream, len(columns.class_names), decode(row["image"]), row["label"] not in (None, -1), bad)
            except BadSampleError as reason:
                bad.skip(_name_sample(_checksum(row["image"])), reason)
        raise ValueError(
            f"The split {name!r} is empty: name another one with --train_split, --eval_split or --test_split."
        )

    @property
    def is_empty(self) -> bool:
        return next(iter(self.stream), None) is None

    def divided(self, size: int) -> tuple["StreamedSplit", "StreamedSplit"]:
        """The first `size` samples, and the rest."""
        first, rest = divide_stream(self.stream, size)
        return replace(self, stream=first), replace(self, stream=rest)

    def dataset(self, transform: Transform, seed: int, endless: bool = False) -> StreamedImages:
        """Samples for the Trainer; an endless dataset has another order in every pass."""
        return StreamedImages(self.stream, self.num_classes, transform, seed, self.bad, endless=endless)


def load_streamed_splits(
    source: Source, names: SplitNames, columns: Columns, args: DataArguments, bad: BadSamples
) -> tuple[dict[str, StreamedSplit], str]:
    """Makes the splits to train on, to evaluate on and to test on.

    Returns:
        Splits by "train", "eval" and, where there is one, "test"; and where they come from, in words.

    Raises:
        ValueError: The options need all samples before training, or a split is missing or does not fit.
    """
    if args.label_noise:
        raise ValueError("--label_noise needs all labels before training: leave --streaming out.")
    if len(names.train) > 1:
        raise ValueError(f"A stream has one training split: leave out {names.train[1]!r} of --train_split.")
    (name,) = names.train
    train = StreamedSplit.read(source.splits[name], columns, name, bad)
    size = args.eval_size
    if names.eval is not None:
        evaluation = StreamedSplit.read(source.splits[names.eval], columns, names.eval, bad)
        origin = f"split {names.eval!r}"
    elif size is not None:
        evaluation, train = train.divided(size)
        if train.is_empty:
            raise ValueError(
                f"--eval_size {size} holds out every sample of the split {name!r} and leaves nothing "
                "to train on: hold out fewer, or name a split to evaluate on with --eval_split."
            )
        origin = f"the first {size:,} samples of split {name!r}, held out"
    else:
        raise ValueError(
            f"The data set has no split to evaluate on: name one with --eval_split (of {', '.join(source.splits)}), or hold "
            "out the first N training samples with --eval_size N."
        )
    if args.max_train_samples is not None:
        train = replace(train, stream=train.stream.take(args.max_train_samples))
    splits = {"train": train, "eval": evaluation}
    notes = [f"train: split {name!r}, streamed", f"eval: {origin}, streamed"]
    if names.test is not None:
        test = StreamedSplit.read(source.splits[names.test], columns, names.test, bad)
        if args.test_split or test.has_labels:
            splits["test"] = test
            notes.append(f"test: split {names.test!r}, streamed")
        else:
            notes.append(f"the labels of split {names.test!r} are hidden, so it is not used")
    for role in {"eval", "test"} & set(splits) if args.max_eval_samples else ():
        splits[role] = replace(splits[role], stream=first_rows(splits[role].stream, args.max_eval_samples))
    return splits, "; ".join(notes) + "."


def _checksum(cell: dict[str, Any] | None) -> int:
    return zlib.crc32((cell["bytes"] or (cell["path"] or "").encode()) if cell else b"")


def _name_sample(checksum: int) -> str:
    return f"streamed image of checksum {checksum:08x}"
