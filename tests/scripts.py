"""The scripts' `main` functions, imported from their files."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.paths import REPOSITORY


def script(name: str) -> Callable[[Sequence[str]], int]:
    """`main` of `scripts/NAME.py`, taking words of any type."""
    path = REPOSITORY / "scripts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda words: module.main([str(word) for word in words])


TRAIN = Path(REPOSITORY / "scripts" / "train.py")
