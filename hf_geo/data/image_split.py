"""One split of an image dataset: its labels, checked, its images, in memory if they fit, and their colours."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import datasets
import numpy as np
import PIL.Image
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from tqdm.auto import tqdm

from .bad_samples import BadSampleError, BadSamples
from .columns import Columns, check_complete, read_labels
from .image_datasets import EncodedImages, TensorImages, Transform, decode
from .transforms import PixelTransform, to_channels

# Largest size in bytes of the decoded images of a split that are kept in memory; every process has its own copy.
MEMORY_LIMIT = 2 * 2**30
# Starting workers takes longer than decoding this many images.
_FEW = 5_000
_NONE_READABLE = "No image of the split {!r} can be read: name another one, or repair the data set."


# Mean and standard deviation of colours, on a scale of 0 to 1.
Statistics = tuple[tuple[float, ...], tuple[float, ...]]
FIXED_STATISTICS: dict[str, Statistics] = {
    "imagenet": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    "none": ((0.0,) * 3, (1.0,) * 3),
}
_KNOWN: dict[str, Statistics] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "mnist": ((0.1307,) * 3, (0.3081,) * 3),
}


@dataclass
class ImageSplit:
    """A split that can be indexed.

    Args:
        name: Its name for messages.
        rows: Rows with an undecoded column "image".
        labels: (N,) integers.
        positions: Of the samples in the whole split, (N,) integers.
        bad: Counts the samples that cannot be used.
        left_out: How many samples were taken out because they cannot be read.
    """

    name: str
    rows: datasets.Dataset
    labels: np.ndarray
    positions: np.ndarray
    bad: BadSamples
    left_out: int = 0

    @classmethod
    def read(cls, rows: datasets.Dataset, columns: Columns, name: str, bad: BadSamples) -> "ImageSplit":
        """Takes the image and the label column; images stay encoded.

        Raises:
            ValueError: There are no samples, or samples without an image or a label.
        """
        if len(rows) == 0:
            raise ValueError(
                f"The split {name!r} is empty: name another one with --train_split, --eval_split or --test_split."
            )
        labels = read_labels(rows, columns, name)
        rows = rows.select_columns([columns.image]).cast_column(columns.image, datasets.Image(decode=False))
        if columns.image != "image":
            rows = rows.rename_column(columns.image, "image")
        check_complete(rows.data.column("image"), "images", name)
        return cls(name, rows, labels, np.arange(len(rows)), bad)

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: np.ndarray) -> "ImageSplit":
        """The part of the split at `indices`."""
        rows, labels, positions = self.rows.select(indices), self.labels[indices], self.positions[indices]
        return replace(self, rows=rows, labels=labels, positions=positions)

    def joined(self, other: "ImageSplit") -> "ImageSplit":
        """One split of these samples followed by the other's."""
        rows = datasets.concatenate_datasets([self.rows, other.rows])
        name, labels = f"{self.name}+{other.name}", np.concatenate((self.labels, other.labels))
        return replace(self, name=name, rows=rows, labels=labels, positions=np.arange(len(rows)))

    def name_sample(self, index: int) -> str:
        """Names a sample for messages."""
        return f"image {self.positions[index]} of the split {self.name!r}"

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
                self.bad.skip(self.name_sample(index), reason)
        raise ValueError(_NONE_READABLE.format(self.name))

    @cached_property
    def pixels(self) -> np.ndarray | None:
        """All images decoded, (N, H, W, C) uint8; None if they differ in size or exceed `MEMORY_LIMIT`.

        Samples that cannot be used are taken out of the split.
        """
        channels = 1 if self.first.mode == "L" else 3
        shape = (len(self), self.first.height, self.first.width, channels)
        if np.prod(shape) > MEMORY_LIMIT:
            return None
        pixels, readable = np.empty(shape, dtype=np.uint8), np.ones(len(self), dtype=bool)
        cells = (cell for batch in self.rows.iter(1000) for cell in batch["image"])  # row by row is slow
        for i, cell in enumerate(self._with_progress(cells, "Decoding")):
            try:
                image = decode(cell)
                converted = to_channels(image, channels)
                if image.size != self.first.size or (channels == 1 and image.mode != "L"):
                    return None
                pixels[i] = np.asarray(converted).reshape(shape[1:])
            except BadSampleError as reason:
                self.bad.skip(self.name_sample(i), reason)
                readable[i] = False
        self._keep(readable)
        return pixels[readable]

    def leave_unreadable_out(self) -> None:
        """Decodes every image once and takes those that cannot be read out of the split.

        A metric is then measured on every image that can be read, and on no image twice.
        """
        if self.pixels is not None:
            return
        workers = torch.get_num_threads() if len(self) > _FEW else 0
        loader = torch.utils.data.DataLoader(_Faults(self.rows), 64, num_workers=workers, collate_fn=list)
        faults = (fault for batch in loader for fault in batch)
        readable = np.ones(len(self), dtype=bool)
        for i, fault in enumerate(self._with_progress(faults, "Checking")):
            if fault is not None:
                self.bad.skip(self.name_sample(i), BadSampleError(fault))
                readable[i] = False
        self._keep(readable)

    def dataset(self, transform: Transform, seed: int) -> torch.utils.data.Dataset:
        """Samples for the Trainer, from memory where `transform` and the images allow it."""
        fits = isinstance(transform, PixelTransform) and np.prod((len(self), *transform.images.size)) <= MEMORY_LIMIT
        if fits and self.pixels is not None:
            return TensorImages(_resize(self.pixels, transform), self.labels, transform, seed)
        return EncodedImages(self.rows, self.labels, transform, seed, self.name_sample, self.bad)

    def _with_progress(self, items: Iterable, doing: str) -> Iterable:
        return tqdm(items, f"{doing} {self.name}", len(self), unit=" images", delay=3, leave=False)

    def _keep(self, readable: np.ndarray) -> None:
        if not readable.any():
            raise ValueError(_NONE_READABLE.format(self.name))
        if not readable.all():
            self.left_out += int((~readable).sum())
            self.rows = self.rows.select(np.flatnonzero(readable))
            self.labels, self.positions = self.labels[readable], self.positions[readable]


class _Faults(torch.utils.data.Dataset):
    """For every row, why its image cannot be used, or None."""

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


def _resize(pixels: np.ndarray, transform: PixelTransform) -> torch.Tensor:
    """Turns (N, H, W, C) into the (N, C', H', W') that `transform.finish` takes."""
    channels, height, width = transform.images.size
    if transform.images.keeps_size and pixels.shape[1:3] == (height, width) and pixels.shape[3] in (1, channels):
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        return images.expand(-1, channels, -1, -1).contiguous()
    arrays = pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels
    return torch.stack([transform.pixels(PIL.Image.fromarray(array)) for array in arrays])


def known_statistics(name: str) -> Statistics:
    """Mean and standard deviation of a dataset's colours, by its Hub id or folder; ImageNet's if it is not known."""
    return _KNOWN.get(name.rsplit("/", 1)[-1], (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))


def colour_statistics(pixels: np.ndarray) -> Statistics:
    """Mean and standard deviation of each colour of (N, H, W, C) uint8 images.

    Greyscale images (C = 1) count as colour images with three equal channels.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in torch.from_numpy(pixels).unbind(-1):
        share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        means.append(float((share * levels).sum()))
        variance = (share * (levels - means[-1]) ** 2).sum()
        stds.append(float(variance.sqrt()) or 1.0)  # images of a single shade need no scaling
    times = 3 // len(means)
    return tuple(means) * times, tuple(stds) * times
