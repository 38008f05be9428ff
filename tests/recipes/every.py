"""The recipes there are, each with its variants."""

from pathlib import Path

import yaml

from tests.paths import REPOSITORY

CONFIGS = REPOSITORY / "configs"
# Files that begin with an underscore are only bases of others, and what is in `accelerate` is about machines.
FILES = [path for path in sorted(CONFIGS.rglob("*.yaml")) if path.parent.name != "accelerate" and path.name[0] != "_"]


def variants(path: Path) -> list[str]:
    """Names of a recipe's variants and of those of its bases."""
    values = yaml.safe_load(path.read_text())
    inherited = variants(path.parent / values["base"]) if "base" in values else []
    return list(dict.fromkeys([*inherited, *values.get("variants", ())]))


VARIANTS = [(path, variant) for path in FILES for variant in (None, *variants(path))]


def called(path: Path, variant: str | None = None) -> str:
    """`paper/file` or `paper/file variant`."""
    return f"{path.relative_to(CONFIGS).with_suffix('')} {variant or ''}".strip()
