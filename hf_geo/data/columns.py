"""Which columns hold the images and the classes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datasets import ClassLabel, Image, Value

_IMAGE_NAMES = ("image", "img")
_LABEL_NAMES = ("label", "labels", "fine_label")


@dataclass(frozen=True)
class Columns:
    """The columns' names, and the classes' where the data set tells them."""

    image: str
    label: str
    class_names: tuple[str, ...] | None


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
    image = _choose(
        "image", image, _IMAGE_NAMES, [k for k, f in features.items() if isinstance(f, Image)], features, there
    )
    label = _choose("label", label, _LABEL_NAMES, [k for k, f in features.items() if _is_class(f)], features, there)
    names = features[label].names if isinstance(features[label], ClassLabel) else None
    return Columns(image, label, tuple(names) if names else None)


def _choose(
    what: str, named: str | None, usual: tuple[str, ...], fitting: list[str], features: Mapping[str, Any], there: str
) -> str:
    if named is not None:
        if named not in features:
            raise ValueError(f"There is no column {named!r} (--{what}_column). {there}")
        if named not in fitting:
            wanted = "images" if what == "image" else "classes or integers"
            raise ValueError(f"The column {named!r} (--{what}_column) does not hold {wanted}. {there}")
        return named
    for name in usual:
        if name in fitting:
            return name
    candidates = [k for k in fitting if not isinstance(features[k], Value)] or fitting
    if len(candidates) == 1:
        return candidates[0]
    raise ValueError(
        f"{'More than one' if candidates else 'No'} {what} column is found: name it with --{what}_column. {there}"
    )


def _is_class(feature: Any) -> bool:
    return isinstance(feature, ClassLabel) or (isinstance(feature, Value) and "int" in feature.dtype)


def _kind(feature: Any) -> str:
    if isinstance(feature, ClassLabel):
        return f"{feature.num_classes} classes"
    return feature.dtype if isinstance(feature, Value) else type(feature).__name__.lower()
