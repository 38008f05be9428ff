"""The recipes that exist, each with its variants."""

import functools
from pathlib import Path
from typing import Any

import yaml

from hf_geo.cli.recipes import read_recipe
from tests.paths import REPOSITORY

CONFIGS = REPOSITORY / "configs"
# Files that begin with an underscore are only bases of others, and those in `accelerate` describe machines.
FILES = [path for path in sorted(CONFIGS.rglob("*.yaml")) if path.parent.name != "accelerate" and path.name[0] != "_"]
SWEPT = {"quickstart", "sweep", "transfer", "seeds"}  # first words of recipes for a first look, or for sweeps alone
OF_PAPERS = [path for path in FILES if path.stem.split("_")[0] not in SWEPT]


def variants(path: Path) -> list[str]:
    """Names of a recipe's variants and of those of its bases."""
    values = yaml.safe_load(path.read_text())
    inherited = variants(path.parent / values["base"]) if "base" in values else []
    return list(dict.fromkeys([*inherited, *values.get("variants", ())]))


@functools.cache
def settings(path: Path, variant: str | None) -> dict[str, Any]:
    """The values of a recipe for a variant."""
    return read_recipe(path, variant)


def scaled_down(path: Path) -> list[str]:
    """Options for the stand-in of a data set that has fewer images than the recipe holds out."""
    return ["--eval_size", "10"] if settings(path, None).get("eval_size", 0) > 10_000 else []


def called(path: Path, variant: str | None = None) -> str:
    """`paper/file` or `paper/file variant`."""
    return f"{path.relative_to(CONFIGS).with_suffix('')} {variant or ''}".strip()


# Every recipe as it stands and in each of its variants, by name.
ALL = {called(path, variant): (path, variant) for path in FILES for variant in (None, *variants(path))}
ALL_OF_PAPERS = {name: pair for name, pair in ALL.items() if pair[0] in OF_PAPERS}
