"""AdamSRT and AdamS: Adam with one second moment a group of scale-invariant weights, and moments that follow the sphere.

Roburin, de Mont-Marin, Bursuc, Marlet, Perez, Aubry: Spherical Perspective on Learning with Normalization Layers.
Neurocomputing 487 (2022), arXiv 2006.13382.
"""

from math import sqrt
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ._base import check_flag, check_number
from ._spheres import SphericalOptimizer
from .kernels.blocks import batches, blocks
from .kernels.fused import adam_step, count_step, kernel_ready
from .kernels.rows import SMALLEST_NORM, Rows
from .kernels.shards import zeros_like

STATE = ("exp_avg", "exp_avg_sq", "step")


class _SphericalAdam(SphericalOptimizer):
    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        check_number(group, "lr", tensor=True)
        check_number(group, "eps")
        check_number(group, "weight_decay")
        check_betas(group)

    def _update(self, loss: Any) -> None:
        for group, params in self._groups_with_gradient():
            flat, spherical, rows_of = self._split_by_geometry(group, params)
            moments = {"step": lambda p: torch.zeros((), device=p.device), "exp_avg": zeros_like}
            self._ensure_state(flat, **moments, exp_avg_sq=zeros_like)
            self._ensure_state(spherical, **moments, exp_avg_sq=lambda p, rows=rows_of: zeros_like(p, rows[p].dims))
            self._step_adam(group, flat)
            self._step_on_spheres(group, spherical, rows_of)

    def _step_adam(self, group: dict[str, Any], params: list[Tensor]) -> None:
        settings = {key: group[key] for key in ("lr", "betas", "eps", "weight_decay")}
        tables, others = self._fuse(group, params, STATE)
        for table in tables:
            table.adam(**settings)
        for batch in batches(others):
            for lists in kernel_ready(*self._local_tensors(batch, "exp_avg", "exp_avg_sq")):
                adam_step(*lists, [self.state[p]["step"] for p in batch], **settings)

    def _step_on_spheres(self, group: dict[str, Any], params: list[Tensor], rows_of: dict[Tensor, Rows]) -> None:
        beta1, beta2 = group["betas"]
        transports = group.get("rt", False)  # AdamS has no such setting
        tables, params = self._fuse(group, params, STATE, rows=rows_of)
        for table in tables:
            numbers = beta1, beta2, group["eps"], group["weight_decay"]
            rule = "adam_srt" if transports else "adam_s"
            table.step(rule, group["lr"], numbers, has_m=True, has_v=True, betas=group["betas"])
        if not params:
            return
        corrections = count_step([self.state[p]["step"] for p in params], beta1, beta2)
        columns = self._local_tensors(params, "exp_avg", "exp_avg_sq")
        for p, *tensors, c1, c2 in zip(params, *columns, *corrections, strict=True):
            # lr sqrt(d) (m / c1) / (sqrt(v / c2) + eps) is scale m / (sqrt(v) + eps sqrt(c2)).
            rows = rows_of[p]
            scale, eps = group["lr"] * sqrt(rows.size) * c2.sqrt() / c1, group["eps"] * c2.sqrt()
            for x, g, m, v in blocks(rows.axis, *tensors):
                if group["weight_decay"]:
                    g = g.add(x, alpha=group["weight_decay"])
                m.lerp_(g, 1 - beta1)  # m <- beta1 m + (1 - beta1) g
                v.lerp_(rows.norm(g).square_(), 1 - beta2)  # v <- beta2 v + (1 - beta2) |g|^2
                rate = scale / v.sqrt().add_(eps)
                old_norm = rows.norm(x) if transports else None
                x.addcmul_(m, rate, value=-1)  # x <- x - rate m
                if transports:
                    rescale_and_transport(x, m, v, old_norm, rows, group["eps"])


def check_betas(group: dict[str, Any]) -> None:
    """Makes `group["betas"]` a pair of floats in [0, 1), or raises."""
    betas = group["betas"]
    if not isinstance(betas, tuple | list) or any(isinstance(b, bool) or not isinstance(b, Real) for b in betas):
        raise TypeError(f"betas has to be a pair of numbers, not {betas!r}.")
    if len(betas) != 2 or not all(0 <= b < 1 for b in betas):
        raise ValueError(f"betas has to be a pair of numbers that are at least 0 and below 1, not {betas!r}.")
    group["betas"] = (float(betas[0]), float(betas[1]))


