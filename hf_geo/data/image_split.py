"""One split of an image data set: its labels, checked, and its images, in memory where they fit."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import datasets
import numpy as np
import PIL.Image
import torch
from tqdm.auto import tqdm

from .bad_samples import BadSampleError, BadSamples
from .columns import Columns
from .image_datasets import EncodedImages, TensorImages, Transform, decode
from .transforms import PixelTransform, to_channels

# Decoded images of a split are kept in memory up to so many bytes; every process of a launch has its own copy.
MEMORY_LIMIT = 2 * 2**30
_MANY = 5_000
_NONE_READABLE = "No image of the split {!r} can be read: name another one, or repair the data set."


@dataclass
class ImageSplit:
    """A split that can be indexed.

    Args:
        name: For messages.
        rows: With an undecoded column "image".
        labels: (N,) integers.
        places: Of the samples in the whole split, (N,) integers.
        bad: Where samples are counted that cannot be used.
        left_out: How many samples were taken out because they cannot be read.
    """

    name: str
    rows: datasets.Dataset
    labels: np.ndarray
    places: np.ndarray
    bad: BadSamples = field(default_factory=BadSamples)
    left_out: int = 0

    @classmethod
    def read(cls, rows: datasets.Dataset, columns: Columns, name: str, bad: BadSamples | None = None) -> "ImageSplit":
        """Takes the columns that matter; images stay encoded.

        Raises:
            ValueError: There are no samples, or samples without an image or a label.
        """
        if len(rows) == 0:
            raise ValueError(
                f"The split {name!r} is empty: name another one with --train_split, --eval_split or --test_split."
            )
        labels = rows.select_columns([columns.label]).with_format("arrow")[:][columns.label]
        rows = rows.select_columns([columns.image]).cast_column(columns.image, datasets.Image(decode=False))
        if columns.image != "image":
            rows = rows.rename_column(columns.image, "image")
        for what, column in (("images", rows.data.column("image")), ("labels", labels)):
            if column.null_count:
                raise ValueError(f"{column.null_count} {what} of the split {name!r} are missing: remove those rows.")
        labels = labels.to_numpy()
        if labels.dtype.kind in "Ob":
            labels = _class_numbers(labels, columns.class_names, name)
        return cls(name, rows, labels.astype(np.int64), np.arange(len(rows)), BadSamples() if bad is None else bad)

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
                f"0 to {num_classes - 1}: repair them, or name another column with --label_column."
            )

    def select(self, indices: np.ndarray) -> "ImageSplit":
        """The part at `indices`."""
        return replace(self, rows=self.rows.select(indices), labels=self.labels[indices], places=self.places[indices])

    def joined(self, other: "ImageSplit") -> "ImageSplit":
        """These samples, then the other's, as one split."""
        rows = datasets.concatenate_datasets([self.rows, other.rows])
        name, labels = f"{self.name}+{other.name}", np.concatenate((self.labels, other.labels))
        return replace(self, name=name, rows=rows, labels=labels, places=np.arange(len(rows)))

    def sample(self, index: int) -> str:
        """What a sample is called in messages."""
        return f"image {self.places[index]} of the split {self.name!r}"

    @cached_property
    def first(self) -> PIL.Image.Image:
        """The first image that can be read.

        Raises:
            ValueError: There is none.
        """
        for index, row in enumerate(self.rows):
            try:
                return decode(row["image"])
            except BadSampleError as reason:
                self.bad.skip(self.sample(index), reason)
        raise ValueError(_NONE_READABLE.format(self.name))

    @cached_property
    def pixels(self) -> np.ndarray | None:
        """All images decoded, (N, H, W, C) uint8; None where they differ in size or exceed `MEMORY_LIMIT`.

        Samples that cannot be used are taken out of the split.
        """
        channels = 1 if self.first.mode == "L" else 3
        shape = (len(self), self.first.height, self.first.width, channels)
        if np.prod(shape) > MEMORY_LIMIT:
            return None
        pixels, kept = np.empty(shape, dtype=np.uint8), np.ones(len(self), dtype=bool)
        cells = (cell for batch in self.rows.iter(1000) for cell in batch["image"])  # one row at a time is slow
        progress = tqdm(cells, f"Decoding {self.name}", len(self), unit=" images", delay=3, leave=False, disable=None)
        for i, cell in enumerate(progress):
            try:
                image = decode(cell)
                usual = to_channels(image, channels)
                if image.size != self.first.size or (channels == 1 and image.mode != "L"):
                    return None
                pixels[i] = np.asarray(usual).reshape(shape[1:])
            except BadSampleError as reason:
                self.bad.skip(self.sample(i), reason)
                kept[i] = False
        self._keep(kept)
        return pixels[kept]

    def leave_unreadable_out(self) -> None:
        """Decodes every image once and takes those that cannot be read out of the split.

        A figure is then measured on every image that can be read, and on no image twice.
        """
        if self.pixels is not None:
            return
        # Starting workers takes longer than decoding a few thousand images.
        workers = torch.get_num_threads() if len(self) > _MANY else 0
        loader = torch.utils.data.DataLoader(_Faults(self.rows), 64, num_workers=workers, collate_fn=list)
        faults = (fault for batch in loader for fault in batch)
        kept = np.ones(len(self), dtype=bool)
        progress = tqdm(faults, f"Checking {self.name}", len(self), unit=" images", delay=3, leave=False, disable=None)
        for i, fault in enumerate(progress):
            if fault is not None:
                self.bad.skip(self.sample(i), BadSampleError(fault))
                kept[i] = False
        self._keep(kept)

    def _keep(self, kept: np.ndarray) -> None:
        if not kept.any():
            raise ValueError(_NONE_READABLE.format(self.name))
        if not kept.all():
            self.left_out += int((~kept).sum())
            self.rows = self.rows.select(np.flatnonzero(kept))
            self.labels, self.places = self.labels[kept], self.places[kept]

    def dataset(self, transform: Transform, seed: int) -> torch.utils.data.Dataset:
        """Samples for the Trainer, from memory where `transform` and the images allow it."""
        fits = isinstance(transform, PixelTransform) and np.prod((len(self), *transform.size)) <= MEMORY_LIMIT
        if fits and self.pixels is not None:
            return TensorImages(_resized(self.pixels, transform), self.labels, transform, seed)
        return EncodedImages(self.rows, self.labels, transform, seed, self.sample, self.bad)


