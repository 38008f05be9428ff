"""From a dataset's name to training, evaluation and test samples of an image classification task."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .bad_samples import BadSamples
from .columns import Columns, find_columns, name_classes, number_classes
from .config import DataArguments
from .image_split import FIXED_STATISTICS, ImageSplit, colour_statistics, known_statistics
from .shifted.corruptions import CorruptedTransform
from .sources import Source, open_source
from .splits import SplitNames, are_labels_hidden, check_labels, choose_splits, divide, limit_and_add_noise
from .streams import StreamedSplit, load_streamed_splits
from .transforms import Preparation, crop_share, make_transform

_SMALL = 64  # pixels: networks are trained on images up to this size at their own size
_MIRRORLESS = ("digits", "mnist", "svhn")  # a mirrored digit is of another class, or of none


@dataclass
class ImageData:
    """An image classification dataset, which determines what a network has to fit.

    Networks get colour images: greyscale ones get three equal channels, as timm and transformers prepare them. A network
    that was built for one channel gets greyscale.

    Args:
        name: Its name for people.
        hub_id: Its id on the Hub, if it came from there.
        label_names: Names of the classes; none for images without classes.
        splits: "train", "eval" and, where there are labelled samples for it, "test".
        native_size: Height and width of the first training image in pixels.
        args: The user's options.
        seed: Seed of the augmentation.
        origin: Where the splits come from and how large they are, in words.
        bad: Samples that could not be used so far.
    """

    name: str
    hub_id: str | None
    label_names: tuple[str, ...]
    splits: Mapping[str, ImageSplit | StreamedSplit]
    native_size: tuple[int, int]
    args: DataArguments
    seed: int
    origin: str
    bad: BadSamples

    @property
    def description(self) -> str:
        """Where the splits come from, how large they are, and how many samples could not be used."""
        notes, left_out = [self.origin], {}
        for role, split in self.splits.items():
            if role != "train" and isinstance(split, ImageSplit) and split.left_out:
                left_out[split.name] = split.left_out  # once, if a split is both evaluated and tested on
                notes.append(
                    f"{role}: {split.left_out:,} images could not be read and are left out, so {len(split):,} are measured."
                )
        skipped = len(self.bad) - sum(left_out.values())
        if skipped > 0:
            notes.append(f"{skipped:,} images could not be read and were skipped.")
        return " ".join(notes)

    @property
    def is_mirrorable(self) -> bool:
        """Whether a mirrored image is of the same class, as far as the dataset's name tells."""
        return not any(word in self.name.lower() for word in _MIRRORLESS)

    @property
    def num_classes(self) -> int:
        return len(self.label_names)

    @property
    def id2label(self) -> dict[int, str]:
        return dict(enumerate(self.label_names))

    @property
    def data_config(self) -> dict[str, Any]:
        """The settings that a network trained from scratch takes from the data, under timm's names.

        `mean` and `std` of the training images, or as the user chose them; for images of up to 64 pixels also
        `input_size` (C, H, W), at least 32 pixels high and wide because timm's architectures need that, and `crop_pct` 1.
        """
        pixels = self.splits["train"].pixels
        if self.args.normalization == "data":
            mean, std = known_statistics(self.name) if pixels is None else colour_statistics(pixels)
        else:
            mean, std = FIXED_STATISTICS[self.args.normalization]
        config: dict[str, Any] = {"mean": mean, "std": std}
        if self.args.interpolation:
            config["interpolation"] = self.args.interpolation
        size = self.args.image_size
        if max(self.native_size) <= _SMALL:
            size = size or max(32, *self.native_size)
            config["crop_pct"] = 1.0
        if self.args.eval_resize:
            config["crop_pct"] = crop_share(size, self.args.eval_resize)
        return config if size is None else {**config, "input_size": (3, size, size)}

    def dataset(
        self,
        split: str,
        config: Mapping[str, Any] | Preparation,
        *,
        augment: bool | None = None,
        endless: bool | None = None,
        corruption: tuple[str, int] | None = None,
    ) -> torch.utils.data.Dataset:
        """Samples `{"pixel_values": float32 (C, H, W), "labels": int}` of a split.

        The training split has `set_epoch(epoch)`: augmentation depends on it, the seed and the sample alone. In training another
        image replaces one that cannot be read; in evaluation it is left out.

        Args:
            split: "train", "eval" or "test".
            config: How images are prepared for the model: see `hf_geo.models.input_config`.
            augment: Change images at random; by default those of "train".
            endless: Whether a stream begins anew after its last sample; by default where images are changed.
            corruption: Kind and severity of a `CorruptedTransform`.

        Raises:
            ValueError: There is no such split or corruption, or its images would come out in several sizes.
        """
        if split not in self.splits:
            raise ValueError(f"{self.name} has no {split!r} split to use, only {', '.join(self.splits)}.")
        augment = split == "train" if augment is None else augment
        endless = augment if endless is None else endless
        transform = make_transform(
            config,
            self.args.augmentation if augment else "none",
            self.is_mirrorable,
            shift=self.args.crop_shift,
            border=self.args.crop_border,
            color_jitter=self.args.color_jitter,
        )
        part = self.splits[split]
        if not transform.images.uniform and part.pixels is None:
            raise ValueError(
                "The model's image processor makes images of several sizes, which make no batch: choose one with --image_size."
            )
        if corruption is not None:
            transform = CorruptedTransform(transform.images, *corruption)
        if isinstance(part, StreamedSplit):
            return part.dataset(transform, self.seed, endless=endless)
        if split != "train":
            part.leave_unreadable_out()
        return part.dataset(transform, self.seed)