def rescale_and_transport(x: Tensor, m: Tensor, v: Tensor, old_norm: Tensor, rows: Rows, eps: float) -> None:
    """Moves both moments, in place, to the new point `x` from an old one of the norm `old_norm`."""
    norm = rows.norm(x).clamp_min_(SMALLEST_NORM)
    divisor = norm.square() + eps
    v.mul_(old_norm.square() / divisor)  # v <- v |x|^2 / (|x'|^2 + eps)
    m.copy_(rows.project(m, x, norm, norm.square() / divisor))  # m <- (m - (m.x') / |x'|^2 x') |x'|^2 / (|x'|^2 + eps)


class AdamSRT(_SphericalAdam):
    """AdamSRT: AdamS whose moments are rescaled and transported to the new point of the sphere.

    For each group x of d weights that `channel_dims` indexes, with gradient g (weight decay included), at step k

        m <- beta1 * m + (1 - beta1) * g,  v <- beta2 * v + (1 - beta2) * |g|^2
        x' <- x - lr * sqrt(d) * m / (1 - beta1^k) / (sqrt(v / (1 - beta2^k)) + eps)
        v <- v |x|^2 / |x'|^2,  m <- ((x.x') m - (m.x') x) / |x'|^2

    with one number v a group. The last line is the rescaling and transport ("RT") that AdamS leaves out; since x' differs
    from x by a multiple of m, the new m is m - (m.x') / |x'|^2 x', its projection at x', which is how it is computed.
    Groups of one weight, and parameters without `channel_dims`, take Adam's step.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate; a number or a tensor of one.
        betas: The moments' decays, in [0, 1).
        eps: Added to the root of the second moment, and to |x'|^2 in the divisions of the last line.
        weight_decay: Added to the gradient as `weight_decay * x`.
        channel_dims: The axes that index independent groups: `[0]` for the filters before a BatchNorm, `[]` for a whole
            tensor before a LayerNorm, None for plain Adam.
        channel_wise: True is `channel_dims=[0]`.
        rt: Whether to rescale and transport; False is AdamS.
        fused: As in `Fromage`.

    Raises:
        TypeError: A setting is not of its kind.
        ValueError: A setting is out of its range; `channel_dims` names an axis that a parameter lacks, or one twice.

    The state is `step`, `exp_avg` (m) and `exp_avg_sq` (v): one number a group, so about half of Adam's memory.

    Differs from the authors' code: v is not kept once a weight, gradients stay as they are, `step` takes a closure.

    Example:
        >>> groups = [{"params": convolutions, "channel_wise": True}, {"params": rest}]
        >>> optimizer = AdamSRT(groups, lr=1e-3, betas=(0.9, 0.99))
    """

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
        fused: bool | None = None,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(
            params, {**defaults, "channel_dims": channel_dims, "channel_wise": channel_wise, "rt": rt, "fused": fused}
        )

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        check_flag(group, "rt")


class AdamS(_SphericalAdam):
    """AdamS: Adam with one second moment a group of scale-invariant weights.

    For each group x of d weights that `channel_dims` indexes, with gradient g (weight decay included), at step k

        m <- beta1 * m + (1 - beta1) * g,  v <- beta2 * v + (1 - beta2) * |g|^2
        x <- x - lr * sqrt(d) * m / (1 - beta1^k) / (sqrt(v / (1 - beta2^k)) + eps)

    Groups of one weight, and parameters without `channel_dims`, take Adam's step.

    Args:
        params, lr, betas, eps, weight_decay, channel_dims, channel_wise, fused: As in `AdamSRT`.

    Raises:
        TypeError, ValueError: As `AdamSRT`.

    The state, and the differences from the authors' code, are those of `AdamSRT`.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        channel_dims: list[int] | tuple[int, ...] | None = None,
        channel_wise: bool = False,
        fused: bool | None = None,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(
            params, {**defaults, "channel_dims": channel_dims, "channel_wise": channel_wise, "fused": fused}
        )
