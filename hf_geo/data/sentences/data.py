"""From a dataset's name to labelled sentences, or pairs of sentences, to train, evaluate and test on."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import datasets
import numpy as np

from ..columns import name_classes, number_classes, read_labels
from ..config import DataArguments
from ..sources import Source, open_source
from ..splits import SplitNames, are_labels_hidden, check_labels, choose_splits, divide, limit_and_add_noise
from .columns import TextColumns, find_sentence_columns

_NO_LABEL = -1


@dataclass
class Sentences:
    """One split.

    Args:
        name: Its name for messages.
        texts: The sentences; of pairs the first ones, then the second ones.
        labels: Class numbers, (N,) int64.
        unlabelled: How many rows were left out because their label is -1.
        empty: How many rows have a text without a character other than space.
    """

    name: str
    texts: tuple[list[str], ...]
    labels: np.ndarray
    unlabelled: int = 0
    empty: int = 0

    @classmethod
    def read(cls, rows: datasets.Dataset, columns: TextColumns, name: str) -> "Sentences":
        """Reads the texts and the labels. Rows with the label -1 are left out; a missing text is an empty one.

        Raises:
            ValueError: There are no rows, labels are missing or are none of the classes, or all texts are empty.
        """
        if len(rows) == 0:
            raise ValueError(
                f"The split {name!r} is empty: name another one with --train_split, --eval_split or --test_split."
            )
        labels = read_labels(rows, columns, name)
        kept = np.flatnonzero(labels != _NO_LABEL)
        rows = rows.select_columns(list(columns.texts)).select(kept)
        texts = tuple([text or "" for text in rows[column]] for column in columns.texts)
        blank = np.array([[not text.strip() for text in column] for column in texts]).reshape(len(texts), -1)
        if len(kept) and blank.all(axis=1).any():
            column = columns.texts[int(blank.all(axis=1).argmax())]
            raise ValueError(
                f"All texts in the column {column!r} of the split {name!r} are empty: name another one with --text_column or "
                "--text_pair_column."
            )
        return cls(name, texts, labels[kept], len(labels) - len(kept), int(blank.any(axis=0).sum()))

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: np.ndarray) -> "Sentences":
        """The part of the split at `indices`."""
        texts = tuple([column[i] for i in indices] for column in self.texts)
        return replace(self, texts=texts, labels=self.labels[indices])

    def joined(self, other: "Sentences") -> "Sentences":
        """One split of these rows followed by the other's."""
        return Sentences(
            f"{self.name}+{other.name}",
            tuple(a + b for a, b in zip(self.texts, other.texts, strict=True)),
            np.concatenate((self.labels, other.labels)),
            self.unlabelled + other.unlabelled,
            self.empty + other.empty,
        )


@dataclass(frozen=True)
class SentenceData:
    """A text classification dataset.

    Args:
        name: Its name for people.
        hub_id: Its id on the Hub, if it came from there.
        label_names: Names of the classes.
        splits: "train", "eval" and, where there are labelled rows for it, "test".
        origin: Where the splits come from, how large they are and what was left out, in words.
    """

    name: str
    hub_id: str | None
    label_names: tuple[str, ...]
    splits: Mapping[str, Sentences]
    origin: str

    @property
    def sentences(self) -> int:
        """1, or 2 for pairs."""
        return len(self.splits["train"].texts)

    def training_texts(self) -> Iterator[str]:
        """All texts of the training split."""
        return (text for column in self.splits["train"].texts for text in column)


def load_sentence_data(args: DataArguments, *, seed: int = 0) -> SentenceData:
    """Opens the dataset that `args` name, and determines its columns, classes and splits.

    Args:
        args: The user's options for the data.
        seed: Seed of the label noise. Held-out parts and subsets do not depend on it.

    Raises:
        ValueError: The dataset, a split or a column is missing or does not fit, or the Hub cannot be reached.
    """
    if args.streaming:
        raise ValueError("--streaming is not for text classification, which reads its sentences at once: leave it out.")
    source = open_source(args.dataset, args.dataset_config)
    named = args.train_split, args.eval_split, args.test_split
    names = choose_splits(source.splits, *named, source.files, args.eval_size)
    training = [source.splits[name] for name in names.train]
    columns = find_sentence_columns(training[0].features, args.text_column, args.text_pair_column, args.label_column)
    columns = name_classes(columns, training)
    splits, label_names, origin = _read_splits(source, names, columns, args)
    described = limit_and_add_noise(splits, origin, args, len(label_names), seed, "rows")
    return SentenceData(source.name, source.hub_id, label_names, splits, described)


def _read_splits(
    source: Source, names: SplitNames, columns: TextColumns, args: DataArguments
) -> tuple[dict[str, Sentences], tuple[str, ...], dict[str, str]]:
    """Reads the splits by role, the names of the classes, and where each split comes from, in words."""

    def read(name: str, option: str) -> Sentences:
        split = Sentences.read(source.splits[name], columns, name)
        if len(split) == 0:
            raise ValueError(f"All labels of the split {name!r} are -1: name another one with --{option}.")
        return split

    first, *more = (read(name, "train_split") for name in names.train)
    train = first
    for part in more:
        train = train.joined(part)
    label_names = columns.class_names or number_classes(columns, train.labels)
    if len(label_names) < 2:
        raise ValueError(
            f"All rows of the split {names.train[0]!r} are of one class, {label_names[0]!r}, so there is nothing to learn: "
            "give texts of a second class."
        )
    check_labels(train.labels, len(label_names), train.name)
    origin = {"train": f"split {' and '.join(map(repr, names.train))}{_left_out(train)}"}
    if names.eval is None:
        splits = dict(zip(("train", "eval"), divide(train, len(first), args.eval_size), strict=True))
        share = "a tenth of " if args.eval_size is None else ""
        origin["eval"] = f"{share}split {first.name!r} held out, the same in every run"
    else:
        splits = {"train": train, "eval": read(names.eval, "eval_split")}
        origin["eval"] = f"split {names.eval!r}{_left_out(splits['eval'])}"
    if names.test is not None and not args.test_split and are_labels_hidden(source.splits[names.test], columns):
        origin["test"] = f"the labels of split {names.test!r} are hidden, so it is not used"
    elif names.test is not None:
        splits["test"] = read(names.test, "test_split")
        origin["test"] = f"split {names.test!r}{_left_out(splits['test'])}"
    return splits, label_names, origin


def _left_out(split: Sentences) -> str:
    notes = [f"{split.unlabelled:,} without a label left out"] if split.unlabelled else []
    notes += [f"{split.empty:,} with an empty text"] if split.empty else []
    return f" ({', '.join(notes)})" if notes else ""
