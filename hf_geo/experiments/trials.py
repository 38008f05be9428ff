"""A trial: one run of a sweep, with the values it is given and the settings they lead to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from .axes import format_value


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


def as_arguments(values: Mapping[str, Any]) -> list[str]:
    """Writes values by field as command-line arguments."""
    return [f"--{field}={value}" for field, value in values.items()]


def make_trial(
    values: Mapping[str, Any], arguments: Sequence[str], resolve: Callable[[Sequence[str]], Mapping[str, Any]]
) -> Trial:
    """Makes the trial of one combination of values.

    Args:
        values: By axis, as text or number.
        arguments: The command line that all trials share.
        resolve: Turns a command line into settings; raises `ValueError` for one that is invalid.
    """
    arguments = (*arguments, *as_arguments(values))
    settings = resolve(arguments)
    typed = {field: settings.get(field, value) for field, value in values.items()}
    # Public settings show only the last part of a path, so texts are kept as they were given.
    typed = {field: values[field] if isinstance(value, str) else value for field, value in typed.items()}
    return Trial(typed, settings, arguments)
