"""The optimizers that `--optim` may name besides transformers' own, and their `--optim_args`.

These are the registered methods, and baselines of the papers that transformers has no name for: Adam with L2 regularization
(Kingma & Ba 2015, arXiv 1412.6980), LARS (You et al. 2017, 1708.03888) and LAMB (You et al. 2020, 1904.00962).
"""

import copy
import math
from typing import Any

import torch
from timm.optim import Lamb, Lars
from torch import nn
from transformers import TrainingArguments

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


def split_module_settings(
    args: TrainingArguments, model: nn.Module | None
) -> tuple[TrainingArguments, dict[str, dict[str, Any]]]:
    """Separates the settings of single modules, such as `discriminator.lr=4e-4`, from the others of `optim_args`.

    Returns:
        Arguments with the others alone, and the settings of modules by the modules' names in the model.

    Raises:
        ValueError: A module and one within it both have settings.
    """
    modules = dict(model.named_modules()) if model is not None else {}
    others: list[str] = []
    settings: dict[str, dict[str, Any]] = {}
    for pair in (args.optim_args or "").split(","):
        key, _, value = pair.partition("=")
        module, _, name = key.strip().rpartition(".")
        if module and module in modules:
            settings.setdefault(module, {})[name] = parse_value(value)
        else:
            others.append(pair)
    for outer in settings:
        for inner in settings:
            if inner.startswith(f"{outer}."):
                raise ValueError(f"optim_args sets {outer!r} and {inner!r} within it: set one of them.")
    if settings:
        args = copy.copy(args)
        args.optim_args = ",".join(others) or None
    return args, settings


def refuse_unknown_modules(args: TrainingArguments) -> None:
    """Raises `ValueError` for settings of modules that the model does not have, which transformers would pass over."""
    for pair in (args.optim_args or "").split(","):
        module, _, name = pair.partition("=")[0].strip().rpartition(".")
        if module:
            raise ValueError(
                f"optim_args sets {module}.{name}, but the model has no module {module!r}: look for a typing error."
            )


def apply_module_settings(optimizer: torch.optim.Optimizer, model: nn.Module, args: TrainingArguments) -> None:
    """Gives the parameters of modules that `optim_args` names groups with settings of their own.

    A learning rate given for a module takes the place of `args.learning_rate`: a group with a multiple of that keeps it.

    Args:
        optimizer: Before its first step.
        model: The network, before any engine wraps it.
        args: The training arguments.

    Raises:
        ValueError: A setting that the optimizer's groups do not have.
    """
    _, settings = split_module_settings(args, model)
    name = getattr(args.optim, "value", args.optim)
    for module, values in settings.items():
        inside = set(model.get_submodule(module).parameters())
        for group in list(optimizer.param_groups):
            members = [p for p in group["params"] if p in inside]
            if not members:
                continue
            unknown = sorted(set(values) - set(group))
            if unknown:
                raise ValueError(
                    f"optim_args sets {module}.{unknown[0]}, but the parameter groups of {name} have no such setting: they "
                    f"have {', '.join(key for key in group if key not in ('params', 'name'))}."
                )
            own = {**group, **values, "params": members, "name": f"{module}.{group.get('name', 'rest')}"}
            if "lr" in values and 0 < args.learning_rate < math.inf:
                own["lr"] = group["lr"] / args.learning_rate * values["lr"]
            group["params"] = [p for p in group["params"] if p not in inside]
            group.setdefault("name", "rest")
            optimizer.add_param_group(own)
        optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
