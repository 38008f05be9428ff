"""SGD-G and Adam-G: the rows of a weight are unit vectors that move along great circles.

Cho, Lee: Riemannian approach to batch normalization. NeurIPS 2017, arXiv 1709.09603.
"""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from ._base import GeometricOptimizer, batches, blocks, check_flag, check_number
from ._fused import count_step, lend, sgd_step
from ._shards import local, local_grad, split_over, wide_dtype, zeros_like
from ._spheres import Rows

# Added to norms before dividing by them, as in the authors' code: rows are unit vectors up to it.
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
        if group["grassmann"]:
            for p in group["params"]:
                check_shape(tuple(p.shape), group["omega"])
        elif group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError(
                "nesterov needs a momentum above 0 and no dampening, but "
                f"momentum={group['momentum']} and dampening={group['dampening']}."
            )

    def _update(self, loss: Any) -> None:
        for group, params in self._with_gradient():
            if params:
                (self._on_sphere if group["grassmann"] else self._sgd)(group, params)

    @abstractmethod
    def _on_sphere(self, group: dict[str, Any], params: list[Tensor]) -> None:
        """The method's step."""

    def _sgd(self, group: dict[str, Any], params: list[Tensor]) -> None:
        keys = ("momentum_buffer",) if group["momentum"] else ()
        self._ensure_state(params, **{key: lambda p: first_buffer(p, group) for key in keys})
        settings = {key: group[key] for key in ("lr", "momentum", "dampening", "weight_decay", "nesterov")}
        for batch in batches(params):
            for weights, grads, *buffers in lend(*self._tensors(batch, *keys)):
                sgd_step(weights, grads, *buffers or [[]], **settings)


def check_shape(shape: tuple[int, ...], omega: float) -> None:
    """Raises `ValueError` unless a weight of this shape has rows that may lie on spheres, and be orthogonal if `omega`."""
    rows, columns = torch.empty(shape, device="meta").flatten(1).shape if len(shape) > 1 else (0, 0)
    if len(shape) < 2 or columns == 1:
        raise ValueError(f"grassmann=True needs weights of several rows and columns, but one has the shape {shape}.")
    if omega and rows > columns:
        raise ValueError(
            f"omega={omega} asks for orthogonal rows, but a weight of shape {shape} has more rows ({rows}) than columns "
            f"({columns}): put it into a group with omega=0 or grassmann=False."
        )


def first_buffer(p: Tensor, group: dict[str, Any]) -> Tensor:
    """A momentum that makes up for the dampening of the first gradient, which `torch.optim.SGD` leaves undamped."""
    buffer = zeros_like(p)
    if group["dampening"]:
        decayed = local_grad(p).add(local(p), alpha=group["weight_decay"])
        local(buffer).copy_(decayed).mul_(group["dampening"] / group["momentum"])
    return buffer


def gradient(p: Tensor, omega: float) -> Tensor:
    """This process's part of the gradient, with that of `omega / 2 * |Y Y^T - I|^2` for the unit rows Y of `p`."""
    x, g = local(p), local_grad(p)
    if not omega:
        return g
    if split_over(p):
        raise RuntimeError(
            f"omega={omega} compares all rows of a weight with each other, but one of shape {tuple(p.shape)} is cut into "
            "shards: set omega=0, or leave that weight out of sharding."
        )
    y = x.to(wide_dtype(x)).flatten(1)
    y = y / (torch.linalg.vector_norm(y, dim=1, keepdim=True) + TINY)
    gram = y @ y.T
    gram.diagonal().sub_(1)
    return g + 2 * omega * (gram @ y).view_as(g)


def clip_factor(norm: Tensor, clip: float | None) -> Tensor:
    """What scales vectors of these norms to the length `clip` where they are longer."""
    return torch.ones_like(norm) if clip is None else (clip / norm).clamp_max_(1.0)


def blend(m: Tensor, h: Tensor, keep: float, take: Tensor) -> Tensor:
    """Makes `m` a multiple of `keep * m + take * h`, in one pass, and returns the factor that is missing."""
    factor = (take + keep).clamp_min_(torch.finfo(m.dtype).tiny)
    m.lerp_(h, take / factor)
    return factor


def cosine(angle: Tensor) -> Tensor:
    """The cosine, kept so far from zero that one may divide by it: a right angle is missed by the root of the precision."""
    cos = angle.cos()
    least = torch.finfo(cos.dtype).eps ** 0.5
    return torch.where(cos.abs() > least, cos, least)


def rotate(x: Tensor, m: Tensor, xx: Tensor, xm: Tensor, mx: Tensor, mm: Tensor) -> None:
    """Sets `x` to `xx * x - xm * m` and `m` to `mx * x + mm * m`, row by row."""
    x.mul_(xx).addcmul_(m, xm, value=-1)
    # From the new x, so that nothing needs the old one: x = (x' + xm * m) / xx.
    part = mx / xx
    m.mul_(torch.addcmul(mm, part, xm)).addcmul_(x, part)


