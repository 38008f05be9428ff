"""The optimizers' names in timm's registry: `timm.optim.create_optimizer_v2(model, "fromage", lr=0.01)`."""

import logging
from collections.abc import Iterable
from typing import Any

import torch
from timm.optim import OptimInfo
from timm.optim._optim_factory import default_registry

from hf_geo.optim import Method, get_method, list_optimizers

logger = logging.getLogger(__name__)


class NeedsLossError(ValueError):
    """A method that needs the loss was chosen for a script that calls `optimizer.step()` without it."""


def register_timm(*, closures: bool = True) -> None:
    """Adds every registered method to timm's optimizer registry, under the same name; calling it again changes nothing.

    timm hands an optimizer parameters, not a model. For a method with a geometry pass the groups as well; their learning
    rate and weight decay replace timm's: `create_optimizer_v2(model, "adamsrt",
    param_group_fn=lambda m: hf_geo.optim.param_groups(m, "adamsrt", lr=lr, weight_decay=weight_decay))`.

    Args:
        closures: Whether the training loop gives the loss, as `optimizer.step(lambda: loss)`. timm's own train.py does
            not; with False, the methods that need it raise `NeedsLossError` when they are made, not at the first step.
    """
    present = set(default_registry.list_optimizers())
    for name in list_optimizers():
        if name not in present:
            method = get_method(name)
            info = OptimInfo(
                name=name,
                opt_class=_timm_class(method, refused=method.needs_loss and not closures),
                description=f"{method.paper.title} ({method.paper.year})" if method.paper else "",
                has_eps="eps" in method.arguments,
                has_momentum="momentum" in method.arguments,
                has_betas="betas" in method.arguments,
                defaults=dict(method.settings),
            )
            default_registry.register(info)


def _timm_class(method: Method, refused: bool) -> type[torch.optim.Optimizer]:
    """Makes a class that timm can call with its own arguments; its instances are of the method's class."""

    def new(cls, params: Iterable[Any], weight_decay: float = 0.0, **settings: Any) -> torch.optim.Optimizer:
        if refused:
            raise NeedsLossError(
                f"{method.name} needs the value of the loss at every step, which timm's training script does not give it: choose "
                f"another --opt, or train timm's model with hf_geo's scripts/train.py --model NAME --optim {method.name}."
            )
        groups = _as_groups(params)
        if "weight_decay" in method.arguments:
            settings["weight_decay"] = weight_decay
        else:
            _drop_decay(method, groups, weight_decay)
        if method.geometry and not any(group.get("name") == "geometry" for group in groups):
            logger.warning(
                "%s treats all weights plainly here, since timm hands it no model. In code, create_optimizer_v2 takes "
                "param_group_fn=lambda model: hf_geo.optim.param_groups(model, %r, lr=...); for timm's train.py, which has no such "
                "option, use hf_geo's scripts/train.py --model NAME --optim %s.",
                method.name, method.name, method.name,
            )  # fmt: skip
        settings.setdefault("lr", method.lr)
        method.check_settings(settings)
        return method.cls(groups, **settings)

    # `new` returns no instance of this class, so Python does not call `__init__`, and the optimizer pickles as usual.
    return type(method.cls.__name__, (method.cls,), {"__new__": new, "__doc__": method.cls.__doc__})


def _as_groups(params: Iterable[Any]) -> list[dict[str, Any]]:
    params = list(params)
    return [dict(group) for group in params] if params and isinstance(params[0], dict) else [{"params": params}]


def _drop_decay(method: Method, groups: list[dict[str, Any]], weight_decay: float) -> None:
    """Removes the weight decay, which timm's scripts always give, from the groups of a method that has none."""
    decay = max([weight_decay, *(group.pop("weight_decay", 0.0) for group in groups)])
    if decay:
        bound = method.instead_of_decay
        remedy = f" To bound the weights, give {bound}=NUMBER to create_optimizer_v2, or --opt-kwargs {bound}=NUMBER to timm's train.py."
        logger.warning("%s has no weight decay: %s is ignored.%s", method.name, decay, remedy if bound else "")
