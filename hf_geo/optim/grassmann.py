"""SGD-G and Adam-G: each row of a weight moves on the unit sphere.

Cho, Lee: Riemannian approach to batch normalization. NeurIPS 2017, arXiv 1709.09603.
"""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from ._base import GeometricOptimizer, blocks, check_flag, check_number
from ._fused import batches, sgd_step
from ._shards import local, local_grad, split_over, zeros_like
from ._spheres import Rows
from .adam_srt import advance

# Added to norms before dividing by them, as in the authors' code.
TINY = 1e-8


class _Grassmann(GeometricOptimizer):
    def _check_group(self, group: dict[str, Any]) -> None:
        check_number(group, "lr", tensor=True)
        check_number(group, "momentum", below=1.0)
        for name in ("dampening", "weight_decay", "omega"):
            check_number(group, name)
        check_number(group, "grad_clip", positive=True, optional=True)
        check_flag(group, "nesterov")
        check_flag(group, "grassmann")
        if not group["grassmann"]:
            if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
                raise ValueError(
                    f"nesterov needs a momentum and no dampening, but they are {group['momentum']} and {group['dampening']}."
                )
            return
        for p in group["params"]:
            rows, columns = len(p) if p.ndim else 0, p[:1].numel() if p.ndim else 0
            if p.ndim < 2:
                raise ValueError(
                    f"grassmann=True needs weights of two axes or more, but one has the shape {tuple(p.shape)}."
                )
            if group["omega"] and rows > columns:
                raise ValueError(
                    f"omega={group['omega']} asks for orthogonal rows, but a weight of shape {tuple(p.shape)} has more rows "
                    f"({rows}) than columns ({columns}): put it into a group with omega=0 or grassmann=False."
                )

    def _update(self, loss: Any) -> None:
        for group, params in self._with_gradient():
            if not params:
                continue
            if group["grassmann"]:
                self._on_sphere(group, params)
            else:
                self._sgd(group, params)

    def _sgd(self, group: dict[str, Any], params: list[Tensor]) -> None:
        momentum, dampening = group["momentum"], group["dampening"]
        tensors = [[local(p) for p in params], [local_grad(p) for p in params]]
        if momentum:
            for p in params:
                if not self.state[p]:
                    buffer = self.state[p]["momentum_buffer"] = zeros_like(p)
                    # torch.optim.SGD does not dampen the first gradient: this makes up for it.
                    decayed = local_grad(p).add(local(p), alpha=group["weight_decay"])
                    local(buffer).copy_(decayed).mul_(dampening / momentum)
            tensors.append([local(self.state[p]["momentum_buffer"]) for p in params])
        settings = {k: group[k] for k in ("lr", "momentum", "dampening", "weight_decay", "nesterov")}
        for weights, grads, *buffers in batches(*tensors):
            sgd_step(weights, grads, *buffers or [[]], **settings)

    @abstractmethod
    def _on_sphere(self, group: dict[str, Any], params: list[Tensor]) -> None: ...

    def _gradient(self, group, p):
        x, g = local(p), local_grad(p)
        if not group["omega"]:
            return g
        if split_over(p):
            raise RuntimeError(
                f"omega={group['omega']} compares all rows of a weight, but one of shape {tuple(p.shape)} is cut into shards: "
                "set omega=0, or leave that weight out of sharding."
            )
        y = x.to(torch.promote_types(x.dtype, torch.float32)).flatten(1)
        y = y / (torch.linalg.vector_norm(y, dim=1, keepdim=True) + TINY)
        gram = y @ y.T
        gram.diagonal().sub_(1)
        return g + 2 * group["omega"] * (gram @ y).view_as(g)


def tangent(x: Tensor, g: Tensor, rows: Rows, clip: float | None) -> tuple[Tensor, Tensor, Tensor | float]:
    """The rows of `x` as unit vectors, the gradient's tangent part there, and the factor that clips it."""
    y = x / rows.norm(x).add_(TINY)
    h = torch.addcmul(g, y, rows.dot(y, g), value=-1)
    if clip is None:
        return y, h, 1.0
    norm = rows.norm(h)
    return y, h, torch.where(norm > clip, clip / norm, 1.0)


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
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "grassmann": grassmann,
            "omega": omega,
            "grad_clip": grad_clip,
        }
        super().__init__(params, defaults)

    def _on_sphere(self, group: dict[str, Any], params: list[Tensor]) -> None:
        for p in params:
            rows = Rows.of(p, (0,))
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = zeros_like(p)
            tensors = (local(p), self._gradient(group, p), local(self.state[p]["momentum_buffer"]))
            for x, g, m in blocks(rows.axis, *tensors):
                y, h, clip = tangent(x, g, rows, group["grad_clip"])
                m.mul_(group["momentum"])
                s = group["lr"] * clip
                if isinstance(s, Tensor):
                    m.addcmul_(h, s)
                else:
                    m.add_(h, alpha=s)
                t = rows.norm(m)
                c, s = t.cos(), t.sin()
                torch.mul(y, c, out=x)
                x.addcmul_(m, s / (t + TINY), value=-1)
                m.mul_(c * t / (t + TINY)).addcmul_(y, t * s)


class AdamG(_Grassmann):
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
        defaults = {
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
        }
        super().__init__(params, defaults)

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        check_number(group, "beta2", below=1.0)
        check_number(group, "epsilon")

    def _on_sphere(self, group: dict[str, Any], params: list[Tensor]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p]["step"] = torch.zeros((), device=p.device)
                self.state[p]["exp_avg"] = zeros_like(p)
                self.state[p]["exp_avg_sq"] = zeros_like(p, range(1, p.ndim))
        states = [self.state[p] for p in params]
        beta1, beta2 = group["momentum"], group["beta2"]
        corrections = advance([s["step"] for s in states], beta1, beta2)
        for p, state, c1, c2 in zip(params, states, *corrections, strict=True):
            rows = Rows.of(p, (0,))
            scale = group["lr"] * c2.sqrt() / c1
            tensors = (local(p), self._gradient(group, p), local(state["exp_avg"]), local(state["exp_avg_sq"]))
            for x, g, m, v in blocks(rows.axis, *tensors):
                y, h, clip = tangent(x, g, rows, group["grad_clip"])
                n = rows.norm(h)
                h.mul_(clip)
                n = n * clip
                m.lerp_(h, 1 - beta1)
                v.mul_(beta2).addcmul_(n, n, value=1 - beta2)
                a = scale / (v + group["epsilon"]).sqrt_()
                r = rows.norm(m)
                t = a * r
                c, s, q = t.cos(), t.sin(), t / (t + TINY)
                torch.mul(y, c, out=x)
                x.addcmul_(m, a * s / (t + TINY), value=-1)
                m.mul_(1 - q * q * (1 - c)).addcmul_(y, q * s * r)
