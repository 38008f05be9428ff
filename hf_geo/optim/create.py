"""From a method's name and a model to an optimizer."""

import inspect
from typing import Any

import torch
from torch import nn

from .param_groups import param_groups
from .registry import get_method

GROUPING = inspect.signature(param_groups).parameters.keys() - {"model", "name"}


def create_optimizer(name: str, model: nn.Module, **options: Any) -> torch.optim.Optimizer:
    """The method `name` for `model`, with its parameter groups made by `param_groups`.

    The rows that SGD-G and Adam-G keep on spheres are scaled to norm 1, where these methods start.

    Args:
        name: A registered method, see `list_optimizers()`.
        model: The network.
        **options: What `param_groups` takes (`lr`, `weight_decay`, `group_settings`, `geometry`, `example_inputs` and so
            on), and any other argument of the method's class.

    Returns:
        The optimizer.

    Raises:
        ValueError: As `param_groups`, and for a setting the class does not take.
        Exception: As `geometry_weights`.
    """
    method = get_method(name)
    grouping = {key: options.pop(key) for key in GROUPING & options.keys()}
    method.check_settings(options)
    lr = method.lr if grouping.get("lr") is None else grouping["lr"]
    groups = param_groups(model, name, **grouping)
    names = {parameter: key for key, parameter in model.named_parameters()}
    for group in groups:
        group["param_names"] = [names.get(p, f"a tensor of shape {tuple(p.shape)}") for p in group["params"]]
    optimizer = method.cls(groups, lr=lr, **{**method.settings, **options})
    for group in optimizer.param_groups:
        group.pop("param_names", None)  # for what the constructor has to say; a checkpoint holds settings alone
    if hasattr(optimizer, "normalize_rows"):
        optimizer.normalize_rows()
    return optimizer
