"""Which parameters get the geometry, which get weight decay: from a model to parameter groups."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .registry import get_method

logger = logging.getLogger(__name__)

_PER_CHANNEL_NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)


def undecayed_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters that get no weight decay: norm gains and shifts, biases, and every tensor of one axis or none."""
    return {name for name, p in model.named_parameters() if p.ndim <= 1 or name.rsplit(".", 1)[-1] == "bias"}


def norm_fed_weights(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Weights that module structure shows to be scale-invariant, with the axes that index their groups.

    A convolution or linear layer counts when the module registered right after it in the same container (identities
    skipped) is a batch or instance normalization over its outputs: every filter (axis 0) is then rescaled alone. It is
    a rule about structure, not about what `forward` does: `scale_invariant_parameters` measures instead.
    """
    found = {}
    for prefix, container in model.named_modules():
        children = [(n, m) for n, m in container.named_children() if not isinstance(m, nn.Identity)]
        for (name, layer), (_, norm) in zip(children, children[1:], strict=False):
            transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)
            if not isinstance(layer, _WEIGHTED) or transposed or not isinstance(norm, _PER_CHANNEL_NORMS):
                continue
            normalizes = isinstance(norm, nn.modules.batchnorm._BatchNorm) or isinstance(layer, nn.modules.conv._ConvNd)
            if normalizes and norm.num_features == layer.weight.shape[0]:
                found[f"{prefix}.{name}.weight".lstrip(".")] = (0,)
    return found


def param_groups(
    model: nn.Module,
    name: str,
    *,
    lr: float | torch.Tensor | None = None,
    weight_decay: float = 0.0,
    group_settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Parameter groups of `model` for the method `name`, ready for its class.

    Each group carries its `name`: "geometry" (the weights the method's geometry applies to), "rest" and "no_decay"
    (the rest without weight decay: norm gains, biases and other tensors of at most one axis). Parameters that do not
    require a gradient are left out.

    Args:
        model: The network.
        name: A registered method, see `list_optimizers()`.
        lr: Learning rate of the groups "rest" and "no_decay"; the geometry's is the method's multiple of it. The
            method's own default when not given.
        weight_decay: For the groups "geometry" and "rest".
        group_settings: Settings of single groups by their names, such as `{"geometry": {"lr": 0.2}}`.

    Raises:
        ValueError: Unknown method, group or setting; weight decay for a method that has none; nothing to train.
    """
    method = get_method(name)
    group_settings = dict(group_settings or {})
    if weight_decay and "weight_decay" not in method.arguments:
        instead = f"; bound the weights with {method.instead_of_decay} instead" if method.instead_of_decay else ""
        raise ValueError(f"{name} has no weight decay, but weight_decay={weight_decay} was given{instead}.")

    invariant = norm_fed_weights(model) if method.geometry else {}
    undecayed = undecayed_parameters(model)
    base_lr = method.lr if lr is None else lr
    groups: dict[Any, dict[str, Any]] = {}
    for key, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rule = method.geometry(parameter.shape, invariant[key]) if key in invariant else None
        if rule is not None:
            settings = {"lr": base_lr * method.geometry_lr, **method.geometry_settings, **rule}
            label = "geometry"
        else:
            settings = {"lr": base_lr}
            label = "no_decay" if key in undecayed and "weight_decay" in method.arguments else "rest"
        if "weight_decay" in method.arguments:
            settings["weight_decay"] = 0.0 if label == "no_decay" else weight_decay
        group = groups.setdefault((label, repr(sorted((rule or {}).items()))), {"name": label, **settings, "params": []})
        group["params"].append(parameter)
    if not groups:
        raise ValueError("The model has no parameter that requires a gradient, so there is nothing to optimize.")

    known = {group["name"] for group in groups.values()}
    for label, settings in group_settings.items():
        if label not in known:
            raise ValueError(f"{name} makes no parameter group {label!r} of this model: it makes {', '.join(sorted(known))}.")
        method.check_settings(settings)
        for group in groups.values():
            if group["name"] == label:
                group.update(settings)
    for group in groups.values():
        count = sum(p.numel() for p in group["params"])
        logger.info("%s: group %r has %d tensors, %d parameters", name, group["name"], len(group["params"]), count)
    return list(groups.values())


def create_optimizer(
    name: str,
    model: nn.Module,
    *,
    lr: float | torch.Tensor | None = None,
    weight_decay: float = 0.0,
    group_settings: Mapping[str, Mapping[str, Any]] | None = None,
    **settings: Any,
) -> torch.optim.Optimizer:
    """The method `name` for `model`, with its parameter groups made by `param_groups`.

    Args:
        name: A registered method, see `list_optimizers()`.
        model: The network.
        lr, weight_decay, group_settings: As in `param_groups`.
        **settings: Any other argument of the method's class.

    Returns:
        The optimizer.

    Raises:
        ValueError: As `param_groups`, and for a setting the class does not take.
    """
    method = get_method(name)
    method.check_settings(settings)
    groups = param_groups(model, name, lr=lr, weight_decay=weight_decay, group_settings=group_settings)
    return method.cls(groups, lr=method.lr if lr is None else lr, **{**method.settings, **settings})
