"""The axes of a sweep, the fields it varies with their values, and its trials, a run for each choice of values."""

import difflib
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

VARIANT, SEED = "variant", "seed"  # a recipe's variant is an axis like any training argument
SERIES = (VARIANT, "optim")  # the axes whose combinations are compared with one another
KEYED = ("model_args", "optim_args")  # fields of the form key=value,key=value, of which a single key can be an axis
_NUMBER = r"(?:[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|inf)"
_RANGE = re.compile(f"{_NUMBER}:{_NUMBER}")
_COMMA = re.compile(r",(?![^(]*\))")  # none within parentheses


def format_value(value: Any) -> str:
    """Writes a value as people do: 0.01, not 1e-02 or 0.010000000000000002."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def parse_number(value: object) -> float | None:
    """Reads a number; None if the value is none."""
    return float(str(value)) if re.fullmatch(_NUMBER, str(value)) else None


def axis_label(field: str) -> str:
    """Names an axis for people: "learning rate", or "width" for "model_args.width"."""
    return field.rpartition(".")[2].replace("_", " ")


def is_range(values: Sequence[str]) -> bool:
    """Whether an axis is given as LOW:HIGH rather than as a list of values."""
    return any(_RANGE.fullmatch(value) for value in values)


def split_values(option: str, text: str) -> list[str]:
    """Splits the values of an option such as `--lrs 1,0.1,0.01`.

    Raises:
        ValueError: There are none.
    """
    values = [part.strip() for part in _COMMA.split(text) if part.strip()]
    if not values:
        joint = "" if option.endswith("=") else " "
        raise ValueError(f"{option} names no value, so there is nothing to try: give it as {option}{joint}A,B,C.")
    return values


def collect_axes(
    lists: Mapping[str, Sequence[str]], over: Iterable[str], known_fields: Collection[str]
) -> dict[str, list[str]]:
    """Collects the axes of a sweep from its command line: optimizers, then `over`, then learning rates and seeds.

    Args:
        lists: Values by field, of the options that list them.
        over: The `--over` options, each a field and its values: "model_args.width=64,128".
        known_fields: The fields that may be swept over.

    Raises:
        ValueError: There is no axis, or one is unknown, empty or given twice.
    """
    axes = {field: list(values) for field, values in lists.items() if field in SERIES}
    for text in over:
        field, _, values = text.partition("=")
        outer, _, key = field.partition(".")
        if outer not in known_fields or (key and outer not in KEYED):
            near = difflib.get_close_matches(outer, known_fields, n=1)
            hint = f"; did you mean {near[0]!r}?" if near and near[0] != outer else "."
            raise ValueError(f"There is no field {field!r} to sweep over{hint}")
        if field in axes or field in lists:
            raise ValueError(f"{field} is swept over twice: name all its values once.")
        axes[field] = split_values(f"--over {field}=", values)
    axes |= {field: list(values) for field, values in lists.items() if field not in SERIES}
    if not axes:
        raise ValueError("There is nothing to sweep over: give --optims, --lrs, --seeds, --variants or --over.")
    return axes


def choose_x(axes: Mapping[str, Sequence[str]], asked: str | None, *, is_search: bool) -> str | None:
    """Chooses the axis that results are drawn against, and checks that ranges are only given to a search.

    Args:
        axes: The values of each axis.
        asked: The axis asked for.
        is_search: Whether a search chooses the values.

    Returns:
        The axis asked for, or the learning rate, or the first axis of numbers; None if optimizers and seeds alone vary.

    Raises:
        ValueError: The axis asked for is not swept over or has no numbers, or a range is given without a search.
    """
    for field, values in axes.items():
        if is_range(values) and not is_search:
            raise ValueError(f"{field} is given as a range, {values[0]}: say how many --trials N to make in it.")
    numeric = [
        field
        for field, values in axes.items()
        if field not in SERIES and all(parse_number(value.split(":")[0]) is not None for value in values)
    ]
    if asked is None:
        preferred = ["learning_rate", *(field for field in numeric if field != SEED)]
        return next((field for field in preferred if field in numeric), None)
    if asked not in axes:
        raise ValueError(f"--x is {asked}, which is not swept over: choose one of {', '.join(axes)}.")
    if asked not in numeric or asked == SEED:
        raise ValueError(f"--x is {asked}, whose values are no quantities ({', '.join(axes[asked])}).")
    return asked


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
        """The name of the trial's folder; numbers are told apart by their first six digits."""
        return ",".join(f"{field}={quote(format_value(value), safe='+=')}" for field, value in self.values.items())


MakeTrial = Callable[[Mapping[str, Any]], Trial]  # from its values


def make_trial(
    values: Mapping[str, Any],
    arguments: Sequence[str],
    resolve: Callable[[Sequence[str]], Mapping[str, Any]],
    resolve_private: Callable[[Sequence[str]], Mapping[str, Any]],
) -> Trial:
    """Makes the trial of one combination of values.

    Args:
        values: By axis, as text or number. That of an axis such as "model_args.width" joins the recipe's other `model_args`.
        arguments: The command line that all trials share.
        resolve: Turns a command line into public settings; raises `ValueError` for one that is invalid.
        resolve_private: The same with whole paths, which a trial's command line needs.
    """
    arguments = (*arguments, *(f"--{field}={value}" for field, value in values.items() if "." not in field))
    keyed: dict[str, dict[str, Any]] = {}
    for field, value in values.items():
        outer, _, key = field.partition(".")
        if key:
            keyed.setdefault(outer, _parse_pairs(resolve_private(arguments)[outer]))[key] = value
    arguments += tuple(
        f"--{outer}={','.join(f'{key}={value}' for key, value in pairs.items())}" for outer, pairs in keyed.items()
    )
    settings = dict(resolve(arguments))
    for outer in keyed:
        pairs = _parse_pairs(settings.pop(outer))
        settings |= {f"{outer}.{key}": _parse_value(value) for key, value in pairs.items()}
    typed = {field: settings.get(field, value) for field, value in values.items()}
    # Public settings show only the last part of a path, so texts are kept as they were given; so are lists, which no table
    # groups by.
    typed = {field: values[field] if isinstance(value, str | list) else value for field, value in typed.items()}
    return Trial(typed, settings, arguments)


def _parse_pairs(text: str | None) -> dict[str, str]:
    """Splits "key=value,key=value"."""
    return dict(pair.strip().partition("=")[::2] for pair in _COMMA.split(text or "") if pair.strip())


def _parse_value(text: str) -> int | float | str:
    number = parse_number(text)
    return text if number is None else int(text) if text.isdecimal() else number
