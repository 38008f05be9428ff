"""AdamS and AdamSRT: Adam on the spheres."""

from math import sqrt
from typing import Any

import torch
from torch import Tensor

from ._base import GeometricOptimizer, bias_corrections, check_flag, check_number, local, local_grad, wide_dtype
from ._spheres import Rows, check_channel_dims, update_rows


class _SphericalAdam(GeometricOptimizer):
    def _completed(self, group):
        if "channel_dims" in group:
            group.setdefault("channel_wise", False)
        return group

    def _check_group(self, group: dict[str, Any]) -> None:
        check_number("lr", group["lr"], tensor=True)

    def _update(self, loss: Any) -> None:
        for group in self.param_groups:
            params = self._with_gradient(group)
            dims = (0,) if group["channel_wise"] else group["channel_dims"]
            for p in params:
                rows = Rows.of(p, dims)
                state = self.state[p]
                if not state:
                    state["step"] = torch.zeros(())
                    state["exp_avg"] = torch.zeros_like(p, dtype=wide_dtype(p))
                    state["exp_avg_sq"] = torch.zeros_like(p, dtype=wide_dtype(p)) if rows is None else rows.zeros(p)
                state["step"] += 1
                beta1, beta2 = group["betas"]
                ((c1, c2),) = bias_corrections([state["step"]], beta1, beta2)
                lr, eps, wd = group["lr"], group["eps"], group["weight_decay"]
                rt = group.get("rt", False)

                def update(rows, x, g, m, v, *, rt=rt, lr=lr, eps=eps, wd=wd, c1=c1, c2=c2, beta1=beta1, beta2=beta2):
                    if wd:
                        g = g.add(x, alpha=wd)
                    m.lerp_(g, 1 - beta1)
                    v.mul_(beta2).add_(rows.sq_norm(g) if rows else g * g, alpha=1 - beta2)
                    a = (lr * sqrt(rows.size if rows else 1) / c1) / ((v / c2).sqrt_() + eps)
                    a = a.to(x.dtype)
                    if rows is None or not rt:
                        x.addcmul_(m, a, value=-1)
                        return
                    xx, xm, mm = rows.sq_norm(x), rows.dot(x, m), rows.sq_norm(m)
                    yy = xx - 2 * a * xm + a * a * mm + eps
                    xy = xx - a * xm
                    my = xm - a * mm
                    x.addcmul_(m, a, value=-1)
                    v.mul_(xx / yy)
                    # old x = new x + a m
                    m.mul_((xy - a * my) / yy).addcmul_(x, my / yy, value=-1)

                x, g = local(p), local_grad(p)
                m, v = local(state["exp_avg"]), local(state["exp_avg_sq"])
                if rows is None:
                    w = x.to(wide_dtype(x))
                    update(None, w, g.to(w.dtype), m, v)
                    if w is not x:
                        x.copy_(w)
                else:
                    update_rows(update, rows, x, g, m, v)


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
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "channel_dims": channel_dims,
                "channel_wise": channel_wise,
                "rt": rt,
            },
        )


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
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "channel_dims": channel_dims,
                "channel_wise": channel_wise,
            },
        )
