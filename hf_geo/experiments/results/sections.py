"""Names of the sections of a RESULTS.md, which results.py writes and the overview looks for."""

import re
from collections.abc import Mapping
from typing import Any


def name_sweep(recipe: str, sweep: Mapping[str, Any]) -> str:
    """Names the section of a sweep, so that sweeps of one recipe over different fields, and searches, are different ones.

    Args:
        recipe: Name of the recipe.
        sweep: Contents of its sweep.json.
    """
    parts = ["search" if sweep.get("is_search") else "sweep", recipe]
    parts += [_last(field) for field in sweep.get("over", ())]
    if sweep.get("x") not in (None, "learning_rate"):
        parts.append(f"by_{_last(sweep['x'])}")
    if searched := sweep.get("searched"):
        parts.append(f"best_{'_'.join(map(_last, searched))}")
    return "-".join(parts)


def _last(field: str) -> str:
    return field.rpartition(".")[2]


def find_section(text: str, recipe: str) -> str | None:
    """Returns the section of a recipe's finished runs; None if there is none."""
    name = re.escape(recipe)
    found = re.search(rf"<!-- {name} -->(.*?)<!-- end of {name} -->", text, re.DOTALL)
    return found and found[1]


def has_others(text: str, recipe: str) -> bool:
    """Whether there are sections of a recipe's sweeps, walks or shorter runs."""
    return re.search(rf"<!-- [a-z]+-{re.escape(recipe)}(-\w+)* -->", text) is not None
