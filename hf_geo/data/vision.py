"""From a data set's name to training, evaluation and test samples of an image classification task."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from .bad_samples import BadSamples
from .columns import Columns, find_columns, name_classes, number_classes
from .config import DataArguments
from .image_split import ImageSplit
from .sources import Source, open_source
from .splits import SplitNames, add_label_noise, choose_splits, hold_out, subset
from .statistics import colour_statistics, known_statistics
from .streams import StreamedSplit
from .transforms import Preparation, make_transform

_SMALL = 64  # pixels: up to this size a network is trained on images at their own
_MIRRORLESS = ("digits", "mnist", "svhn")  # a mirrored digit is another sign, or none


@dataclass
class ImageData:
    """An image classification data set. It knows what a model has to fit before there is one.

    Networks are given colour images; greyscale ones get three equal channels, as in the image pipelines of timm and
    transformers. A network that was built for one channel gets greyscale.

    Args:
        name: How to call the data set.
        hub_id: Its id on the Hub, if it came from there.
        label_names: Names of the classes.
        splits: "train", "eval" and, where there are labelled samples for it, "test".
        native_size: Height and width of the first training image in pixels.
        image_size: What the user asked for.
        augmentation: As in `DataArguments`.
        seed: Of augmentation.
        origin: Where the splits come from and how large they are, in words.
        bad: Samples that could not be used so far.
    """

    name: str
    hub_id: str | None
    label_names: tuple[str, ...]
    splits: Mapping[str, ImageSplit | StreamedSplit]
    native_size: tuple[int, int]
    image_size: int | None
    augmentation: str
    seed: int
    origin: str
    bad: BadSamples

    @property
    def description(self) -> str:
        """Where the splits come from, how large they are, and how many samples could not be used."""
        notes = [self.origin]
        evaluated = {role: split for role, split in self.splits.items() if role != "train"}
        for role, split in evaluated.items():
            if isinstance(split, ImageSplit) and split.left_out:
                notes.append(
                    f"{role}: {split.left_out:,} images could not be read and are left out, so {len(split):,} are measured."
                )
        others = len(self.bad) - sum(split.left_out for split in evaluated.values() if isinstance(split, ImageSplit))
        if others > 0:
            notes.append(f"{others:,} images could not be read and were skipped.")
        return " ".join(notes)

    @property
    def num_classes(self) -> int:
        return len(self.label_names)

    @property
    def id2label(self) -> dict[int, str]:
        return dict(enumerate(self.label_names))

    @property
    def data_config(self) -> dict[str, Any]:
        """What a network trained from scratch takes from the data, in timm's terms.

        `mean` and `std` of the training images; for images of up to 64 pixels also `input_size` (C, H, W), at least 32
        pixels high and wide as timm's architectures need, and `crop_pct` 1.
        """
        pixels = self.splits["train"].pixels
        mean, std = known_statistics(self.name) if pixels is None else colour_statistics(pixels)
        config: dict[str, Any] = {"mean": mean, "std": std}
        size = self.image_size
        if max(self.native_size) <= _SMALL:
            size = size or max(32, *self.native_size)
            config["crop_pct"] = 1.0
        return config if size is None else {**config, "input_size": (3, size, size)}

    def dataset(
        self, split: str, config: Mapping[str, Any] | Preparation, *, augment: bool | None = None
    ) -> torch.utils.data.Dataset:
        """Samples `{"pixel_values": float32 (C, H, W), "labels": int}` of a split.

        The training split has `set_epoch(epoch)`: augmentation depends on it, the seed and the sample alone. In training
        another image stands in for one that cannot be read; for evaluation such images are left out. A stream to train on, `augment` on, never ends.

        Args:
            split: "train", "eval" or "test".
            config: How images are prepared for the model: see `hf_geo.models.input_config`.
            augment: Change images at random; default: those of "train".

        Raises:
            ValueError: There is no such split, or its images would come out in several sizes.
        """
        if split not in self.splits:
            raise ValueError(f"{self.name} has no {split!r} split to use, only {', '.join(self.splits)}.")
        augment = split == "train" if augment is None else augment
        mirror = not any(word in self.name.lower() for word in _MIRRORLESS)
        transform = make_transform(config, self.augmentation if augment else "none", mirror)
        if not transform.images.uniform and self.splits[split].pixels is None:
            raise ValueError(
                "The model's image processor makes images of several sizes, which make no batch: name one with --image_size."
            )
        part = self.splits[split]
        if isinstance(part, StreamedSplit):
            return part.dataset(transform, self.seed, endless=augment)
        if split != "train":
            part.leave_unreadable_out()
        return part.dataset(transform, self.seed)


def load_image_data(args: DataArguments, *, seed: int = 0) -> ImageData:
    """Opens the data set that `args` names and settles its columns, classes and splits.

    Small images are decoded into memory when they are first needed, in every process.

    Args:
        args: What the user says about the data.
        seed: Of augmentation, label noise and the order of a stream. Held-out parts and subsets do not depend on it.

    Raises:
        ValueError: The data set, a split or a column is not there or not fit, or the Hub cannot be reached.
    """
    source = open_source(args.dataset, args.dataset_config, args.streaming)
    names = choose_splits(source.splits, args.train_split, args.eval_split, args.test_split, source.files)
    if args.eval_size and names.eval is not None:
        raise ValueError(
            f"--eval_size {args.eval_size} holds out training samples, but the split {names.eval!r} is there to evaluate on: "
            "leave one of them out."
        )
    features = source.splits[names.train[0]].features
    columns = find_columns(features or {}, args.image_column, args.label_column)
    bad = BadSamples(args.max_bad_samples)
    if args.streaming:
        if len(names.train) > 1 or args.eval_size:
            raise ValueError(
                "A stream has one training split, whose first --max_eval_samples are held out: leave out "
                + ("--eval_size." if args.eval_size else f"{names.train[1]!r} of --train_split.")
            )
        splits, notes = _stream(source, names, columns, args, bad)
        label_names = columns.class_names
    else:
        splits, label_names, notes = _load(source, names, columns, args, seed, bad)
    image = splits["train"].first
    return ImageData(
        name=source.name,
        hub_id=source.hub_id,
        label_names=label_names,
        splits=splits,
        native_size=(image.height, image.width),
        image_size=args.image_size,
        augmentation=args.augmentation,
        seed=seed,
        origin="; ".join(notes) + ".",
        bad=bad,
    )


def _load(
    source: Source,
    names: SplitNames,
    columns: Columns,
    args: DataArguments,
    seed: int,
    bad: BadSamples,
) -> tuple[dict[str, ImageSplit], tuple[str, ...], list[str]]:
    first, *more = names.train
    columns = name_classes(columns, [source.splits[name] for name in names.train])
    train = ImageSplit.read(source.splits[first], columns, first, bad)
    held_out_from = train.labels
    for name in more:
        train = train.joined(ImageSplit.read(source.splits[name], columns, name, bad))
    label_names = columns.class_names or number_classes(columns, train.labels)
    if len(label_names) < 2:
        raise ValueError(
            f"All samples of the split {names.train[0]!r} are of one class, {label_names[0]!r}, so there is nothing to tell "
            "apart: give images of a second class."
        )
    train.check_labels(len(label_names))
    origin = {"train": f"split {first!r}", "eval": f"split {names.eval!r}", "test": f"split {names.test!r}"}
    origin["train"] += "".join(f" and all of split {name!r}" for name in more)
    if names.eval is None:
        kept, held = hold_out(held_out_from, args.eval_size)
        kept = np.concatenate((kept, np.arange(len(held_out_from), len(train))))
        splits = {"train": train.select(kept), "eval": train.select(held)}
        part = "a tenth of " if args.eval_size is None else ""
        origin["eval"] = f"{part}split {first!r} held out, the same in every run"
    else:
        splits = {"train": train, "eval": ImageSplit.read(source.splits[names.eval], columns, names.eval, bad)}
    if names.test is not None:
        test = ImageSplit.read(source.splits[names.test], columns, names.test, bad)
        if args.test_split or not test.labels_hidden:
            splits["test"] = test

    notes = []
    for role, split in splits.items():
        split.check_labels(len(label_names))
        limit = args.max_train_samples if role == "train" else args.max_eval_samples
        splits[role] = split.select(subset(len(split), limit))
        notes.append(f"{role}: {len(splits[role]):,} images from {origin[role]}")
    if names.test is not None and "test" not in splits:
        notes.append(f"the labels of split {names.test!r} are hidden, so it is not used")
    if args.label_noise:
        noisy = add_label_noise(splits["train"].labels, args.label_noise, len(label_names), seed)
        splits["train"] = replace(splits["train"], labels=noisy)
        notes.append(f"label noise: {args.label_noise:.0%} of the training labels drawn from all classes")
    return splits, label_names, notes


def _stream(
    source: Source, names: SplitNames, columns: Columns, args: DataArguments, bad: BadSamples
) -> tuple[dict[str, StreamedSplit], list[str]]:
    if args.label_noise:
        raise ValueError("--label_noise needs all labels before training: leave --streaming out.")
    (name,) = names.train
    train = StreamedSplit.read(source.splits[name], columns, name, bad)
    if names.eval is None:
        if args.max_eval_samples is None:
            raise ValueError(
                f"The data set has no split to evaluate on: name one with --eval_split (of {', '.join(source.splits)}), or hold "
                "out the first N training samples with --max_eval_samples N."
            )
        splits = {"train": train.part(first=args.max_eval_samples), "eval": train.part(size=args.max_eval_samples)}
        if splits["train"].is_empty:
            raise ValueError(
                f"--max_eval_samples {args.max_eval_samples} holds out every sample of the split {name!r} and leaves nothing "
                "to train on: hold out fewer, or name a split to evaluate on with --eval_split."
            )
        origin = f"the first {args.max_eval_samples:,} samples of split {name!r}, held out"
    else:
        evaluation = StreamedSplit.read(source.splits[names.eval], columns, names.eval, bad)
        splits = {"train": train, "eval": evaluation.part(size=args.max_eval_samples)}
        origin = f"split {names.eval!r}"
    splits["train"] = splits["train"].part(size=args.max_train_samples)
    notes = [f"train: split {name!r}, streamed", f"eval: {origin}, streamed"]
    if names.test is not None:
        test = StreamedSplit.read(source.splits[names.test], columns, names.test, bad)
        if args.test_split or test.labelled:
            splits["test"] = test.part(size=args.max_eval_samples)
            notes.append(f"test: split {names.test!r}, streamed")
        else:
            notes.append(f"the labels of split {names.test!r} are hidden, so it is not used")
    return splits, notes
