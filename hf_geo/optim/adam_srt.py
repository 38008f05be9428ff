"""AdamSRT and AdamS: Adam for weights that a normalization layer makes scale-invariant.

Roburin, de Mont-Marin, Bursuc, Marlet, Perez, Aubry: Spherical Perspective on Learning with Normalization Layers.
Neurocomputing 487 (2022), arXiv 2006.13382.
"""

from itertools import islice
from math import sqrt
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ._base import blocks, check_flag, check_number
from ._fused import adam_step, batches
from ._shards import local, local_grad, zeros_like
from ._spheres import Rows, SphericalOptimizer


class _SphericalAdam(SphericalOptimizer):
    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        check_number(group, "lr", tensor=True)
        check_number(group, "eps")
        check_number(group, "weight_decay")
        check_betas(group)

    def _update(self, loss: Any) -> None:
        for group, params in self._with_gradient():
            rows = [Rows.of(p, self._channel_dims(group)) for p in params]
            for p, r in zip(params, rows, strict=True):
                if not self.state[p]:
                    self.state[p]["step"] = torch.zeros((), device=p.device)
                    self.state[p]["exp_avg"] = zeros_like(p)
                    self.state[p]["exp_avg_sq"] = zeros_like(p, r.dims if r else ())
            # torch.compile cannot look into the fused kernel, and makes one of its own of the steps on groups of one.
            fused = [r is None and not torch.compiler.is_compiling() for r in rows]
            self._adam(group, [p for p, f in zip(params, fused, strict=True) if f])
            self._spherical(group, [(p, r) for p, r, f in zip(params, rows, fused, strict=True) if not f])

    def _adam(self, group: dict[str, Any], params: list[Tensor]) -> None:
        moments = ([local(self.state[p][key]) for p in params] for key in ("exp_avg", "exp_avg_sq"))
        steps = iter([self.state[p]["step"] for p in params])
        settings = {k: group[k] for k in ("lr", "betas", "eps", "weight_decay")}
        for batch in batches([local(p) for p in params], [local_grad(p) for p in params], *moments):
            adam_step(*batch, list(islice(steps, len(batch[0]))), **settings)

    def _spherical(self, group: dict[str, Any], members: list[tuple[Tensor, Rows | None]]) -> None:
        if not members:
            return
        corrections = advance([self.state[p]["step"] for p, _ in members], *group["betas"])
        for (p, r), c1, c2 in zip(members, *corrections, strict=True):
            # lr * sqrt(d) * (m / c1) / (sqrt(v / c2) + eps), with the constants taken out of the loop
            scale = group["lr"] * sqrt(r.size if r else 1) * c2.sqrt() / c1
            eps = group["eps"] * c2.sqrt()
            tensors = (local(p), local_grad(p), local(self.state[p]["exp_avg"]), local(self.state[p]["exp_avg_sq"]))
            for x, g, m, v in blocks(r.axis if r else None, *tensors):
                if group["weight_decay"]:
                    g = g.add(x, alpha=group["weight_decay"])
                a = adam_s(x, g, m, v, r, scale, eps, *group["betas"])
                if r and group.get("rt", False):
                    transport(x, m, v, a, r, group["eps"])
                else:
                    x.addcmul_(m, a, value=-1)


def check_betas(group: dict[str, Any]) -> None:
    """Makes `group["betas"]` a pair of floats in [0, 1), or raises."""
    betas = group["betas"]
    if not isinstance(betas, tuple | list) or any(isinstance(b, bool) or not isinstance(b, Real) for b in betas):
        raise TypeError(f"betas has to be a pair of numbers, not {betas!r}.")
    if len(betas) != 2 or not all(0 <= b < 1 for b in betas):
        raise ValueError(f"betas has to be a pair of numbers that are at least 0 and below 1, not {betas!r}.")
    group["betas"] = (float(betas[0]), float(betas[1]))


def advance(steps: list[Tensor], *betas: float) -> list[tuple[Tensor, ...]]:
    """Counts a step, and gives Adam's bias corrections `1 - beta ** step`: for each beta, a 0-dim tensor a parameter."""
    torch._foreach_add_(steps, 1)
    counts = torch.stack([step.to(steps[0].device) for step in steps]).double()
    return [(1 - beta**counts).unbind() for beta in betas]


def adam_s(
    x: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    rows: Rows | None,
    scale: Tensor,
    eps: Tensor,
    beta1: float,
    beta2: float,
) -> Tensor:
    m.lerp_(g, 1 - beta1)
    length = rows.norm(g) if rows else g
    v.mul_(beta2).addcmul_(length, length, value=1 - beta2)
    return scale / v.sqrt().add_(eps)


def transport(x: Tensor, m: Tensor, v: Tensor, a: Tensor, rows: Rows, eps: float) -> None:
    before = rows.norm(x)
    x.addcmul_(m, a, value=-1)
    after = rows.norm(x)
    after = after.mul_(after)
    padded = after + eps
    v.mul_(before.mul_(before)).div_(padded)
    radial = rows.dot(m, x).div_(padded)
    m.mul_(after.div_(padded)).addcmul_(x, radial, value=-1)


class AdamSRT(_SphericalAdam):
    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        channel_dims: list[int] | tuple[int, ...] | None = None,
        channel_wise: bool = False,
        rt: bool = True,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "channel_dims": channel_dims, "channel_wise": channel_wise, "rt": rt})

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        check_flag(group, "rt")


class AdamS(_SphericalAdam):
    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        channel_dims: list[int] | tuple[int, ...] | None = None,
        channel_wise: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "channel_dims": channel_dims, "channel_wise": channel_wise})
