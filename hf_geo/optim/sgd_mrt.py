"""SGD-MRT."""

from typing import Any

import torch
from torch import Tensor

from ._base import GeometricOptimizer, check_number, local, local_grad, wide_dtype
from ._spheres import Rows, update_rows


class SGDMRT(GeometricOptimizer):
    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        channel_dims: list[int] | tuple[int, ...] | None = None,
        channel_wise: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "channel_dims": channel_dims,
                "channel_wise": channel_wise,
            },
        )

    def _completed(self, group):
        if "channel_dims" in group:
            group.setdefault("channel_wise", False)
        return group

    def _check_group(self, group: dict[str, Any]) -> None:
        check_number("lr", group["lr"], tensor=True)

    def _update(self, loss: Any) -> None:
        for group in self.param_groups:
            dims = (0,) if group["channel_wise"] else group["channel_dims"]
            lr, mu, damp, wd = group["lr"], group["momentum"], group["dampening"], group["weight_decay"]
            for p in self._with_gradient(group):
                rows = Rows.of(p, dims)
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(p, dtype=wide_dtype(p))
                    first = True
                else:
                    first = False

                def update(rows, x, g, b, *, lr=lr, mu=mu, damp=damp, wd=wd, first=first):
                    if wd:
                        g = g.add(x, alpha=wd)
                    b.mul_(mu).add_(g, alpha=1 - damp)
                    if rows is None:
                        x.sub_(b * lr)
                        return
                    xx, xb, bb = rows.sq_norm(x), rows.dot(x, b), rows.sq_norm(b)
                    yy = xx - 2 * lr * xb + lr * lr * bb
                    xy, by = xx - lr * xb, xb - lr * bb
                    x.sub_(b * lr)
                    b.mul_((xy - lr * by) / yy).addcmul_(x, by / yy, value=-1)

                x, g, b = local(p), local_grad(p), local(state["momentum_buffer"])
                if rows is None:
                    w = x.to(wide_dtype(x))
                    update(None, w, g.to(w.dtype), b)
                    if w is not x:
                        x.copy_(w)
                else:
                    update_rows(update, rows, x, g, b)
