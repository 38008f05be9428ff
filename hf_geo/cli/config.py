"""Command lines and recipes: one parser for all fields, with a YAML file's values as its defaults."""

import argparse
import json
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any

from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool

from .options import HelpFormatter, OptionParser, nearest
from .recipes import Scalar, meaning_of, read_recipe, recipe_file
from .sections import HIDDEN, MOST_NEEDED, WITHOUT_EFFECT, arrange, find_idle

# --smoke: enough of a run to see that everything fits together.
SMOKE = {
    "max_steps": 3,
    "max_train_samples": 64,
    "max_eval_samples": 32,
    "logging_steps": 1,
    "save_strategy": "no",
    "load_best_model_at_end": False,
    "warmup_steps": 0,
}
# Options that choose a recipe, and that a recipe therefore cannot set.
CHOICES = ("config", "variant", "smoke", "as_recipe", "help")


class FieldParser(OptionParser, HfArgumentParser):
    """Parses the fields of dataclasses as transformers does, and reports mistakes as this package does.

    Args:
        first: Destinations of the options that `--help` shows first.
    """

    def __init__(self, *args, first: Sequence[str] = MOST_NEEDED, **kwargs) -> None:
        self.first = first
        super().__init__(*args, **{"formatter_class": HelpFormatter, **kwargs})

    def format_help(self) -> str:
        """Returns the help text, with the options by heading."""
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        for title, actions in arrange(((g.title, g._group_actions) for g in self._action_groups), self.first):
            formatter.start_section(title)
            formatter.add_arguments(actions)
            formatter.end_section()
        return formatter.format_help()

    def _add_recorded(self, add: Callable[..., argparse.Action], *names: str, **settings: Any) -> argparse.Action:
        if names[0].startswith("--no_") or names[0].strip("-") in HIDDEN:
            settings["help"] = argparse.SUPPRESS  # --x false says the same as --no_x
        elif settings.get("action") is None and "choices" not in settings:
            short = {int: "N", float: "X", string_to_bool: "BOOL"}.get(settings.get("type"), "TEXT")
            settings = {"metavar": short, **settings}
        return super()._add_recorded(add, *names, **settings)


def parse_command_line(
    dataclass_types: Sequence[type], argv: Sequence[str] | None = None, **parser_options: Any
) -> tuple[Any, ...]:
    """Parses `[--config FILE [--variant NAME]] [--smoke]` and every field of `dataclass_types`.

    The recipe's values are defaults, `--smoke` shortens the run, and the command line wins. The hidden `--as_recipe` is for
    command lines that scripts write: their options may serve other runs too, so those that change nothing are no mistake.

    Args:
        dataclass_types: Their fields are the options.
        argv: The command line. Defaults to the process's own.
        **parser_options: Options of the parser, such as the `prog` that messages begin with.

    Returns:
        One instance of each dataclass, then the namespace of `config`, `variant`, `smoke`, `typed` (the names of the options
        that a person's command line sets) and `given` (those that the recipe or the command line sets).

    Raises:
        ValueError: The recipe cannot be used, or a dataclass refuses its values.
        SystemExit: With status 2 for an unknown option or an unreadable value, as argparse does.
    """
    parser = FieldParser(dataclass_types, **parser_options)
    add = parser.add_argument_group("Recipe").add_argument
    add(
        "--config",
        type=recipe_file,
        metavar="FILE",
        help="Recipe whose values are defaults for all options: a YAML file, or the name of one of this package's.",
    )
    add("--variant", metavar="NAME", help="Named variant inside the config file.")
    add("--smoke", action="store_true", help="A few steps on a small slice, to see that everything fits.")
    add("--as_recipe", action="store_true")

    argv = list(sys.argv[1:] if argv is None else argv)
    chosen = parser.parse_args(argv)
    if chosen.variant and not chosen.config:
        parser.error(f"--variant {chosen.variant} chooses inside a config file: give --config too")
    words = []
    if chosen.config:
        recipe = read_recipe(chosen.config, chosen.variant)
        words += _as_arguments(recipe, parser, _names_of_mappings(dataclass_types), chosen.config)
    if chosen.smoke:
        words += [f"--{name}={value}" for name, value in SMOKE.items()]
    *settings, chosen = parser.parse_args_into_dataclasses(words + argv, look_for_args_file=False)
    chosen.typed, chosen.given = map(parser.find_given, (argv, words + argv))
    if chosen.as_recipe:
        chosen.typed = set()
    if useless := sorted(chosen.given & WITHOUT_EFFECT):
        parser.error(f"--{useless[0]} changes nothing here: leave it out")
    values = {name: value for some in settings for name, value in vars(some).items()}
    for option, remedy in find_idle(chosen.typed, values).items():
        parser.error(f"--{option} changes nothing {remedy}, or leave --{option} out")
    return (*settings, chosen)


def _names_of_mappings(dataclass_types: Sequence[type]) -> set[str]:
    """Returns the fields whose type allows a mapping, which the command line takes as JSON."""
    hints = {name: hint for kind in dataclass_types for name, hint in typing.get_type_hints(kind).items()}
    return {
        name
        for name, hint in hints.items()
        if dict in (typing.get_origin(allowed) or allowed for allowed in typing.get_args(hint))
    }


def _as_arguments(values: dict[str, Any], parser: OptionParser, mappings: set[str], source: str) -> list[str]:
    """Writes a recipe's values as a command line, so that argparse converts and checks them like any other."""
    options = {action.dest: action for action in parser.options.values() if action.dest not in CHOICES}
    words = []
    for key, value in values.items():
        if key not in options:
            raise ValueError(f"{source}: unknown option {key!r}{_suggest(key, list(options))}")
        if expected := _expected_kind(value, options[key], key in mappings):
            raise ValueError(f"{source}: {key!r} takes {expected}, not {value!r}.")
        if isinstance(value, list):
            words += [f"--{key}", *(_as_text(item, options[key]) for item in value)]
        elif value is not None:
            words.append(f"--{key}={_as_text(value, options[key])}")
    return words


def _expected_kind(value: Any, option: argparse.Action, takes_mapping: bool) -> str | None:
    """Returns the kind of value that an option takes, if the recipe's is of another kind."""
    if isinstance(value, dict):
        if not takes_mapping:
            return "no mapping"
        try:
            json.dumps(meaning_of(value))
        except (TypeError, ValueError, RecursionError):
            return "a mapping of names to numbers, text, lists and mappings"
    elif isinstance(value, list):
        if option.nargs != "+":
            return "one value"
        if not all(isinstance(item, str | int | float) for item in value):
            return "a list of numbers or text"
    elif not isinstance(value, str | int | float | None):
        return "a number, text (in quotes), true or false"
    return None


def _as_text(value: Any, option: argparse.Action) -> str:
    """Writes a recipe's value as the command line would have it."""
    if isinstance(value, dict):
        return json.dumps(meaning_of(value))
    if not isinstance(value, Scalar):
        return str(value)
    # An option that may stand alone is a switch, whatever else it takes.
    if option.nargs == "?" or option.type in (int, float, string_to_bool):
        return str(value.meaning)
    return value.lower() if value.lower() in (option.choices or ()) else value


def _suggest(key: str, known: list[str]) -> str:
    """Says what to write in place of an unknown key, as the end of a sentence."""
    if key == "config":
        return ": a recipe names the one it builds on with `base: FILE`."
    if key in CHOICES:
        return f": give --{key} on the command line."
    near = nearest(key, known)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else " (train.py --help lists them all)."
