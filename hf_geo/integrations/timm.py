"""The optimizers' names in timm's registry: `timm.optim.create_optimizer_v2(model, "fromage", lr=0.01)`."""

import logging
from collections.abc import Callable

import torch
from timm.optim import OptimInfo
from timm.optim._optim_factory import default_registry

from hf_geo.optim import Method, get_method, list_optimizers

logger = logging.getLogger(__name__)


def register_timm() -> None:
    """Adds every registered method to timm's optimizer registry, under the same name; calling it again changes nothing.

    timm hands an optimizer parameters, not a model. For a method with a geometry pass the groups along, whose learning
    rate and weight decay take the place of timm's: `create_optimizer_v2(model, "adamsrt",
    param_group_fn=lambda m: hf_geo.optim.param_groups(m, "adamsrt", lr=lr, weight_decay=weight_decay))`.
    """
    present = set(default_registry.list_optimizers())
    for name in list_optimizers():
        if name not in present:
            method = get_method(name)
            info = OptimInfo(
                name=name,
                opt_class=_constructor(method),
                description=f"{method.paper.title} ({method.paper.year})",
                has_eps="eps" in method.arguments,
                has_momentum="momentum" in method.arguments,
                has_betas="betas" in method.arguments,
                defaults=dict(method.settings),
            )
            default_registry.register(info)


def _constructor(method: Method) -> Callable[..., torch.optim.Optimizer]:
    def construct(params, weight_decay: float = 0.0, **settings) -> torch.optim.Optimizer:
        params = list(params)
        groups = [dict(group) for group in params] if params and isinstance(params[0], dict) else [{"params": params}]
        if "weight_decay" in method.arguments:
            settings["weight_decay"] = weight_decay
        else:
            # timm's scripts always give weight decay, so refusing it would shut the method out of them.
            decay = max([weight_decay, *(group.pop("weight_decay", 0.0) for group in groups)])
            if decay:
                logger.warning(
                    "%s has no weight decay: %s is ignored; %s bounds the weights.",
                    method.name,
                    decay,
                    method.instead_of_decay,
                )
        if method.geometry and not any(group.get("name") == "geometry" for group in groups):
            logger.warning(
                "%s treats all weights plainly here, since timm hands it no model: give param_group_fn=lambda model: "
                "hf_geo.optim.param_groups(model, %r, lr=...) to use its geometry.", method.name, method.name,
            )  # fmt: skip
        settings.setdefault("lr", method.lr)
        method.check_settings(settings)
        return method.cls(groups, **settings)

    return construct
