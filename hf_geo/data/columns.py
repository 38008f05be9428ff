"""Columns of images, texts and classes, and how the classes of a dataset correspond to those of a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Image, Value

_MOST_CLASSES = 25_000  # more than ImageNet-21k has; larger numbers than this and than the samples are ids or dates


class LabelColumn(Protocol):
    """What is known of a label column: its name, those of the classes, and whether it was guessed (see `Columns`)."""

    label: str
    class_names: tuple[str, ...] | None
    guessed: bool


AnyColumns = TypeVar("AnyColumns", bound=LabelColumn)


@dataclass(frozen=True)
class Columns:
    """The image and the label column, and the names of the classes where the features list them.

    Args:
        image: Column of the images.
        label: Column of the classes: their numbers or their names; None for images without classes.
        class_names: Names of the classes in the order of their numbers, or None.
        guessed: Whether the label column holds bare integers, and neither the user nor its name says that they are classes.
    """

    image: str
    label: str | None
    class_names: tuple[str, ...] | None
    guessed: bool = False


def find_columns(
    features: Mapping[str, Any], image: str | None = None, label: str | None = None, *, needs_classes: bool = True
) -> Columns:
    """Finds the image and the label column: as the user names them, or by their usual names, or by their types.

    Args:
        features: `datasets` features by column.
        image: The image column, if the user names it.
        label: The label column, if the user names it.
        needs_classes: Whether there has to be a label column. If not, only one of a usual name or of listed classes is one.

    Raises:
        ValueError: A named column is missing or of another type, or no column or more than one could be meant.
    """
    found_image = find_image(features, image)
    known = (f for name, f in features.items() if name in _LABEL.usual or isinstance(f, ClassLabel))
    if not (needs_classes or label or any(kind(f) for f in known for kind in _LABEL.kinds)):
        return Columns(found_image, None, None)
    return Columns(found_image, *find_label(features, label))


def find_image(features: Mapping[str, Any], named: str | None = None) -> str:
    """Finds the image column, as `find_columns` does."""
    return _choose(_IMAGE, named, features)


def find_label(features: Mapping[str, Any], named: str | None = None) -> tuple[str, tuple[str, ...] | None, bool]:
    """Finds the label column: its name, the names of its classes where it has them, and whether it was guessed.

    Raises:
        ValueError: The named column is missing or of another type, or no column or more than one could be meant.
    """
    label = _choose(_LABEL, named, features)
    names = features[label].names if isinstance(features[label], ClassLabel) else None
    guessed = named is None and label not in _LABEL.usual and _is_integer(features[label])
    return label, tuple(names) if names else None, guessed


def read_labels(rows: Dataset, columns: LabelColumn, split: str) -> np.ndarray:
    """Reads the class numbers of a split, (N,) int64; words and booleans are numbered by `columns.class_names`, none is 0.

    Raises:
        ValueError: Labels are missing, or are words that are none of the classes.
    """
    if columns.label is None:
        return np.zeros(len(rows), dtype=np.int64)
    labels = rows.select_columns([columns.label]).with_format("arrow")[:][columns.label]
    check_complete(labels, "labels", split)
    labels = labels.to_numpy()
    if labels.dtype.kind not in "Ob":
        return labels.astype(np.int64)
    numbers = {name: number for number, name in enumerate(columns.class_names)}
    unknown = sorted({str(label) for label in labels} - set(numbers))
    if unknown:
        raise ValueError(
            f"The split {split!r} has labels that the training split has not, such as {unknown[0]!r}: repair them, or name "
            "another column with --label_column."
        )
    return np.array([numbers[str(label)] for label in labels], dtype=np.int64)


def check_complete(column: Any, kind: str, split: str) -> None:
    """Raises `ValueError` if cells of an Arrow column are null."""
    if column.null_count:
        raise ValueError(f"{column.null_count} {kind} of the split {split!r} are missing: remove those rows.")


def name_classes(columns: AnyColumns, training: Sequence[Dataset]) -> AnyColumns:
    """Adds the names of the classes, in alphabetical order, where labels are words.

    Args:
        columns: From `find_columns` or `find_sentence_columns`.
        training: The splits to train on.
    """
    if columns.class_names or columns.label is None or not _is_word(training[0].features[columns.label]):
        return columns
    words = {str(word) for part in training for word in part.unique(columns.label) if word is not None}
    return replace(columns, class_names=tuple(sorted(words)))


def number_classes(columns: LabelColumn, labels: np.ndarray) -> tuple[str, ...]:
    """Names classes that have only numbers: "0", "1", and so on up to the largest of `labels`; none without a label column.

    Raises:
        ValueError: The column was guessed, or its numbers are too large for classes.
    """
    if columns.label is None:
        return ()
    low, high = int(labels.min()), int(labels.max())
    described = f"The integers in the column {columns.label!r} run from {low} to {high} in {len(labels)} samples"
    if columns.guessed:
        raise ValueError(
            f"{described}, and nothing says that they are classes: if they are, use --label_column {columns.label}, or name "
            "another column with it."
        )
    if high >= max(len(labels), _MOST_CLASSES):
        raise ValueError(
            f"{described}, which are ids or dates rather than classes counted from 0: name another column with "
            "--label_column, or replace them by words."
        )
    return tuple(str(number) for number in range(high + 1))


def match_classes(model: Sequence[str], data: Sequence[str], model_name: str, data_name: str) -> torch.Tensor:
    """Finds the model's number of each class of a dataset, shape (classes of the dataset,).

    Classes are matched by name if both sides have names, and the dataset may then have fewer; otherwise by number.

    Args:
        model: Names of the model's classes.
        data: Names of the dataset's classes.
        model_name: For the message.
        data_name: For the message.

    Raises:
        ValueError: The model does not know a class of the dataset, or the numbers of unnamed classes differ.
    """
    plain = [name.casefold().strip() for name in model]
    # Case is ignored unless two classes differ in it alone.
    known = {name: i for i, name in enumerate(plain) if plain.count(name) == 1} | {n: i for i, n in enumerate(model)}
    numbers = [known.get(name, known.get(name.casefold().strip())) for name in data]
    if None not in numbers and len(set(numbers)) == len(numbers):
        return torch.tensor(numbers)
    if _are_names(model) and _are_names(data):
        unknown = [name for name, number in zip(data, numbers, strict=True) if number is None] or list(data)
        raise ValueError(
            f"{model_name!r} does not know the class{'es' if len(unknown) > 1 else ''} {', '.join(map(repr, unknown[:5]))} of "
            f"{data_name} (its own are {', '.join(map(repr, model[:5]))}{', ...' if len(model) > 5 else ''}): evaluate it on "
            "data with its classes."
        )
    if len(model) != len(data):
        raise ValueError(
            f"{model_name!r} has {len(model)} classes, but {data_name} has {len(data)}: "
            "evaluate it on the data set it was trained on."
        )
    return torch.arange(len(data))


def _choose(role: "_Role", named: str | None, features: Mapping[str, Any]) -> str:
    """Chooses the column that the user names, or one with a usual name, or the only one of a kind."""
    listing = f"The columns are {', '.join(f'{k} ({_kind(f)})' for k, f in features.items())}."
    option = f"--{role.name}_column"
    fitting = [name for name, feature in features.items() if any(kind(feature) for kind in role.kinds)]
    if named is not None:
        if named not in features:
            raise ValueError(f"There is no column {named!r} ({option}). {listing}")
        if named not in fitting:
            raise ValueError(f"The column {named!r} ({option}) does not hold {role.contents}. {listing}")
        return named
    for kind in role.kinds:
        for name in role.usual:
            if name in fitting and kind(features[name]):
                return name
    # A column of the last kind may hold anything, so the user or its name has to choose it.
    for kind in role.kinds[:-1]:
        candidates = [name for name in fitting if kind(features[name])]
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise ValueError(f"More than one {role.name} column is found: name it with {option}. {listing}")
    advice = f": name it with {option}" if fitting else f", nor one that could be it: {role.remedy}"
    raise ValueError(f"No {role.name} column is found{advice}. {listing}")


def _is_encoded(feature: Any) -> bool:
    """Whether the cells may be encoded images: bytes, or an image column as pandas writes it."""
    if isinstance(feature, Mapping):
        return set(feature) == {"bytes", "path"} and _is_encoded(feature["bytes"])
    return isinstance(feature, Value) and feature.dtype in ("binary", "large_binary")


def _is_integer(feature: Any) -> bool:
    return isinstance(feature, Value) and "int" in feature.dtype


def is_string(feature: Any) -> bool:
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string")


def _is_word(feature: Any) -> bool:
    return is_string(feature) or (isinstance(feature, Value) and feature.dtype == "bool")


def _kind(feature: Any) -> str:
    if isinstance(feature, ClassLabel):
        return f"{feature.num_classes} classes"
    return feature.dtype if isinstance(feature, Value) else type(feature).__name__.lower()


def _are_names(names: Sequence[str]) -> bool:
    """Whether the classes have names, other than the numbers that transformers writes in place of missing ones."""
    return any(name not in (str(i), f"LABEL_{i}") for i, name in enumerate(names))


@dataclass(frozen=True)
class _Role:
    """What a column is for, its usual names, the kinds of column it may be, what these hold, and advice without one."""

    name: str
    usual: tuple[str, ...]
    kinds: tuple[Callable[[Any], bool], ...]
    contents: str
    remedy: str


_IMAGE = _Role(
    name="image",
    usual=("image", "img"),
    kinds=(lambda feature: isinstance(feature, Image), _is_encoded),
    contents="images",
    remedy="give a folder of images, or a column of encoded images",
)
_LABEL = _Role(
    name="label",
    usual=("label", "labels", "fine_label"),
    kinds=(lambda feature: isinstance(feature, ClassLabel), _is_integer, _is_word),
    contents="classes, integers or words",
    remedy="give a folder of images for each class, or a column of classes, integers or words",
)
