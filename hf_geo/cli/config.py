"""Command lines and recipes: one parser for all fields, with a YAML file's values as its defaults."""

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from transformers import HfArgumentParser, TrainingArguments
from transformers.hf_argparser import string_to_bool

from .options import OptionParser, nearest
from .recipes import Word, meaning_of, read_recipe

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


# What chooses a recipe stands on the command line; in a recipe it would do nothing.
CHOICES = ("config", "variant", "smoke", "help")
# Options of transformers that take a mapping.
MAPPINGS = frozenset(TrainingArguments._VALID_DICT_FIELDS)


class _Parser(OptionParser, HfArgumentParser):
    """Parses dataclasses as transformers does, and ends mistakes as this package does."""


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows each option once, by its underscore name, with a default only where there is one."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36, width=120)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        nothing = action.default is None or action.default is False or action.default == ""
        return action.help if nothing else super()._get_help_string(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        names = [s for s in action.option_strings if "-" not in s.lstrip("-")]
        return ", ".join(names) + ("" if action.nargs == 0 else f" {action.metavar}")


def _set_placeholder(action: argparse.Action) -> None:
    """Gives an option a short placeholder, and names its choices in the help text."""
    if action.choices:
        action.help = f"{action.help or ''} One of: {', '.join(map(str, action.choices))}."
    name = "TEXT" if action.choices else getattr(action.type, "__name__", "str")
    action.metavar = {"int": "N", "float": "X", "string_to_bool": "BOOL"}.get(name, "TEXT")


def make_parser(dataclass_types: Sequence[type], **kwargs: Any) -> _Parser:
    """A parser of all fields of `dataclass_types`, with `TrainingArguments` grouped under transformers' own headings."""
    parser = _Parser(dataclass_types, formatter_class=_HelpFormatter, **kwargs)
    for action in parser._actions:
        if action.option_strings[0].startswith("--no_"):
            action.help = argparse.SUPPRESS  # --x false says the same
        elif action.nargs != 0:
            _set_placeholder(action)
    headings = _transformers_headings()
    by_heading: dict[str, argparse._ArgumentGroup] = {}
    options = next(group for group in parser._action_groups if group.title == "options")
    for action in [a for a in options._group_actions if a.dest in headings]:
        title = headings[action.dest]
        group = by_heading.get(title) or by_heading.setdefault(title, parser.add_argument_group(title))
        options._group_actions.remove(action)
        group._group_actions.append(action)
    return parser


def _transformers_headings() -> dict[str, str]:
    """Field name -> heading, read from the docstring of `TrainingArguments` ("> Heading", then "name (`type`...):")."""
    found, heading = {}, "Training"
    for line in (TrainingArguments.__doc__ or "").splitlines():
        if match := re.match(r" {8}> ([^.]+)$", line):
            heading = match[1].strip()
        elif match := re.match(r"\s{4,8}(\w+) ?\(`", line):
            found[match[1]] = heading
    names = {f.name for f in dataclasses.fields(TrainingArguments)}
    return {name: found.get(name, "Other training options") for name in names}


def _as_arguments(values: dict[str, Any], parser: argparse.ArgumentParser, source: str) -> list[str]:
    """A recipe's values as command-line words, so that argparse converts and checks them like any other."""
    known = {action.dest: action for action in parser._actions if action.option_strings and action.dest not in CHOICES}
    words = []
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{source}: unknown option {key!r}{_instead_of(key, list(known))}")
        problem = _unfit(value, known[key])
        if problem:
            raise ValueError(f"{source}: {key!r} takes {problem}, not {value!r}.")
        if value is None:
            continue
        if isinstance(value, list):
            words += [f"--{key}", *(_as_text(item, known[key]) for item in value)]
        else:
            words.append(f"--{key}={_as_text(value, known[key])}")
    return words


def _as_text(value: Any, action: argparse.Action) -> str:
    """A recipe's value as the command line would have it for this option."""
    if isinstance(value, dict):
        return json.dumps(meaning_of(value))
    if not isinstance(value, Word):
        return str(value)
    # An option of "?" may stand alone as a switch, whatever else it takes.
    if action.nargs == "?" or action.type in (int, float, string_to_bool):
        return str(value.meaning)
    return value.lower() if value.lower() in (action.choices or ()) else value


def _instead_of(key: Any, known: list[str]) -> str:
    """What to write in place of an unknown key, as the rest of a sentence."""
    if key == "config":
        return ": a recipe names the one it builds on with `base: FILE`."
    if key in CHOICES:
        return f": give --{key} on the command line."
    near = nearest(str(key), known)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else " (train.py --help lists them all)."


def _unfit(value: Any, action: argparse.Action) -> str | None:
    """What an option takes, if this value of a recipe is nothing like it."""
    if isinstance(value, dict):
        if action.dest not in MAPPINGS:
            return "no mapping"
        try:
            json.dumps(meaning_of(value))
        except (TypeError, ValueError, RecursionError):
            return "a mapping of names to numbers, text, lists and mappings"
    elif isinstance(value, list):
        if action.nargs != "+":
            return "one value"
        if not all(isinstance(item, str | int | float) for item in value):
            return "a list of numbers or text"
    elif not isinstance(value, str | int | float | None):
        return "a number, text (in quotes), true or false"
    return None


def parse_command_line(
    dataclass_types: Sequence[type], argv: Sequence[str] | None = None, **kwargs: Any
) -> tuple[Any, ...]:
    """Parses `[--config FILE [--variant NAME]] [--smoke]` and every field of `dataclass_types`.

    The recipe's values are defaults, `--smoke` shortens the run, and what stands on the command line wins.

    Returns:
        One instance of each dataclass, then the namespace of `config`, `variant`, `smoke` and `given`:
        the names of the options that stand in the recipe or on the command line.

    Raises:
        ValueError: A recipe that cannot be used.
        SystemExit: With status 2 for an unknown option or an unreadable value, as argparse does.
    """
    parser = make_parser(dataclass_types, **kwargs)
    recipe = parser.add_argument_group("Recipe")
    recipe.add_argument(
        "--config", metavar="FILE", help="YAML file whose values are defaults for all options; the command line wins."
    )
    recipe.add_argument("--variant", metavar="NAME", help="Named variant inside the config file.")
    recipe.add_argument(
        "--smoke", action="store_true", help="A few steps on a small slice, to see that everything fits."
    )
    parser._action_groups.insert(1, parser._action_groups.pop())

    argv = list(argv) if argv is not None else None
    chosen, _ = parser.parse_known_args(argv)
    if chosen.variant and not chosen.config:
        parser.error(f"--variant {chosen.variant} chooses inside a config file: give --config too")
    words: list[str] = []
    if chosen.config:
        words += _as_arguments(read_recipe(chosen.config, chosen.variant), parser, chosen.config)
    if chosen.smoke:
        words += _as_arguments(SMOKE, parser, "--smoke")
    command_line = sys.argv[1:] if argv is None else argv
    namespace, unknown = parser.parse_known_args(words + command_line)
    if unknown:
        parser.refuse(unknown[0])
    found = []
    for kind in dataclass_types:
        names = {f.name for f in dataclasses.fields(kind) if f.init}
        found.append(kind(**{k: v for k, v in vars(namespace).items() if k in names}))
    actions = {option: action.dest for action in parser._actions for option in action.option_strings}
    given = {actions[word.partition("=")[0]] for word in words + command_line if word.partition("=")[0] in actions}
    return (*found, argparse.Namespace(config=chosen.config, variant=chosen.variant, smoke=chosen.smoke, given=given))
