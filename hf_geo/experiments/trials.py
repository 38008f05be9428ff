"""The axes of a sweep, the fields it varies with their values, and its trials, a run for each choice of values."""

import difflib
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

VARIANT, SEED = "variant", "seed"  # a recipe's variant is an axis like any training argument
SERIES = (VARIANT, "optim")  # the axes whose combinations are the lines of a figure
_NUMBER = r"(?:[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|inf)"
_RANGE = re.compile(f"{_NUMBER}:{_NUMBER}")
_VALUE = re.compile(rf"(?:^|=)({_NUMBER})(?=$|,)")


def format_value(value: Any) -> str:
    """Writes a value as people do: 0.01, not 1e-02 or 0.010000000000000002."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def parse_number(value: object) -> float | None:
    """Reads a number, also the first one of settings such as "depth=20,width=64"; None if there is none."""
    found = _VALUE.search(str(value))
    return float(found[1]) if found else None


def axis_label(value: object, field: str) -> str:
    """Names what varies along an axis: the field, or "depth" if its values are like "depth=20,width=64"."""
    return (str(value).partition("=")[0] if "=" in str(value) else field).replace("_", " ")


def is_range(values: Sequence[str]) -> bool:
    """Whether an axis is given as LOW:HIGH rather than as a list of values."""
    return any(_RANGE.fullmatch(value) for value in values)


def split_values(option: str, text: str) -> list[str]:
    """Splits the values of an option such as `--lrs 1,0.1,0.01`.

    Raises:
        ValueError: There are none.
    """
    values = [part.strip() for part in text.split(",") if part.strip()]
    if not values:
        raise ValueError(f"{option} names no value, so there is nothing to try: give it as {option} A,B,C.")
    return values


def collect_axes(
    lists: Mapping[str, Sequence[str]], grid: Iterable[Sequence[str]], known_fields: Collection[str]
) -> dict[str, list[str]]:
    """Collects the axes of a sweep from its command line.

    Args:
        lists: Values by field, of the options that list them.
        grid: For each `--grid` option the field and then its values.
        known_fields: The fields that may be swept over.

    Raises:
        ValueError: There is no axis, or one is unknown, empty or given twice.
    """
    axes = {field: list(values) for field, values in lists.items()}
    for field, *values in grid:
        if field not in known_fields:
            near = difflib.get_close_matches(field, known_fields, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"There is no field {field!r} to sweep over{hint}")
        if not values:
            raise ValueError(f"--grid {field} names no value, so there is nothing to try.")
        if field in axes:
            raise ValueError(f"{field} is swept over twice: name all its values once.")
        axes[field] = values
    if not axes:
        raise ValueError("There is nothing to sweep over: give --optims, --lrs, --seeds, --variants or --grid.")
    return axes


def check_axes(axes: Mapping[str, Sequence[str]], x: str, *, is_search: bool) -> None:
    """Checks that the results can be drawn against `x`, and that ranges are only given to a search.

    Raises:
        ValueError: They cannot, or they are.
    """
    if x not in axes:
        raise ValueError(f"--x is {x}, which is not swept over: choose one of {', '.join(axes)}.")
    if any(parse_number(value.split(":")[0]) is None for value in axes[x]):
        raise ValueError(f"--x is {x}, whose values are no numbers ({', '.join(axes[x])}).")
    for field, values in axes.items():
        if is_range(values) and not is_search:
            raise ValueError(f"{field} is given as a range, {values[0]}: say how many --trials N to make in it.")


def combinations(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Returns every combination of the axes' values; the last axis varies fastest."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Args:
        values: Its value on every axis, of the field's type.
        settings: All of its public settings, including those of the recipe.
        arguments: Its command line without the output folder.
    """

    values: Mapping[str, Any]
    settings: Mapping[str, Any]
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of the trial's folder; trials with different values have different names."""
        return ",".join(f"{field}={quote(format_value(value), safe='+=')}" for field, value in self.values.items())


MakeTrial = Callable[[Mapping[str, Any]], Trial]  # from its values


def make_trial(
    values: Mapping[str, Any], arguments: Sequence[str], resolve: Callable[[Sequence[str]], Mapping[str, Any]]
) -> Trial:
    """Makes the trial of one combination of values.

    Args:
        values: By axis, as text or number.
        arguments: The command line that all trials share.
        resolve: Turns a command line into settings; raises `ValueError` for one that is invalid.
    """
    arguments = (*arguments, *(f"--{field}={value}" for field, value in values.items()))
    settings = resolve(arguments)
    typed = {field: settings.get(field, value) for field, value in values.items()}
    # Public settings show only the last part of a path, so texts are kept as they were given.
    typed = {field: values[field] if isinstance(value, str) else value for field, value in typed.items()}
    return Trial(typed, settings, arguments)
