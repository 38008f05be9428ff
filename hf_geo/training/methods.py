"""The optimizers that `--optim` may name besides transformers' own, and their `--optim_args`.

These are the registered methods, and baselines of the papers that transformers has no name for: Adam with L2 regularization
(Kingma & Ba 2015, arXiv 1412.6980), LARS (You et al. 2017, 1708.03888) and LAMB (You et al. 2020, 1904.00962).
"""

from typing import Any

import torch
from timm.optim import Lamb, Lars

from hf_geo.optim import Method, get_method, list_optimizers

_WORDS = {"true": True, "false": False, "none": None}

# No card cites the papers of baselines. transformers' adamw_torch decays weights apart from the gradient, Adam through it.
BASELINES = {
    method.name: method
    for method in (
        Method("adam", torch.optim.Adam, paper=None, lr=1e-3),
        Method("lars", Lars, paper=None, lr=1.0, settings={"momentum": 0.9}),
        # The Trainer clips already, where --max_grad_norm asks for it.
        Method("lamb", Lamb, paper=None, lr=1e-3, settings={"max_grad_norm": None}),
    )
}


def known_methods() -> list[str]:
    """Lists the names of the registered methods and of the baselines."""
    return [*list_optimizers(), *BASELINES]


def find_method(name: str) -> Method:
    """Returns the row of a registered method or a baseline.

    Raises:
        ValueError: Unknown name.
    """
    return BASELINES.get(name) or get_method(name)


def parse_value(text: str) -> Any:
    """Parses a setting's value: true, false, none, an integer, a float, or several joined by ":" (a tuple).

    Raises:
        ValueError: `text` is none of these.
    """
    text = text.strip()
    if ":" in text:
        return tuple(parse_value(part) for part in text.split(":") if part)
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise ValueError(
        f"cannot read {text!r}: use a number, true, false, none, or numbers joined by ':' such as 0.9:0.99"
    )


def parse_optim_args(method: Method, text: str | None) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Reads `optim_args` for a registered method.

    Args:
        method: The method's row; its class says which settings there are.
        text: "key=value" pairs joined by commas; "group.key=value" is for one parameter group.

    Returns:
        The settings of all groups, and those of single groups by their names.

    Raises:
        ValueError: A pair without "=", an unknown or repeated setting, or a value that cannot be read.
    """
    settings: dict[str, Any] = {}
    group_settings: dict[str, dict[str, Any]] = {}
    for pair in filter(str.strip, (text or "").split(",")):
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not key:
            raise ValueError(f"optim_args has {pair.strip()!r}, which is not of the form key=value.")
        group, _, name = key.rpartition(".")
        method.check_settings([name])
        if name in ("lr", "weight_decay") and not group:
            flag = {"lr": "learning_rate", "weight_decay": "weight_decay"}[name]
            raise ValueError(
                f"optim_args sets {pair.strip()!r}: give it as --{flag} {value}, or for one group as GROUP.{key}."
            )
        target = group_settings.setdefault(group, {}) if group else settings
        if name in target:
            raise ValueError(f"optim_args sets {key!r} twice.")
        try:
            target[name] = parse_value(value)
        except ValueError as error:
            raise ValueError(f"optim_args sets {key}={value}: {error}.") from error
    return settings, group_settings
