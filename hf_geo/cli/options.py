"""Command-line options that say what they take, and parsers whose mistakes say where to look. Needs no heavy import."""

import argparse
import re
from collections.abc import Callable
from typing import NoReturn

from hf_geo.training.ranges import LARGEST_SEED


class OptionParser(argparse.ArgumentParser):
    """An `ArgumentParser` that takes no abbreviations and ends a mistake with where its options are listed."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        """Exits with status 2 after one sentence; of an option's several spellings only the first is shown."""
        message = re.sub(r"^argument (-[^/:]*)(?:/[^:]*)?: ", r"\1: ", message)
        joint = " " if message.endswith("?") else "; "
        super().error(f"{message.rstrip('.')}{joint}{self.prog} --help says what each option takes.")


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
    except (
        RuntimeError,
        AssertionError,
        NotImplementedError,
    ) as error:  # an unknown name, or a library not built for it
        usable = "cpu, cuda" if torch.cuda.is_available() else "cpu"
        raise argparse.ArgumentTypeError(f"there is no device {text!r} on this machine: use {usable}") from error
    return text
