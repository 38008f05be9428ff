"""`--optim_args`: settings of an optimizer, of its parameter groups, and of single modules."""

import copy
import inspect
import math
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments

from hf_geo.optim import Method
from hf_geo.optim.param_groups import undecayed_parameters

from .names import find_method

_WORDS = {"true": True, "false": False, "none": None}


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
        if name in method.group_settings and not group:
            raise ValueError(
                f"optim_args sets {pair.strip()!r} for all: give it for a module, as MODULE.{pair.strip()}."
            )
        if name in ("lr", "weight_decay") and not group:
            flag = {"lr": "learning_rate", "weight_decay": "weight_decay"}[name]
            raise ValueError(
                f"optim_args sets {pair.strip()!r}: give it as --{flag} {value}, or for one group as GROUP.{key}."
            )
        target = group_settings.setdefault(group, {}) if group else settings
        if name in target:
            raise ValueError(f"optim_args sets {key!r} twice.")
        target[name] = _read_value(method, key, value)
    return settings, group_settings


def _read_value(method: Method | None, key: str, value: str) -> Any:
    """Parses the value of a setting, or of a group's or module's; "auto" and words only where they have a meaning."""
    try:
        return parse_value(value)
    except ValueError as error:
        automatic = method and method.needs_loss and (key, value) == ("lower_bound", "auto")
        if automatic or (method and _takes_words(method.arguments.get(key.rpartition(".")[2]))):
            return value
        raise ValueError(f"optim_args sets {key}={value}: {error}.") from error


def _takes_words(argument: inspect.Parameter | None) -> bool:
    """Whether an argument of an optimizer's class may be text, such as the name of a choice."""
    if argument is None:
        return False
    return isinstance(argument.default, str) or bool(re.search(r"\bstr\b", str(argument.annotation)))


def refuse_adam_flags(method: Method, args: TrainingArguments) -> None:
    """Raises `ValueError` for --adam_beta1 and the like, which are for transformers' own optimizers alone."""
    settings = {"adam_beta1": "betas", "adam_beta2": "betas", "adam_epsilon": "eps"}
    values = {"betas": f"{args.adam_beta1}:{args.adam_beta2}", "eps": args.adam_epsilon}
    for name, setting in settings.items():
        value = getattr(args, name)
        if value != args.__dataclass_fields__[name].default:
            remedy = f"give --optim_args {setting}={values[setting]}" if setting in method.arguments else "leave it out"
            raise ValueError(f"--{name} {value} is for transformers' own optimizers, not {method.name}: {remedy}.")


def check_parameters(method: Method, args: TrainingArguments, model: nn.Module | None) -> None:
    """Raises `ValueError` where a library's optimizer cannot update the model, or would pass over the weight decay."""
    if args.weight_decay and "weight_decay" not in method.arguments:
        raise ValueError(f"{method.name} has no weight decay, but --weight_decay {args.weight_decay} was given.")
    others = [p for p in model.parameters() if p.requires_grad and p.ndim != 2] if model is not None else []
    if method.cls is torch.optim.Muon and others:
        raise ValueError(
            f"{method.name} updates matrices alone, and this model has {len(others)} tensors of other shapes, such as "
            f"{tuple(others[0].shape)}: choose timm:muon, which flattens convolutions and gives the rest to AdamW."
        )


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
    method = find_method(args.optim)
    others: list[str] = []
    settings: dict[str, dict[str, Any]] = {}
    for pair in (args.optim_args or "").split(","):
        key, _, value = (part.strip() for part in pair.partition("="))
        module, _, name = key.rpartition(".")
        if module and module in modules:
            settings.setdefault(module, {})[name] = _read_value(method, key, value)
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


def _spare_undecayed(
    model: nn.Module, settings: dict[str, dict[str, Any]], decay_all: bool
) -> Iterator[tuple[str, set[nn.Parameter], dict[str, Any]]]:
    """Yields modules, parameters in them and their settings, without weight decay for norm gains, norm shifts and biases."""
    undecayed_names = set() if decay_all else undecayed_parameters(model)
    undecayed = {parameter for name, parameter in model.named_parameters() if name in undecayed_names}
    for module, values in settings.items():
        inside = set(model.get_submodule(module).parameters())
        spared = {key: value for key, value in values.items() if key != "weight_decay"}
        if spared == values or inside <= undecayed:
            yield module, inside, values
            continue
        yield module, inside - undecayed, values
        if spared:
            yield module, inside & undecayed, spared


def apply_module_settings(optimizer: torch.optim.Optimizer, model: nn.Module, args: TrainingArguments) -> None:
    """Gives the parameters of modules that `optim_args` names groups with settings of their own.

    A learning rate given for a module takes the place of `args.learning_rate`: a group with a multiple of that keeps it.
    Weight decay given for a module leaves out its norm gains, norm shifts and biases, unless it has nothing else or
    `args.decay_all` is set.

    Args:
        optimizer: Before its first step.
        model: The network, before any engine wraps it.
        args: The training arguments.

    Raises:
        ValueError: A setting that the optimizer's groups do not have.
    """
    _, settings = split_module_settings(args, model)
    name = getattr(args.optim, "value", args.optim)
    method = find_method(name)
    marks = method.group_settings if method else ()
    for module, inside, values in _spare_undecayed(model, settings, decay_all=getattr(args, "decay_all", False)):
        for group in list(optimizer.param_groups):
            members = [p for p in group["params"] if p in inside]
            if not members:
                continue
            unknown = sorted(set(values) - {*group, *marks})
            if unknown:
                raise ValueError(
                    f"optim_args sets {module}.{unknown[0]}, but the parameter groups of {name} have no such setting: they "
                    f"have {', '.join(key for key in group if key not in ('params', 'name'))}."
                )
            own = {**group, **values, "params": members, "name": f"{module}.{group.get('name', 'rest')}"}
            if "lr" in values and 0 < args.learning_rate < math.inf:
                own["lr"] = group["lr"] / args.learning_rate * values["lr"]
            if "lr" in values and group.get("max_lr_snapshot") is not None:
                own["max_lr_snapshot"] = own["lr"]  # timm's corrected weight decay is relative to it
            group["params"] = [p for p in group["params"] if p not in inside]
            group.setdefault("name", "rest")
            optimizer.add_param_group(own)
        optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