def load_image_data(args: DataArguments, *, seed: int = 0, needs_classes: bool = True) -> ImageData:
    """Opens the dataset that `args` names, and determines its columns, classes and splits.

    Small images are decoded into memory when they are first needed, in every process.

    Args:
        args: The user's options for the data.
        seed: Seed of augmentation, label noise and the order of a stream. Held-out parts and subsets do not depend on it.
        needs_classes: Whether the images need two classes or more. If not, those without a label column have none.

    Raises:
        ValueError: The dataset, a split or a column is missing or does not fit, or the Hub cannot be reached.
    """
    source = open_source(args.dataset, args.dataset_config, args.streaming)
    named = args.train_split, args.eval_split, args.test_split
    names = choose_splits(source.splits, *named, source.files, args.eval_size)
    features = source.splits[names.train[0]].features
    columns = find_columns(features or {}, args.image_column, args.label_column, needs_classes=needs_classes)
    if not (needs_classes or args.label_column or args.streaming) and _is_empty(source, names, columns):
        columns = Columns(columns.image, None, None)
    if args.label_noise and columns.label is None:
        raise ValueError(f"--label_noise {args.label_noise} is for classes, and the images of {source.name} have none.")
    bad = BadSamples(args.max_bad_samples)
    if args.streaming:
        splits, origin = load_streamed_splits(source, names, columns, args, bad)
        label_names = columns.class_names
    else:
        splits, label_names, origin = _load_splits(source, names, columns, args, seed, bad, needs_classes)
    image = splits["train"].first
    return ImageData(
        name=source.name,
        hub_id=source.hub_id,
        label_names=label_names,
        splits=splits,
        native_size=(image.height, image.width),
        args=args,
        seed=seed,
        origin=origin,
        bad=bad,
    )


def _is_empty(source: Source, names: SplitNames, columns: Columns) -> bool:
    """Whether no training image has a label, as in a folder of images whose sub-folders are its splits."""
    tables = [source.splits[name].data for name in names.train] if columns.label else []
    return bool(tables) and all(table.column(columns.label).null_count == len(table) for table in tables)


def _load_splits(
    source: Source,
    names: SplitNames,
    columns: Columns,
    args: DataArguments,
    seed: int,
    bad: BadSamples,
    needs_classes: bool,
) -> tuple[dict[str, ImageSplit], tuple[str, ...], str]:
    """Makes the splits by role, the names of the classes, and where the splits come from, in words."""
    first, *more = names.train
    columns = name_classes(columns, [source.splits[name] for name in names.train])

    def read(name: str) -> ImageSplit:
        return ImageSplit.read(source.splits[name], columns, name, bad)

    train = read(first)
    first_samples = len(train)
    for name in more:
        train = train.joined(read(name))
    label_names = columns.class_names or number_classes(columns, train.labels)
    if needs_classes and len(label_names) < 2:
        raise ValueError(
            f"All samples of the split {first!r} are of one class, {label_names[0]!r}, so there is nothing to learn: "
            "give images of a second class."
        )
    num_classes = max(len(label_names), 1)  # images without classes are all of number 0
    check_labels(train.labels, num_classes, train.name)
    origin = {"train": f"split {first!r}" + "".join(f" and all of split {name!r}" for name in more)}
    if names.eval is None:
        splits = dict(zip(("train", "eval"), divide(train, first_samples, args.eval_size), strict=True))
        share = "a tenth of " if args.eval_size is None else ""
        origin["eval"] = f"{share}split {first!r} held out, the same in every run"
    else:
        splits = {"train": train, "eval": read(names.eval)}
        origin["eval"] = f"split {names.eval!r}"
    if names.test is not None and (args.test_split or not are_labels_hidden(source.splits[names.test], columns)):
        splits["test"], origin["test"] = read(names.test), f"split {names.test!r}"
    elif names.test is not None:
        origin["test"] = f"the labels of split {names.test!r} are hidden, so it is not used"
    return splits, label_names, limit_and_add_noise(splits, origin, args, num_classes, seed, "images")
