"""From a method's name and a model to parameter groups and to an optimizer."""

import inspect
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .geometry import geometry_weights
from .registry import Method, get_method

logger = logging.getLogger(__name__)

Settings = dict[str, Any]


def create_optimizer(name: str, model: nn.Module, **options: Any) -> torch.optim.Optimizer:
    """Makes the optimizer `name` for `model`, with its parameter groups made by `param_groups`.

    The rows that SGD-G and Adam-G keep on spheres are scaled to norm 1, at which these methods start.

    Args:
        name: A registered method, see `list_optimizers()`.
        model: The network.
        **options: The arguments of `param_groups` (`lr`, `weight_decay`, `group_settings`, `geometry`, `example_inputs`
            and so on), and any other argument of the method's class.

    Returns:
        The optimizer.

    Raises:
        ValueError: As `param_groups`, and for a setting the class does not take.
        Exception: As `geometry_weights`.
    """
    method = get_method(name)
    grouping = {key: options.pop(key) for key in _GROUPING & options.keys()}
    method.check_settings(options)
    groups = param_groups(model, name, **grouping)
    names = {parameter: key for key, parameter in model.named_parameters()}
    for group in groups:
        group["param_names"] = [names.get(p, f"a tensor of shape {tuple(p.shape)}") for p in group["params"]]
    lr = method.lr if grouping.get("lr") is None else grouping["lr"]
    optimizer = method.cls(groups, lr=lr, **{**method.settings, **options})
    for group in optimizer.param_groups:
        group.pop("param_names", None)  # only the constructor's messages need them; a checkpoint holds settings alone
    if hasattr(optimizer, "normalize_rows"):
        optimizer.normalize_rows()
    return optimizer


def param_groups(
    model: nn.Module,
    name: str,
    *,
    lr: float | torch.Tensor | None = None,
    weight_decay: float = 0.0,
    decay_all: bool = False,
    group_settings: Mapping[str, Mapping[str, Any]] | None = None,
    caller_groups: Iterable[Mapping[str, Any]] | None = None,
    geometry: str = "auto",
    example_inputs: Any = None,
    invariant: Mapping[str, Sequence[int]] | None = None,
    progress: bool = False,
) -> list[Settings]:
    """Makes the parameter groups of `model` for the method `name`, ready for its class.

    Each group carries its `name`: "geometry" (the weights the method's geometry applies to), "rest" and "no_decay"
    (the rest without weight decay: norm gains, biases and other tensors of at most one axis). Parameters that do not
    require a gradient are left out.

    Args:
        model: The network.
        name: A registered method, see `list_optimizers()`.
        lr: Learning rate of the groups "rest" and "no_decay"; the geometry's is the method's multiple of it. The
            method's own default when not given.
        weight_decay: For the groups "geometry" and "rest".
        decay_all: Decay norm gains, biases and the like too, so that there is no group "no_decay".
        group_settings: Settings of single groups by their names, such as `{"geometry": {"lr": 0.2}}`.
        caller_groups: Groups that a training library has made: only their parameters are taken, with the settings they
            give (a learning rate is multiplied for the geometry as `lr` is).
        geometry, example_inputs, invariant, progress: How the scale-invariant weights are found, see `geometry_weights`.
            Nothing is measured for a method that has no geometry.

    Raises:
        ValueError: Unknown method, group or setting; weight decay for a method that has none; no learning rate for one that
            has no default; nothing to train.
        Exception: As `geometry_weights`.
    """
    method = get_method(name)
    _check_weight_decay(method, weight_decay)
    found: Mapping[str, tuple[int, ...]] = {}
    if method.geometry:
        found = geometry_weights(model, geometry, example_inputs=example_inputs, invariant=invariant, progress=progress)
    lr = method.lr if lr is None else lr
    if lr is None:
        raise ValueError(f"{name} has no learning rate of its own: give it one, lr=NUMBER.")
    kinds = {kind: _settings_of(kind, method, lr, weight_decay) for kind in ("geometry", "rest", "no_decay")}
    undecayed = set() if decay_all or "weight_decay" not in method.arguments else undecayed_parameters(model)
    settings = _settings_by_parameter(model, method, found, kinds, undecayed)
    if caller_groups is not None:
        settings = _merge_caller_settings(settings, caller_groups, method, kinds["rest"])
    groups = _group_by_settings(settings)
    if not groups:
        raise ValueError("The model has no parameter that requires a gradient, so there is nothing to optimize.")
    _apply_group_settings(groups, method, group_settings or {})
    if method.geometry and geometry != "none" and all(group["name"] != "geometry" for group in groups):
        logger.warning("%s: no weight of this model is for its geometry, so all are treated alike.", name)
    for group in groups:
        count = sum(p.numel() for p in group["params"])
        logger.info("%s: group %r has %d tensors, %d parameters", name, group["name"], len(group["params"]), count)
    return groups


