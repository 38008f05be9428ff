"""Which columns hold the images and the classes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Image, Value

_IMAGE_NAMES = ("image", "img")
_LABEL_NAMES = ("label", "labels", "fine_label")
_MOST_CLASSES = 25_000  # numbers beyond these (of ImageNet-21k and its like) and beyond the samples are no classes


@dataclass(frozen=True)
class Columns:
    """The columns' names, and the classes' where the data set tells them.

    Args:
        image: Column of the images.
        label: Column of the classes: their numbers or their names.
        class_names: The classes' names in the order of their numbers, as far as the features tell them.
        guessed: Whether the label column was neither named by the user nor has a usual name, and holds mere integers.
    """

    image: str
    label: str
    class_names: tuple[str, ...] | None
    guessed: bool = False


def find_columns(features: Mapping[str, Any], image: str | None = None, label: str | None = None) -> Columns:
    """Finds the image and the label column, by name and then by type, unless they are named.

    Args:
        features: `datasets` features by column.
        image: The image column, if the user names it.
        label: The label column, if the user names it.

    Raises:
        ValueError: A named column is not there or of another kind, or there is none or more than one to choose from.
    """
    there = f"The columns are {', '.join(f'{k} ({_kind(f)})' for k, f in features.items())}."
    found_image = _choose("image", image, _IMAGE_NAMES, features, there, (_is_image, _is_encoded))
    found_label = _choose("label", label, _LABEL_NAMES, features, there, (_is_class, _is_integer, _is_word))
    feature = features[found_label]
    names = feature.names if isinstance(feature, ClassLabel) else None
    guessed = label is None and found_label not in _LABEL_NAMES and _is_integer(feature)
    return Columns(found_image, found_label, tuple(names) if names else None, guessed)


def name_classes(columns: Columns, training: Sequence[Dataset]) -> Columns:
    """The same columns, with the names of the classes, in alphabetical order, where labels are words.

    Args:
        columns: As `find_columns` found them.
        training: The splits to train on.
    """
    if columns.class_names or not _is_word(training[0].features[columns.label]):
        return columns
    words = {str(word) for part in training for word in part.unique(columns.label) if word is not None}
    return replace(columns, class_names=tuple(sorted(words)))


def number_classes(columns: Columns, labels: np.ndarray) -> tuple[str, ...]:
    """The names of classes that are numbers without names: "0", "1", and so on up to the largest of `labels`.

    Raises:
        ValueError: The column was guessed, or the numbers are too large or negative to be those of classes.
    """
    low, high = int(labels.min()), int(labels.max())
    described = f"The integers in the column {columns.label!r} run from {low} to {high} in {len(labels)} samples"
    if columns.guessed:
        raise ValueError(
            f"{described}, and nothing says that they are classes: if they are, use --label_column {columns.label}, or name "
            "another column with it."
        )
    if high >= max(len(labels), _MOST_CLASSES):
        raise ValueError(
            f"{described}, which are no classes counted from 0, rather ids or dates: name another column with "
            "--label_column, or make it one of words."
        )
    return tuple(str(number) for number in range(high + 1))


def _choose(
    what: str,
    named: str | None,
    usual: tuple[str, ...],
    features: Mapping[str, Any],
    there: str,
    kinds: tuple[Callable[[Any], bool], ...],
) -> str:
    """Chooses a column of one of the kinds; what is of the last kind may hold anything, and has to be named or named so."""
    fitting = [name for name, feature in features.items() if any(kind(feature) for kind in kinds)]
    if named is not None:
        if named not in features:
            raise ValueError(f"There is no column {named!r} (--{what}_column). {there}")
        if named not in fitting:
            wanted = "images" if what == "image" else "classes, integers or words"
            raise ValueError(f"The column {named!r} (--{what}_column) does not hold {wanted}. {there}")
        return named
    for kind in kinds:
        for name in usual:
            if name in fitting and kind(features[name]):
                return name
    for kind in kinds[:-1]:
        candidates = [name for name in fitting if kind(features[name])]
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise ValueError(f"More than one {what} column is found: name it with --{what}_column. {there}")
    if fitting:
        raise ValueError(f"No {what} column is found: name it with --{what}_column. {there}")
    remedy = (
        "give a folder of images, or a column of encoded images"
        if what == "image"
        else "give a folder of images for each class, or a column of classes, integers or words"
    )
    raise ValueError(f"No {what} column is found, nor one that could be it: {remedy}. {there}")


def _is_image(feature: Any) -> bool:
    return isinstance(feature, Image)


def _is_encoded(feature: Any) -> bool:
    """Whether these may be encoded images: bytes, or the cells of an image column as pandas writes them."""
    if isinstance(feature, Mapping):
        return set(feature) == {"bytes", "path"} and _is_encoded(feature["bytes"])
    return isinstance(feature, Value) and feature.dtype in ("binary", "large_binary")


def _is_class(feature: Any) -> bool:
    return isinstance(feature, ClassLabel)


def _is_integer(feature: Any) -> bool:
    return isinstance(feature, Value) and "int" in feature.dtype


def _is_word(feature: Any) -> bool:
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string", "bool")


def _kind(feature: Any) -> str:
    if isinstance(feature, ClassLabel):
        return f"{feature.num_classes} classes"
    return feature.dtype if isinstance(feature, Value) else type(feature).__name__.lower()
