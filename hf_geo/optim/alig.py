"""ALI-G."""

from typing import Any

import torch
from torch import Tensor

from ._base import GeometricOptimizer, check_number, check_flag, local, local_grad, wide_dtype
from .fromage import norm

UNBOUNDED = torch.finfo(torch.float32).max


class AliG(GeometricOptimizer):
    """ALI-G."""

    _loss = None

    def __init__(
        self,
        params: Any,
        lr: float | Tensor | None = None,
        momentum: float = 0.0,
        max_norm: float | None = None,
        eps: float = 1e-5,
        adjusted_momentum: bool = False,
        projection_fn: Any = None,
    ) -> None:
        self.projection_fn = projection_fn
        super().__init__(
            params,
            {"lr": lr, "momentum": momentum, "max_norm": max_norm, "eps": eps, "adjusted_momentum": adjusted_momentum},
        )
        self._project()

    def _check_group(self, group: dict[str, Any]) -> None:
        group["lr"] = UNBOUNDED if group["lr"] is None else group["lr"]
        check_number("lr", group["lr"], tensor=True)

    def set_loss(self, loss: float | Tensor) -> None:
        self._loss = loss

    @torch.no_grad()
    def _project(self) -> None:
        max_norm = self.param_groups[0]["max_norm"]
        if max_norm is None:
            return
        params = [p for group in self.param_groups for p in group["params"]]
        total = torch.stack([norm(p, local(p)).square() for p in params]).sum().sqrt()
        factor = torch.where(total > max_norm, max_norm / total, 1.0)
        for p in params:
            local(p).mul_(factor)

    def _update(self, loss: Any) -> None:
        if loss is None:
            loss = self._loss
        self._loss = None
        gathered = [(group, self._with_gradient(group)) for group in self.param_groups]
        sq = torch.stack([norm(p, local_grad(p)).square() for _, ps in gathered for p in ps]).sum()
        unclipped = loss / (sq + gathered[0][0]["eps"])
        for group, params in gathered:
            size = unclipped.clamp(max=group["lr"])
            self.step_size = size
            mu = group["momentum"]
            for p in params:
                x, g = local(p), local_grad(p)
                x.sub_(size * g)
                if mu:
                    state = self.state[p]
                    if not state:
                        state["momentum_buffer"] = torch.zeros_like(p)
                    b = local(state["momentum_buffer"])
                    if group["adjusted_momentum"]:
                        b.mul_(mu).sub_(g)
                        x.add_(b * (size * mu))
                    else:
                        b.mul_(mu).sub_(size * g)
                        x.add_(b, alpha=mu)
        self._project()