_GROUPING = inspect.signature(param_groups).parameters.keys() - {"model", "name"}


def undecayed_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters that get no weight decay: norm gains and shifts, biases, all tensors of at most one axis."""
    return {name for name, p in model.named_parameters() if p.ndim <= 1 or name.rsplit(".", 1)[-1] == "bias"}


def _check_weight_decay(method: Method, weight_decay: float) -> None:
    """Raises `ValueError` if weight decay is given for a method that has none."""
    if weight_decay and "weight_decay" not in method.arguments:
        instead = f"; bound the weights with {method.instead_of_decay} instead" if method.instead_of_decay else ""
        raise ValueError(f"{method.name} has no weight decay, but weight_decay={weight_decay} was given{instead}.")


def _settings_of(kind: str, method: Method, lr: float | torch.Tensor, weight_decay: float) -> Settings:
    """The settings of a group named `kind`."""
    settings: Settings = {"name": kind, "lr": lr}
    if kind == "geometry":
        settings |= {"lr": lr * method.geometry_lr, **method.geometry_settings}
    if "weight_decay" in method.arguments:
        settings["weight_decay"] = 0.0 if kind == "no_decay" else weight_decay
    return settings


def _settings_by_parameter(
    model: nn.Module,
    method: Method,
    invariant: Mapping[str, tuple[int, ...]],
    kinds: Mapping[str, Settings],
    undecayed: Collection[str],
) -> dict[nn.Parameter, Settings]:
    """The settings of every trainable parameter."""
    settings = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rule = method.geometry(parameter.shape, invariant[name]) if name in invariant else None
        kind = "geometry" if rule is not None else "no_decay" if name in undecayed else "rest"
        settings[parameter] = {**kinds[kind], **(rule or {})}
    return settings


def _merge_caller_settings(
    settings: Mapping[nn.Parameter, Settings],
    caller_groups: Iterable[Mapping[str, Any]],
    method: Method,
    rest: Settings,
) -> dict[nn.Parameter, Settings]:
    """The settings of the parameters of a caller's groups: ours, overridden by the caller's."""
    merged = {}
    for group in caller_groups:
        theirs = {key: value for key, value in group.items() if key not in ("params", "name")}
        if "weight_decay" not in method.arguments:
            _check_weight_decay(method, theirs.pop("weight_decay", 0.0))
        given = group["params"]
        for parameter in [given] if isinstance(given, torch.Tensor) else given:
            ours = settings.get(parameter, rest)
            merged[parameter] = {**ours, **theirs}
            if "lr" in theirs and ours["name"] == "geometry":
                merged[parameter]["lr"] = theirs["lr"] * method.geometry_lr
    return merged


def _group_by_settings(settings: Mapping[nn.Parameter, Settings]) -> list[Settings]:
    """One group for the parameters of equal settings, in the order of their first members."""
    groups: list[tuple[Settings, list[nn.Parameter]]] = []
    for parameter, wanted in settings.items():
        members = next((params for known, params in groups if known == wanted), None)
        if members is None:
            members = []
            groups.append((wanted, members))
        members.append(parameter)
    return [{**wanted, "params": members} for wanted, members in groups]


def _apply_group_settings(
    groups: list[Settings], method: Method, group_settings: Mapping[str, Mapping[str, Any]]
) -> None:
    """Sets the user's settings of groups by their names."""
    known = {group["name"] for group in groups}
    for name, settings in group_settings.items():
        if name not in known:
            raise ValueError(
                f"{method.name} makes no parameter group {name!r} of this model: it makes {', '.join(sorted(known))}."
            )
        method.check_settings(settings)
        for group in groups:
            if group["name"] == name:
                group.update(settings)
