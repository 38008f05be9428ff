"""Chooses the samples to train on, to evaluate on and to test on, and those that get a wrong label."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import datasets
import numpy as np
from datasets.iterable_dataset import SkipExamplesIterable, TakeExamplesIterable
from sklearn.model_selection import train_test_split

from .columns import LabelColumn
from .config import DataArguments

# Held-out parts and subsets do not depend on the run's seed, so that runs can be compared and a trained model is never
# evaluated on samples that it was trained on.
_SEED = 0
EVAL_NAMES = ("validation", "val", "valid", "dev")


class LabelledSplit(Protocol):
    """A split of images or sentences: its name for messages, and its class numbers, (N,) integers."""

    name: str
    labels: np.ndarray

    def __len__(self) -> int: ...

    def select(self, indices: np.ndarray) -> "LabelledSplit":
        """The part of the split at `indices`."""


AnySplit = TypeVar("AnySplit", bound=LabelledSplit)


@dataclass(frozen=True)
class SplitNames:
    """Names of the dataset's splits; `eval` is None if it has to be held out from `train`, `test` if there is none."""

    train: tuple[str, ...]
    eval: str | None
    test: str | None


def choose_splits(
    available: Mapping[str, Any],
    train: str,
    evaluation: str | None,
    test: str | None,
    files: Mapping[str, Collection[str]] | None = None,
    eval_size: int | None = None,
) -> SplitNames:
    """Chooses splits as the user names them, or else by their usual names, so that no training sample is evaluated on.

    Args:
        available: The dataset's splits.
        train: One name, or several as in "train+extra".
        evaluation: Name of the split to evaluate on during training; default: a usual one that is neither trained on nor named
            for the final figures.
        test: Name of the split for the final figures; default: "test", where it is not trained on.
        files: The files that each split is read from, as far as they are known. Splits that share one share samples.
        eval_size: How many training samples to hold out, if the user says so.

    Raises:
        ValueError: A named split is missing, is named twice, or shares samples with those to train on; or samples are to be held
            out although there is a split to evaluate on.
    """
    parts = tuple(name.strip() for name in train.split("+"))
    for option, name in (*(("train_split", part) for part in parts), ("eval_split", evaluation), ("test_split", test)):
        if name is not None and name not in available:
            raise ValueError(
                f"The data set has no split {name!r} (--{option}): it has {', '.join(available)}."
                + (" Slices are not read: hold samples out with --eval_size." if "[" in name else "")
            )
    files = files or {}
    for i, part in enumerate(parts):
        if twice := [name for name in parts[:i] if _share_samples(name, part, files)]:
            raise ValueError(f"--train_split {train} would train on samples of {twice[0]!r} twice: leave {part!r} out.")

    def is_trained_on(name: str) -> bool:
        return any(_share_samples(name, part, files) for part in parts)

    for option, name in (("eval_split", evaluation), ("test_split", test)):
        if name is not None and is_trained_on(name):
            raise ValueError(
                f"--{option} {name} names samples that --train_split {train} trains on: name another split, or none."
            )
    free = [name for name in (*EVAL_NAMES, "test") if name in available and name != test and not is_trained_on(name)]
    evaluation = evaluation or next((name for name in free if name != "test"), None)
    if eval_size and evaluation is not None:
        raise ValueError(
            f"--eval_size {eval_size} holds out training samples, but the split {evaluation!r} is there to evaluate on: "
            "leave one of them out."
        )
    return SplitNames(parts, evaluation, test or ("test" if "test" in free else None))


def _share_samples(a: str, b: str, files: Mapping[str, Collection[str]]) -> bool:
    return a == b or not set(files.get(a, ())).isdisjoint(files.get(b, ()))


