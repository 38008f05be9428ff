"""SGD-G and Adam-G."""

from typing import Any

import torch
from torch import Tensor

from ._base import GeometricOptimizer, bias_corrections, check_number, local, local_grad, wide_dtype
from ._spheres import Rows, update_rows


class _Grassmann(GeometricOptimizer):
    adam = False

    def _check_group(self, group: dict[str, Any]) -> None:
        check_number("lr", group["lr"], tensor=True)

    def _update(self, loss: Any) -> None:
        for group in self.param_groups:
            lr, mu, damp, wd = group["lr"], group["momentum"], group["dampening"], group["weight_decay"]
            for p in self._with_gradient(group):
                state = self.state[p]
                x, g = local(p), local_grad(p)
                if not group["grassmann"]:
                    w = x.to(wide_dtype(x))
                    g = g.to(w.dtype)
                    if wd:
                        g = g.add(w, alpha=wd)
                    if mu:
                        first = not state
                        if first:
                            state["momentum_buffer"] = torch.zeros_like(p, dtype=wide_dtype(p))
                        b = local(state["momentum_buffer"])
                        b.mul_(mu).add_(g, alpha=1 if first else 1 - damp)
                        g = g.add(b, alpha=mu) if group["nesterov"] else b
                    w.sub_(g * lr)
                    if w is not x:
                        x.copy_(w)
                    continue
                rows = Rows.of(p, (0,))
                if not state:
                    if self.adam:
                        state["step"] = torch.zeros(())
                        state["exp_avg"] = torch.zeros_like(p, dtype=wide_dtype(p))
                        state["exp_avg_sq"] = rows.zeros(p)
                    else:
                        state["momentum_buffer"] = torch.zeros_like(p, dtype=wide_dtype(p))
                w = x.to(wide_dtype(x))
                g = g.to(w.dtype)
                y = w / (rows.sq_norm(w).sqrt() + 1e-8)
                if group["omega"]:
                    flat = y.flatten(1)
                    gram = flat @ flat.T
                    gram.diagonal().sub_(1)
                    g = g + 2 * group["omega"] * (gram @ flat).view_as(g)
                h = g - rows.dot(g, y) * y
                if group["grad_clip"] is not None:
                    n = rows.sq_norm(h).sqrt()
                    h = h * torch.where(n > group["grad_clip"], group["grad_clip"] / n, 1.0)
                if self.adam:
                    state["step"] += 1
                    m, v = local(state["exp_avg"]), local(state["exp_avg_sq"])
                    m.lerp_(h, 1 - mu)
                    v.mul_(group["beta2"]).add_(rows.sq_norm(h), alpha=1 - group["beta2"])
                    ((c1, c2),) = bias_corrections([state["step"]], mu, group["beta2"])
                    a = -(lr / c1) / ((v + group["epsilon"])/c2).sqrt()
                    a = a.to(m.dtype)
                    d = a * m
                else:
                    m = local(state["momentum_buffer"])
                    m.mul_(mu).sub_(h * lr)
                    a = 1.0
                    d = m.clone()
                t = rows.sq_norm(d).sqrt()
                c, s = t.cos(), t.sin()
                u = d / (t + 1e-8)
                w.copy_(y * c + u * s)
                mn = rows.sq_norm(m).sqrt()
                if self.adam:
                    um = rows.dot(u, m)
                    m.sub_(um * ((1 - c) * u + s * y))
                else:
                    m.copy_((u * c - y * s) * t)
                if w is not x:
                    x.copy_(w)


class SGDG(_Grassmann):
    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        grassmann: bool = False,
        omega: float = 0.0,
        grad_clip: float | None = None,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "grassmann": grassmann,
                "omega": omega,
                "grad_clip": grad_clip,
            },
        )


class AdamG(_Grassmann):
    adam = True

    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        grassmann: bool = False,
        omega: float = 0.0,
        grad_clip: float | None = None,
        beta2: float = 0.99,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "grassmann": grassmann,
                "omega": omega,
                "grad_clip": grad_clip,
                "beta2": beta2,
                "epsilon": epsilon,
            },
        )
