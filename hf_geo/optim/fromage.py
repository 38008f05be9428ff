"""Fromage: every tensor moves by a fixed fraction of its own norm."""

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ._base import GeometricOptimizer, check_number, local, local_grad, wide_dtype


class Fromage(GeometricOptimizer):
    """Fromage."""

    def __init__(self, params: Any, lr: float | Tensor = 0.01, p_bound: float | None = None) -> None:
        super().__init__(params, {"lr": lr, "p_bound": p_bound})

    def _check_group(self, group: dict[str, Any]) -> None:
        check_number("lr", group["lr"], tensor=True)
        check_number("p_bound", group["p_bound"], optional=True)

    def _update(self, loss: Any) -> None:
        for group in self.param_groups:
            for p in self._with_gradient(group):
                x, g = local(p), local_grad(p)
                w = x.to(wide_dtype(x))
                g = g.to(w.dtype)
                px, pg = norm(p, w), norm(p, g)
                lr = group["lr"]
                state = self.state[p]
                if group["p_bound"] is not None and "initial_norm" not in state:
                    state["initial_norm"] = px
                scale = torch.where((px > 0) & (pg > 0), px / pg, 1.0)
                w.sub_(g * (scale * lr)).div_((1 + lr**2) ** 0.5)
                if group["p_bound"] is not None:
                    bound = group["p_bound"] * state["initial_norm"]
                    px = norm(p, w)
                    w.mul_(torch.where(px > bound, bound / px, 1.0))
                if w is not x:
                    x.copy_(w)


def norm(p: Tensor, x: Tensor) -> Tensor:
    sq = torch.linalg.vector_norm(x).square()
    if isinstance(p, DTensor):
        for i, placed in enumerate(p.placements):
            if placed.is_shard():
                torch.distributed.all_reduce(sq, group=p.device_mesh.get_group(i))
    return sq.sqrt()