def sgd_g(x: Tensor, g: Tensor, m: Tensor, rows: Rows, lr: float | Tensor, momentum: float, clip: float | None) -> None:
    """One step of SGD-G for the rows of `x`, in place. The momentum `m` is minus the paper's tau."""
    norm = rows.norm(x).add_(TINY)
    h = rows.project(g, x, norm)
    length = norm if clip is None else rows.norm(h)
    factor = blend(m, h, momentum, clip_factor(length, clip) * lr)
    angle = rows.norm(m).mul_(factor)
    cos, sin, padded = cosine(angle), angle.sin(), angle + TINY
    per_m = factor.div_(padded)
    rotate(x, m, cos / norm, sin * per_m, (sin * angle).div_(norm), cos.mul_(angle).mul_(per_m))


def adam_g(
    x: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    rows: Rows,
    scale: Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    clip: float | None,
) -> None:
    """One step of Adam-G for the rows of `x`, in place; `scale` is lr with Adam's bias corrections."""
    norm = rows.norm(x).add_(TINY)
    h = rows.project(g, x, norm)
    length = rows.norm(h)
    clipped = clip_factor(length, clip)
    v.lerp_(length.mul_(clipped).square_(), 1 - beta2)
    factor = blend(m, h, beta1, clipped.mul_(1 - beta1))
    a = scale / (v + eps).sqrt_()
    size = rows.norm(m).mul_(factor)
    angle = a * size
    cos, sin, padded = cosine(angle), angle.sin(), angle + TINY
    q = angle.div_(padded)
    xm = a.mul_(sin).mul_(factor).div_(padded)
    mm = factor.mul_(1 - q * q * (1 - cos))
    rotate(x, m, cos.div_(norm), xm, sin.mul_(q).mul_(size).div_(norm), mm)


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
        lr: Learning rate; a number or a 0-dim tensor. The paper has 0.2 on spheres and 0.01 elsewhere.
        momentum: In [0, 1).
        dampening, weight_decay, nesterov: Of the groups without `grassmann`; they mean nothing on spheres.
        grassmann: Whether a group's rows lie on spheres.
        omega: Weight of the orthogonality regularizer `omega / 2 * |Y Y^T - I|^2` over the rows Y of a weight; 0.1 in the
            paper. It cannot be computed on shards.
        grad_clip: Largest length of h, row by row; 0.1 in the paper; None for no bound.

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
        lr: float | Tensor,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        grassmann: bool = False,
        omega: float = 0.0,
        grad_clip: float | None = None,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        sphere = {"grassmann": grassmann, "omega": omega, "grad_clip": grad_clip}
        super().__init__(params, {**defaults, "nesterov": nesterov, **sphere})

    def _on_sphere(self, group: dict[str, Any], params: list[Tensor]) -> None:
        self._ensure_state(params, momentum_buffer=zeros_like)
        for p in params:
            rows = Rows.of(p, (0,))
            x, m = local(p), local(self.state[p]["momentum_buffer"])
            for block in blocks(rows.axis, x, gradient(p, group["omega"]), m):
                sgd_g(*block, rows, group["lr"], group["momentum"], group["grad_clip"])


class AdamG(_Grassmann):
    """Adam-G: Adam with one second moment a row, for weights whose rows are unit vectors, moving along great circles.

    In groups with `grassmann=True`, for each row y of a weight, with h as in `SGDG`, beta1 = momentum and step count k

        m <- beta1 * m + (1 - beta1) * h,  v <- beta2 * v + (1 - beta2) * |h|^2
        d <- -lr * sqrt(1 - beta2^k) / (1 - beta1^k) * m / sqrt(v + epsilon)
        y <- y cos|d| + d/|d| sin|d|,  m <- m transported along d

    In other groups it is SGD, as in torch, and not Adam.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate; a number or a 0-dim tensor. The paper has 0.05 on spheres and 0.01 elsewhere.
        momentum: In [0, 1); the first moment's decay on spheres.
        dampening, weight_decay, nesterov, grassmann, omega, grad_clip: As in `SGDG`.
        beta2: The second moment's decay, in [0, 1).
        epsilon: Added to the second moment inside the root.

    Raises:
        TypeError, ValueError: As `SGDG`.

    The state of a weight on spheres is `step`, `exp_avg` (m) and `exp_avg_sq` (v, one number a row).

    Differs from the authors' code: as `SGDG`.
    """

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
        defaults = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        sphere = {"grassmann": grassmann, "omega": omega, "grad_clip": grad_clip, "beta2": beta2, "epsilon": epsilon}
        super().__init__(params, {**defaults, "nesterov": nesterov, **sphere})

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        check_number(group, "beta2", below=1.0)
        check_number(group, "epsilon")

    def _on_sphere(self, group: dict[str, Any], params: list[Tensor]) -> None:
        self._ensure_state(
            params,
            step=lambda p: torch.zeros((), device=p.device),
            exp_avg=zeros_like,
            exp_avg_sq=lambda p: zeros_like(p, range(1, p.ndim)),
        )
        betas = group["momentum"], group["beta2"]
        corrections = count_step([self.state[p]["step"] for p in params], *betas)
        for p, c1, c2 in zip(params, *corrections, strict=True):
            rows, state = Rows.of(p, (0,)), self.state[p]
            scale = group["lr"] * c2.sqrt() / c1
            tensors = (local(p), gradient(p, group["omega"]), local(state["exp_avg"]), local(state["exp_avg_sq"]))
            for block in blocks(rows.axis, *tensors):
                adam_g(*block, rows, scale, *betas, group["epsilon"], group["grad_clip"])