def hold_out(labels: np.ndarray, size: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Divides samples into those to train on and those to evaluate on, each class in proportion.

    Args:
        labels: (N,) integers.
        size: How many to evaluate on; a tenth by default.

    Returns:
        Sorted indices of the samples to train on, and of those to evaluate on.

    Raises:
        ValueError: `size` leaves nothing to train on.
    """
    if len(labels) < 2:
        raise ValueError("Of 1 training sample none can be held out: name a split to evaluate on with --eval_split.")
    if size is not None and size >= len(labels):
        raise ValueError(f"--eval_size {size} leaves nothing to train on: there are {len(labels)} training samples.")
    counts = np.bincount(labels)
    classes = np.count_nonzero(counts)
    held_out = len(labels) // 10 if size is None else size
    proportional = counts[counts > 0].min() >= 2 and classes <= held_out <= len(labels) - classes
    kept, held = train_test_split(
        np.arange(len(labels)),
        test_size=0.1 if size is None else size,
        stratify=labels if proportional else None,
        random_state=_SEED,
    )
    return np.sort(kept), np.sort(held)


def divide(train: AnySplit, first: int, size: int | None) -> tuple[AnySplit, AnySplit]:
    """Divides a training split into the part to train on and the one to evaluate on, of its `first` samples alone."""
    kept, held = hold_out(train.labels[:first], size)
    return train.select(np.concatenate((kept, np.arange(first, len(train))))), train.select(held)


def limit_and_add_noise(
    splits: dict[str, AnySplit], origin: Mapping[str, str], args: DataArguments, num_classes: int, seed: int, unit: str
) -> str:
    """Cuts splits down to the numbers of samples that the user asks for, in place, and adds the label noise.

    Args:
        splits: By role: "train", "eval", "test".
        origin: Where each split comes from, or why it is not used, in words.
        args: The user's options.
        num_classes: Labels are checked against it.
        seed: The run's, for label noise without a seed of its own.
        unit: The word for samples.

    Returns:
        Where the splits come from and how large they are, in words.

    Raises:
        ValueError: Labels are no classes.
    """
    notes = []
    for role, split in splits.items():
        check_labels(split.labels, num_classes, split.name)
        limit = args.max_train_samples if role == "train" else args.max_eval_samples
        splits[role] = split.select(subset(len(split), limit))
        notes.append(f"{role}: {len(splits[role]):,} {unit} from {origin[role]}")
    notes += [note for role, note in origin.items() if role not in splits]
    if args.label_noise:
        noise_seed = seed if args.label_noise_seed is None else args.label_noise_seed
        noisy = add_label_noise(splits["train"].labels, args.label_noise, num_classes, noise_seed)
        splits["train"] = replace(splits["train"], labels=noisy)
        notes.append(f"label noise: {args.label_noise:.0%} of the training labels drawn from all classes")
    return "; ".join(notes) + "."


def first_rows(rows: datasets.IterableDataset, size: int) -> datasets.IterableDataset:
    """The first `size` rows of a stream, which are read when they are needed, by one of a loader's workers.

    `rows.take(size)` gives each of `n` workers `size / n` rows of its own files, which may have fewer.
    """
    first = rows.take(size)
    first._ex_iterable = _TakeInOneWorker(rows._ex_iterable, size)
    return first


class _TakeInOneWorker(TakeExamplesIterable):
    """Counts as one file, so that the first worker takes it and the others have none."""

    num_shards = 1

    def shard_data_sources(self, num_shards: int, index: int, contiguous: bool = True) -> "_TakeInOneWorker":
        return self


def divide_stream(
    rows: datasets.IterableDataset, size: int
) -> tuple[datasets.IterableDataset, datasets.IterableDataset]:
    """Divides a stream into its first `size` rows and the rest; however many workers of a loader read it, no row is in both.

    `rows.take(size)` and `rows.skip(size)` alone do not do that (datasets 5.2): each of `n` workers takes or skips `size / n` rows
    of its own files. The first rows are read once here, to count those of each file.
    """
    files, counts = [], []
    while sum(counts) < size and len(files) < rows.num_shards:
        file = rows.shard(rows.num_shards, len(files))
        counts.append(sum(1 for _ in file.take(size - sum(counts))))
        files.append(file.take(counts[-1]))
    rest = rows.skip(size)
    rest._ex_iterable = _SkipByFile(rows._ex_iterable, counts)
    return datasets.concatenate_datasets(files), rest


class _SkipByFile(SkipExamplesIterable):
    """Skips the first rows of a stream, of which `counts` are in each of the first files."""

    iter_arrow = None  # table by table, rows that are to be skipped are given in datasets 4.8

    def __init__(self, rows: Any, counts: Sequence[int]) -> None:
        super().__init__(rows, sum(counts))
        self.counts = counts

    def shard_data_sources(self, num_shards: int, index: int, contiguous: bool = True) -> "_SkipByFile":
        mine = self.ex_iterable.split_shard_indices_by_worker(num_shards, index, contiguous=contiguous)
        rows = self.ex_iterable.shard_data_sources(num_shards, index, contiguous=contiguous)
        return _SkipByFile(rows, [self.counts[file] for file in mine if file < len(self.counts)])


def subset(length: int, size: int | None) -> np.ndarray:
    """Draws `size` sorted indices out of `length`; all of them if there are no more, or `size` is None."""
    if size is None or size >= length:
        return np.arange(length)
    return np.sort(np.random.default_rng(_SEED).permutation(length)[:size])


def add_label_noise(labels: np.ndarray, share: float, num_classes: int, seed: int) -> np.ndarray:
    """Gives `share` of the samples a label drawn uniformly from all classes: one in `num_classes` of them stays right.

    The rule of Wortsman et al. 2021 (arXiv 2102.10472).
    """
    rng = np.random.default_rng(seed)
    noisy = labels.copy()
    chosen = rng.permutation(len(labels))[: round(share * len(labels))]
    noisy[chosen] = rng.integers(num_classes, size=len(chosen))
    return noisy


def are_labels_hidden(rows: datasets.Dataset, columns: LabelColumn) -> bool:
    """Whether a split's labels are withheld, as in a contest: missing, -1, or one word that is none of the classes."""
    if columns.label is None or len(rows) == 0:
        return False
    others = [label for label in rows.unique(columns.label) if label not in (None, -1)]
    is_word = len(others) == 1 and isinstance(others[0], str)
    return not others or (is_word and others[0] not in (columns.class_names or ()))


def check_labels(labels: np.ndarray, num_classes: int, split: str) -> None:
    """Raises `ValueError` unless all labels of a split are classes."""
    low, high = labels.min(), labels.max()
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"The labels of the split {split!r} run from {low} to {high}, but there are {num_classes} classes, "
            f"0 to {num_classes - 1}: repair them, or name another column with --label_column."
        )
