"""SGD-G and Adam-G: the rows of a weight are unit vectors that move along great circles.

Cho, Lee: Riemannian approach to batch normalization. NeurIPS 2017, arXiv 1709.09603.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._base import GeometricOptimizer, check_flag, check_number
from .kernels.blocks import blocks
from .kernels.fused import count_step
from .kernels.great_circles import TINY, adam_g, check_whole, fast_adam_g, fast_sgd_g, regularized_gradient, sgd_g
from .kernels.rows import Rows
from .kernels.shards import local, local_grad, wide_dtype, zeros_like


class _Grassmann(GeometricOptimizer):
    @torch.no_grad()
    def normalize_rows(self) -> None:
        """Scales the rows that live on spheres to norm 1, as `create_optimizer` does once.

        Each step does it too, but a model may be evaluated before the first step. Rows that have norm 1 up to rounding,
        as in a resumed run, stay bit for bit.
        """
        for p in (p for group in self.param_groups if group["grassmann"] for p in group["params"]):
            rows, weight = Rows.of(p, (0,)), local(p)
            x = weight.to(wide_dtype(weight))
            norm = rows.norm(x)
            is_off = (norm - 1).abs() > max(1e-3, torch.finfo(weight.dtype).eps)
            weight.copy_(torch.where(is_off, x / norm.clamp(min=TINY), x))

    def _check_group(self, group: dict[str, Any]) -> None:
        check_number(group, "lr", tensor=True)
        check_number(group, "momentum", below=1.0)
        for name in ("dampening", "weight_decay", "omega"):
            check_number(group, name)
        check_number(group, "grad_clip", positive=True, optional=True)
        check_flag(group, "nesterov")
        check_flag(group, "grassmann")
        if group["grassmann"]:
            for p in group["params"]:
                check_shape(tuple(p.shape), group["omega"])
        elif group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError(
                "nesterov needs a momentum above 0 and no dampening, but "
                f"momentum={group['momentum']} and dampening={group['dampening']}."
            )

    def _update(self, loss: Any) -> None:
        for group, params in self._groups_with_gradient():
            if params:
                step = self._step_on_spheres if group["grassmann"] else self._step_plainly
                step(group, params)

    @abstractmethod
    def _step_on_spheres(self, group: dict[str, Any], params: list[Tensor]) -> None:
        """Takes the method's step for weights whose rows lie on spheres."""

    def _step_plainly(self, group: dict[str, Any], params: list[Tensor]) -> None:
        keys = ("momentum_buffer",) if group["momentum"] else ()
        self._ensure_state(params, **{key: lambda p: first_buffer(p, group) for key in keys})
        self._step_sgd(group, params, keys)

    def _fuse_rows(
        self, group: dict[str, Any], params: list[Tensor], keys: Sequence[str | None]
    ) -> tuple[list[Any], list[tuple[Tensor, Rows]]]:
        """The tables for the fused kernels, and the other parameters with their rows."""
        rows_of = self._memory.remember("rows", params, lambda: {p: Rows.of(p, (0,)) for p in params})
        omega = group["omega"]
        if omega:
            self._memory.remember("whole", params, lambda: [check_whole(p, omega) for p in params])
        tables, others = self._fuse(group, params, keys, rows=rows_of, orthogonal=omega > 0)
        return tables, [(p, rows_of[p]) for p in others]


