"""A parser whose errors name the nearest option, and types of option values. Imports nothing heavy."""

import argparse
import difflib
import functools
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

LARGEST_SEED = 2**32 - 1  # NumPy's; torch takes larger ones
COMMAND = "hf-geo"


def command_name(script: str | Path) -> str:
    """Returns the sub-command of `hf-geo` that runs a script: `inspect` for scripts/inspect_model.py."""
    return Path(script).stem.removesuffix("_model")  # a file inspect.py would hide Python's own module


def program_name(script: str) -> str:
    """Returns what a script is called in its messages: `train.py`, or `hf-geo train` if that command runs it."""
    is_command = Path(sys.argv[0]).stem == COMMAND
    return f"{COMMAND} {command_name(script)}" if is_command else Path(script).name


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Shows descriptions as written, an option by its first spelling, and defaults that say something."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if len(action.option_strings) < 2 or action.nargs == 0:
            return super()._format_action_invocation(action)
        values = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{action.option_strings[0]} {values}"

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", getattr(action.default, "value", action.default)
        says_nothing = default is None or default is False or default in ((), argparse.SUPPRESS)
        if says_nothing or "default" in text.lower() or not action.option_strings:
            return text
        shown = " ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
        return f"{text.rstrip('.')} (default: {shown.replace('%', '%%')})." if shown else text


class OptionParser(argparse.ArgumentParser):
    """An `ArgumentParser` that takes no abbreviations, and whose errors name the nearest option and `--help`.

    Examples in the description are shown as commands of `hf-geo` where that runs the script.

    Attributes:
        options: The action of each option by each of its spellings.
    """

    def __init__(self, *args, **kwargs) -> None:
        self.options: dict[str, argparse.Action] = {}
        super().__init__(*args, **{"allow_abbrev": False, "formatter_class": HelpFormatter, **kwargs})
        if self.prog.startswith(COMMAND):
            found = r"(?:python|accelerate launch) scripts/(\w+)\.py"
            self.description = re.sub(found, lambda call: f"{COMMAND} {command_name(call[1])}", self.description or "")
            self.description = re.sub(r"\bconfigs/(\S+)\.yaml", r"\1", self.description)

    def add_argument(self, *names: str, **settings) -> argparse.Action:
        """Adds an argument as argparse does."""
        return self._add_recorded(super().add_argument, *names, **settings)

    def add_argument_group(self, *args, **kwargs):
        """Adds a group as argparse does; `options` has what is added to it too."""
        group = super().add_argument_group(*args, **kwargs)
        group.add_argument = functools.partial(self._add_recorded, group.add_argument)
        return group

    def _add_recorded(self, add: Callable[..., argparse.Action], *names: str, **settings) -> argparse.Action:
        """Adds an argument to the parser or to a group, by its `add_argument`."""
        action = add(*names, **settings)
        self.options |= dict.fromkeys(action.option_strings, action)
        return action

    def error(self, message: str) -> NoReturn:
        """Exits with status 2 after one sentence; of an option's several spellings only the first is shown."""
        message = re.sub(r"^argument (-[^/:]*)(?:/[^:]*)?: ", r"\1: ", message)
        joint = " " if message.endswith("?") else "; "
        super().error(f"{message.rstrip('.')}{joint}{self.prog} --help says what each option takes.")

    def parse_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None):
        """Parses a command line, and exits as `error` does if no option takes one of its words."""
        found, unknown = self.parse_known_args(args, namespace)
        self._refuse(unknown)
        return found

    def parse_intermixed_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None):
        """Parses as `parse_args` does a command line whose positional arguments may stand between its options."""
        found, unknown = self.parse_known_intermixed_args(args, namespace)
        self._refuse([word for word in unknown if word.startswith("-")] or unknown)
        return found

    def find_given(self, words: Sequence[str]) -> set[str]:
        """Returns the names of the options that some words of a command line set."""
        spellings = (word.partition("=")[0] for word in words)
        return {self.options[spelling].dest for spelling in spellings if spelling in self.options}

    def _refuse(self, unknown: Sequence[str]) -> None:
        """Exits, naming the first of some unknown words and what may have been meant."""
        if unknown:
            option = unknown[0].partition("=")[0]
            known = [
                name
                for name, action in self.options.items()
                if name == action.option_strings[0] and action.help != argparse.SUPPRESS
            ]
            near = nearest(option, known) if option.startswith("-") else []
            self.error(f"unknown option {unknown[0]}" + (f": did you mean {' or '.join(near)}?" if near else ""))


def nearest(name: str, known: Sequence[str]) -> list[str]:
    """Finds the options, two at most, that somebody who wrote `name` may have meant.

    The first of these rules that finds any decides: a spelling with a letter or two changed, the option's initials (`lr`),
    words that its words begin with (`batch_size`), a similar spelling, an option whose words are all in the name
    (`model_name`).

    Args:
        name: A name that is none of `known`.
        known: Names of options, with or without leading dashes, in order of preference.
    """
    name = name.lstrip("-").replace("-", "_").lower()
    words = {option: option.lstrip("-").replace("-", "_").split("_") for option in known}
    by_spelling = {"_".join(parts): option for option, parts in words.items()}

    def spelled_alike(cutoff: float) -> list[str]:
        return [by_spelling[close] for close in difflib.get_close_matches(name, by_spelling, n=1, cutoff=cutoff)]

    def begins_with(option: str) -> bool:
        parts = iter(words[option])
        return all(any(part.startswith(word) for part in parts) for word in name.split("_"))

    return (
        spelled_alike(0.9)
        or [option for option in known if "".join(part[:1] for part in words[option]) == name][:1]
        or [option for option in known if begins_with(option)][:2]
        or spelled_alike(0.6)
        or [option for option in known if set(words[option]) <= set(name.split("_"))][:2]
    )


def at_least(least: int) -> Callable[[str], int]:
    """An argparse type: integers from `least` on."""

    def integer(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < least:
            raise argparse.ArgumentTypeError(f"takes a whole number of at least {least}, not {text!r}")
        return value

    return integer


def seed(text: str) -> int:
    """An argparse type: seeds that torch and NumPy both take."""
    if not text.isdecimal() or int(text) > LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"takes a whole number from 0 to {LARGEST_SEED}, not {text!r}")
    return int(text)


def add_trust(add: Callable[..., argparse.Action]) -> None:
    """Adds `--trust_remote_code`, as scripts/train.py has it, by a parser's or a group's `add_argument`."""
    from transformers.hf_argparser import string_to_bool

    add(
        "--trust_remote_code",
        type=string_to_bool,
        nargs="?",
        const=True,
        default=False,
        metavar="true|false",
        help="Run Python code that the model brings along. It can do whatever you can: read it first.",
    )


def device(text: str) -> str:
    """An argparse type: devices of torch that are on this machine."""
    import torch

    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # unknown, or a library not built for it
        usable = "cpu, cuda" if torch.cuda.is_available() else "cpu"
        raise argparse.ArgumentTypeError(f"there is no device {text!r} on this machine: use {usable}") from error
    return text
