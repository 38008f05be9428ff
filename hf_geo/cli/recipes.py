"""Recipes: YAML files of option values, which build on one another and have variants."""

import argparse
import datetime
import difflib
import re
from pathlib import Path
from typing import Any

import yaml

from hf_geo.resources import resource_folder


class Scalar(str):
    """A plain word that YAML reads as something else: `no` (false), `1e-3`, `010` (8), `1.10`, a date.

    An option that takes text takes it as written; numbers, switches and mappings take its meaning.
    """

    meaning: Any


class _Loader(yaml.SafeLoader):
    """YAML's plain types and nothing else. Keys are text, and one that is given twice is a mistake, not an override."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # PyYAML refuses it
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
            if key.tag != "tag:yaml.org,2002:merge":
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)

    def construct_plain_word(self, node: yaml.ScalarNode) -> Any:
        meaning = yaml.SafeLoader.yaml_constructors[node.tag](self, node)
        if str(meaning).lower() == node.value.lower() and not isinstance(meaning, datetime.date):
            return meaning
        scalar = Scalar(node.value)
        scalar.meaning = meaning
        return scalar


for _kind in ("bool", "int", "float", "timestamp"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_plain_word)
# YAML 1.1, which PyYAML reads, takes 1e-3 for text.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def recipe_file(name: str) -> str:
    """An argparse type: the path of a recipe's file, or the name of a recipe that this package has.

    Args:
        name: A path; or, where that is no file, a recipe's path below `configs`, as in `fromage/cifar10`, or the last part
            of it if only one recipe has that.
    """
    if Path(name).exists() and not Path(name).is_dir():
        return name
    configs = resource_folder("configs")
    recipes = {path.relative_to(configs).with_suffix("").as_posix(): str(path) for path in find_recipes(configs)}
    wanted = name.removesuffix(".yaml")
    found = [recipe for recipe in recipes if recipe == wanted or recipe.endswith(f"/{wanted}")]
    if len(found) == 1:
        return recipes[found[0]]
    if found:
        raise argparse.ArgumentTypeError(f"several recipes are called {name!r}: choose {' or '.join(found)}")
    if Path(name).is_dir():
        return name  # `read_recipe` says that it is a folder
    by_name = {key: recipe for recipe in recipes for key in (recipe.rpartition("/")[2], recipe)}
    wanted = "/".join(Path(wanted).parts[-2:])
    alike = [
        key for name in (wanted, Path(wanted).name) for key in difflib.get_close_matches(name, by_name, 2, cutoff=0)
    ]
    near = dict.fromkeys(by_name[key] for key in alike)
    raise argparse.ArgumentTypeError(f"there is no file or recipe {name!r}: did you mean {' or '.join(near)}?")


def read_recipe(path: str | Path, variant: str | None = None) -> dict[str, Any]:
    """Reads the values of a recipe file: those of its `base:` file, then its own, then those of the chosen variant.

    Args:
        path: A YAML mapping of option names to values. `base:` names another file, relative to this one; `variants:`
            maps names to further values.
        variant: Which of the variants to apply.

    Raises:
        ValueError: The file is missing, not YAML or not a mapping; its bases form a cycle; the variant is unknown.
    """
    values, variants = _read_with_bases(Path(path), ())
    if variant is None:
        return values
    if variant not in variants:
        known = f"it has {', '.join(map(str, variants))}" if variants else "it has no variants"
        raise ValueError(f"{path} has no variant {variant!r}: {known}.")
    return {**values, **variants[variant]}


def find_recipes(configs: Path) -> list[Path]:
    """Lists the recipes in a folder of recipes; `_...` are bases, `accelerate` is of machines."""
    paths = sorted(configs.rglob("*.yaml"), key=lambda path: (path.parent != configs, path.parent.name, path.name))
    return [path for path in paths if path.parent.name != "accelerate" and not path.name.startswith("_")]


def list_variants(path: str | Path) -> list[str]:
    """Lists the variants of a recipe and of its bases.

    Raises:
        ValueError: As `read_recipe`.
    """
    return list(map(str, _read_with_bases(Path(path), ())[1]))


def _read_with_bases(path: Path, seen: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    if path.resolve() in seen:
        chain = " -> ".join(p.name for p in (*seen, path))
        raise ValueError(f"The config files base themselves on each other: {chain}.")
    values = _read_mapping(path)
    base, variants = values.pop("base", None), values.pop("variants", None) or {}
    for name, overrides in variants.items() if isinstance(variants, dict) else [("variants", variants)]:
        if not isinstance(overrides, dict):
            raise ValueError(f"{path}: the variant {name!r} is not a mapping of option names to values.")
    if base is None:
        return values, variants
    if not isinstance(base, str):
        raise ValueError(f"{path}: `base` is the name of another config file, not {base!r}.")
    base_values, base_variants = _read_with_bases(path.parent / base, (*seen, path.resolve()))
    return {**base_values, **values}, {**base_variants, **variants}


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ValueError(
            f"The config file {str(path)!r} cannot be read ({error.strerror or error}): give the path of a YAML file."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        problem = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise ValueError(
            f"The config file {str(path)!r} is not YAML as a recipe needs it: {problem}; write one `option: value` a line."
        ) from error
    if not isinstance(values, dict):
        raise ValueError(
            f"The config file {str(path)!r} holds no mapping of option names to values (such as `model: resnet18`)."
        )
    return values


def meaning_of(value: Any) -> Any:
    """Returns a value, or the contents of a list or mapping, with each `Scalar` as YAML reads it."""
    if isinstance(value, dict):
        return {key: meaning_of(item) for key, item in value.items()}
    if isinstance(value, list):
        return [meaning_of(item) for item in value]
    return value.meaning if isinstance(value, Scalar) else value
