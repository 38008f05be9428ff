"""From the name of an optimizer to its row: this package's methods, and those of timm and torch."""

import dataclasses
import difflib
from collections.abc import Iterable

from hf_geo.optim import Method, get_method, list_optimizers

from .libraries import library_method, library_names

# Baselines of the papers that transformers has no name for: Adam with L2 regularization (Kingma & Ba 2015, arXiv 1412.6980;
# transformers' adamw_torch decays weights apart from the gradient), LARS (You et al. 2017, 1708.03888) and LAMB (You et
# al. 2020, 1904.00962).
SHORT_NAMES = {"adam": "torch:Adam", "lars": "timm:lars", "lamb": "timm:lamb"}


def known_methods() -> list[str]:
    """Lists the short names: of the registered methods, and of the baselines."""
    return [*list_optimizers(), *SHORT_NAMES]


def find_method(name: str) -> Method | None:
    """Returns the row of an optimizer; None for one of transformers', and for an unknown name without a library.

    Args:
        name: A registered method, a short name, `timm:NAME` or `torch:NAME`.

    Raises:
        ValueError: The library has no such optimizer, or one that the Trainer cannot run.
        ImportError: The optimizer needs a package, or a GPU, that is not there.
    """
    name = str(getattr(name, "value", name))  # a member of transformers' enum of names
    if name in list_optimizers():
        return get_method(name)
    if name in SHORT_NAMES:
        return dataclasses.replace(library_method(SHORT_NAMES[name]), name=name)
    library, colon, _ = name.partition(":")
    if not colon:
        return None
    names = [other for other in library_names() if other.startswith(f"{library}:")]
    if not names:
        raise ValueError(f"Unknown optimizer {name!r}: before the colon comes timm or torch, as in timm:muon.")
    if name not in names:
        near = nearest_names(name, names) or names
        raise ValueError(f"{library} has no optimizer {name!r}. The nearest are {', '.join(near)}.")
    return library_method(name)


def nearest_names(name: str, known: Iterable[str]) -> list[str]:
    """Lists up to five of the known names that are most like `name`, with or without their library and its capitals."""
    keys: dict[str, list[str]] = {}
    for other in known:
        for key in {other.lower(), other.lower().partition(":")[2] or other.lower()}:
            keys.setdefault(key, []).append(other)
    close = difflib.get_close_matches(str(name).lower(), keys, n=5)
    return list(dict.fromkeys(other for key in close for other in keys[key]))[:5]