def check_shape(shape: tuple[int, ...], omega: float) -> None:
    """Raises `ValueError` unless a weight of this shape has rows for spheres, which can be orthogonal if `omega` is set."""
    rows, columns = (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (0, 0)
    if len(shape) < 2 or columns == 1:
        raise ValueError(f"grassmann=True needs weights of several rows and columns, but one has the shape {shape}.")
    if omega and rows > columns:
        raise ValueError(
            f"omega={omega} asks for orthogonal rows, but a weight of shape {shape} has more rows ({rows}) than columns "
            f"({columns}): put it into a group with omega=0 or grassmann=False."
        )


def first_buffer(p: Tensor, group: dict[str, Any]) -> Tensor:
    """A first momentum with which the first gradient counts in full, as `torch.optim.SGD` does not dampen that one."""
    buffer = zeros_like(p)
    if group["dampening"]:
        decayed = local_grad(p).add(local(p), alpha=group["weight_decay"])
        local(buffer).copy_(decayed).mul_(group["dampening"] / group["momentum"])
    return buffer


def copy_into(targets: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Writes each value into its target."""
    for target, value in zip(targets, values, strict=True):
        target.copy_(value)


class SGDG(_Grassmann):
    """SGD-G: SGD with momentum for weights whose rows are unit vectors, moving along great circles.

    In groups with `grassmann=True`, for each row y of a weight (axis 0; scaled to the norm 1 first) with gradient g

        h <- g - (y.g) y, scaled down to the length grad_clip if it is longer
        d <- momentum * tau - lr * h
        y <- y cos|d| + d/|d| sin|d|,  tau <- d cos|d| - y |d| sin|d|

    In other groups it is SGD, as in torch. The method is for weights that a normalization layer makes scale-invariant,
    with fewer rows than columns; `hf_geo.optim.param_groups` finds them.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate; a number or a tensor of one; the default is that of `torch.optim.SGD`. The paper has 0.2 on spheres and 0.01 elsewhere.
        momentum: In [0, 1).
        dampening, weight_decay, nesterov: As in torch, for the groups without `grassmann`; no effect on spheres.
        grassmann: Whether a group's rows lie on spheres.
        omega: Weight of the orthogonality regularizer `omega / 2 * |Y Y^T - I|^2` over the rows Y of a weight; 0.1 in the
            paper. It cannot be computed on shards.
        grad_clip: Largest length of h, row by row; 0.1 in the paper; None for no bound.
        fused: As in `Fromage`.

    Raises:
        TypeError: A setting is not of its kind.
        ValueError: A setting is out of its range; `grassmann` for a tensor of one axis; `omega` for more rows than columns.

    The state is `momentum_buffer`: -tau, which points along the gradient as torch's buffers do.

    Differs from the authors' code: the constructor's `omega` counts (theirs only counts in a group), gradients stay as
    they are, and rows may be sharded.

    Example:
        >>> groups = [{"params": convolutions, "grassmann": True, "lr": 0.2, "omega": 0.1, "grad_clip": 0.1}, {"params": rest}]
        >>> optimizer = SGDG(groups, lr=0.01, momentum=0.9, nesterov=True)
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        grassmann: bool = False,
        omega: float = 0.0,
        grad_clip: float | None = None,
        fused: bool | None = None,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        sphere = {"grassmann": grassmann, "omega": omega, "grad_clip": grad_clip}
        super().__init__(params, {**defaults, "nesterov": nesterov, **sphere, "fused": fused})

    def _step_on_spheres(self, group: dict[str, Any], params: list[Tensor]) -> None:
        self._ensure_state(params, momentum_buffer=zeros_like)
        tables, others = self._fuse_rows(group, params, ("momentum_buffer",))
        for table in tables:
            numbers = group["momentum"], group["grad_clip"] or math.inf
            table.step("sgd_g", group["lr"], numbers, has_m=True, omega=group["omega"])
        settings = group["lr"], group["momentum"], group["grad_clip"]
        for p, rows in others:
            tensors = local(p), regularized_gradient(p, group["omega"]), local(self.state[p]["momentum_buffer"])
            for x, g, m in blocks(rows.axis, *tensors):
                if torch.compiler.is_compiling():  # the compiler fuses the reference into one pass by itself
                    copy_into((x, m), sgd_g(x, g, m, rows, *settings))
                else:
                    fast_sgd_g(x, g, m, rows, *settings)


class AdamG(_Grassmann):
    """Adam-G: Adam with one second moment a row, for weights whose rows are unit vectors, moving along great circles.

    In groups with `grassmann=True`, for each row y of a weight, with h as in `SGDG`, beta1 = momentum and step count k

        m <- beta1 * m + (1 - beta1) * h,  v <- beta2 * v + (1 - beta2) * |h|^2
        d <- -lr * sqrt(1 - beta2^k) / (1 - beta1^k) * m / sqrt(v + epsilon)
        y <- y cos|d| + d/|d| sin|d|,  m <- m transported along d

    In other groups it is SGD as in torch, not Adam.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate; a number or a tensor of one; the default is that of `torch.optim.SGD`. The paper has 0.05 on spheres and 0.01 elsewhere.
        momentum: In [0, 1); the first moment's decay on spheres.
        dampening, weight_decay, nesterov, grassmann, omega, grad_clip: As in `SGDG`.
        beta2: The second moment's decay, in [0, 1).
        epsilon: Added to the second moment inside the root.
        fused: As in `Fromage`.

    Raises:
        TypeError, ValueError: As `SGDG`.

    The state of a weight on spheres is `step`, `exp_avg` (m) and `exp_avg_sq` (v, one number a row).

    Differs from the authors' code: as `SGDG`.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        grassmann: bool = False,
        omega: float = 0.0,
        grad_clip: float | None = None,
        beta2: float = 0.99,
        epsilon: float = 1e-8,
        fused: bool | None = None,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        sphere = {"grassmann": grassmann, "omega": omega, "grad_clip": grad_clip, "beta2": beta2, "epsilon": epsilon}
        super().__init__(params, {**defaults, "nesterov": nesterov, **sphere, "fused": fused})

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        check_number(group, "beta2", below=1.0)
        check_number(group, "epsilon")

    def _step_on_spheres(self, group: dict[str, Any], params: list[Tensor]) -> None:
        self._ensure_state(
            params,
            step=lambda p: torch.zeros((), device=p.device),
            exp_avg=zeros_like,
            exp_avg_sq=lambda p: zeros_like(p, range(1, p.ndim)),
        )
        betas = group["momentum"], group["beta2"]
        tables, others = self._fuse_rows(group, params, ("exp_avg", "exp_avg_sq", "step"))
        for table in tables:
            numbers = *betas, group["epsilon"], group["grad_clip"] or math.inf
            table.step("adam_g", group["lr"], numbers, has_m=True, has_v=True, betas=betas, omega=group["omega"])
        if not others:
            return
        corrections = count_step([self.state[p]["step"] for p, _ in others], *betas)
        for (p, rows), c1, c2 in zip(others, *corrections, strict=True):
            moments = (local(self.state[p][key]) for key in ("exp_avg", "exp_avg_sq"))
            tensors = local(p), regularized_gradient(p, group["omega"]), *moments
            settings = group["lr"] * c2.sqrt() / c1, *betas, group["epsilon"], group["grad_clip"]
            for x, g, m, v in blocks(rows.axis, *tensors):
                if torch.compiler.is_compiling():
                    copy_into((x, m, v), adam_g(x, g, m, v, rows, *settings))
                else:
                    fast_adam_g(x, g, m, v, rows, *settings)
