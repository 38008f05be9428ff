"""What a sweep runs: its axes, and a trial for every combination."""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

VARIANT = "variant"  # of the recipe: an axis like a field of the training arguments
LINES = (VARIANT, "optim")  # what a figure draws a line for
SEED = "seed"
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(f"{_NUMBER}:{_NUMBER}")
_VALUE = re.compile(rf"(?:^|=)({_NUMBER})(?=$|,)")


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Args:
        values: What it is given on every axis, as typed as the fields are.
        settings: All its settings that may be shown, those of the recipe included.
        words: Its command line, besides where it goes.
    """

    values: Mapping[str, Any]
    settings: Mapping[str, Any]
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        """Names the trial's folder, one to one with its values."""
        return ",".join(f"{field}={quote(as_text(value), safe='+=')}" for field, value in self.values.items())


def as_text(value: Any) -> str:
    """A value as people write it: 0.01, not 1e-02 or 0.010000000000000002."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def as_number(value: object) -> float | None:
    """A number, also the first of settings such as "depth=20,width=64"; None where there is none."""
    found = _VALUE.search(str(value))
    return float(found[1]) if found else None


def read_list(option: str, text: str) -> list[str]:
    """The values of an option such as `--lrs 1,0.1,0.01`.

    Raises:
        ValueError: There is none.
    """
    values = [part.strip() for part in text.split(",") if part.strip()]
    if not values:
        raise ValueError(f"{option} names no value, so there is nothing to try: give it as {option} A,B,C.")
    return values


def is_range(values: Sequence[str]) -> bool:
    """Whether a LOW:HIGH is among an axis's values."""
    return any(_RANGE.fullmatch(value) for value in values)


def words_of(values: Mapping[str, Any]) -> list[str]:
    """A point of the grid as command-line words."""
    return [f"--{field}={value}" for field, value in values.items()]


def make_trial(
    values: Mapping[str, Any], words: Sequence[str], resolve: Callable[[Sequence[str]], Mapping[str, Any]]
) -> Trial:
    """The trial of one point of the grid.

    Args:
        values: By axis, as text or number.
        words: What all trials are given.
        resolve: From a command line to the settings it means; raises `ValueError` for one that cannot be.
    """
    words = (*words, *words_of(values))
    settings = resolve(words)
    # Of a path the settings show only the last part, so texts stay as they were given.
    typed = {field: settings.get(field, value) for field, value in values.items()}
    typed = {field: values[field] if isinstance(value, str) else value for field, value in typed.items()}
    return Trial(typed, settings, words)


def grid(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the axes' values, the last axis fastest."""
    return [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]