def _class_numbers(labels: np.ndarray, class_names: Sequence[str], split: str) -> np.ndarray:
    """The numbers of classes that are given by name: (N,) strings or booleans to (N,) int64.

    Raises:
        ValueError: A name is none of `class_names`.
    """
    numbers = {name: number for number, name in enumerate(class_names)}
    unknown = sorted({str(label) for label in labels} - set(numbers))
    if unknown:
        raise ValueError(
            f"The split {split!r} has labels that the training split has not, such as {unknown[0]!r}: repair them, or name "
            "another column with --label_column."
        )
    return np.array([numbers[str(label)] for label in labels], dtype=np.int64)


class _Faults(torch.utils.data.Dataset):
    """For every row, why its image cannot be used; None where it can."""

    def __init__(self, rows: datasets.Dataset) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> str | None:
        try:
            to_channels(decode(self.rows[index]["image"]), 3)
        except BadSampleError as reason:
            return str(reason)
        return None


def _resized(pixels: np.ndarray, transform: PixelTransform) -> torch.Tensor:
    """(N, H, W, C) to the (N, C', H', W') that `transform.finish` takes."""
    channels, height, width = transform.size
    if transform.keeps_size and pixels.shape[1:3] == (height, width) and pixels.shape[3] in (1, channels):
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        return images.expand(-1, channels, -1, -1).contiguous()
    return torch.stack(
        [transform.pixels(PIL.Image.fromarray(x.squeeze(-1) if x.shape[-1] == 1 else x)) for x in pixels]
    )
