"""The steps of SGD-G and Adam-G for the rows of a weight: as the paper writes them, and in one pass over the memory.

`sgd_g` and `adam_g` are the methods. `fast_sgd_g` and `fast_adam_g` compute the same in place, with three operations on
whole tensors after the projection. `x` are the rows before they are scaled to norm 1, `g` is the gradient with the
regularizer's, and `m` is minus the paper's tau (SGD-G) or its m (Adam-G), which both point along the gradient.
"""

import torch
from torch import Tensor

from .rows import Rows

# Added to norms before dividing by them, as in the authors' code: rows are unit vectors up to it.
TINY = 1e-8


def clip_factor(norm: Tensor, clip: float | None) -> Tensor:
    """What scales vectors of these norms to the length `clip` where they are longer."""
    return torch.ones_like(norm) if clip is None else (clip / norm).clamp(max=1.0)


def tangent_gradient(y: Tensor, g: Tensor, rows: Rows, clip: float | None) -> Tensor:
    """h: the part of `g` that is tangent to the spheres at the unit rows `y`, clipped row by row."""
    h = g - rows.dot(y, g) * y
    return h * clip_factor(rows.norm(h), clip)


def sgd_g(
    x: Tensor, g: Tensor, m: Tensor, rows: Rows, lr: float | Tensor, momentum: float, clip: float | None
) -> tuple[Tensor, Tensor]:
    """SGD-G: the new rows and the new momentum."""
    y = x / (rows.norm(x) + TINY)
    h = tangent_gradient(y, g, rows, clip)
    # d <- momentum * tau - lr * h
    d = -momentum * m - lr * h
    angle = rows.norm(d)
    u = d / (angle + TINY)
    # y <- y cos|d| + d/|d| sin|d|,  tau <- d/|d| |d| cos|d| - y |d| sin|d|
    new_y = y * angle.cos() + u * angle.sin()
    tau = u * angle * angle.cos() - y * angle * angle.sin()
    return new_y, -tau


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
) -> tuple[Tensor, Tensor, Tensor]:
    """Adam-G: the new rows and both new moments; `scale` is lr with Adam's bias corrections."""
    y = x / (rows.norm(x) + TINY)
    h = tangent_gradient(y, g, rows, clip)
    # m <- beta1 * m + (1 - beta1) * h,  v <- beta2 * v + (1 - beta2) * |h|^2
    m = beta1 * m + (1 - beta1) * h
    v = beta2 * v + (1 - beta2) * rows.dot(h, h)
    # d <- -scale * m / sqrt(v + eps)
    d = -scale / (v + eps).sqrt() * m
    angle = rows.norm(d)
    u = d / (angle + TINY)
    # y <- y cos|d| + u sin|d|,  m <- m - (u.m) (u (1 - cos|d|) + y sin|d|)
    new_y = y * angle.cos() + u * angle.sin()
    new_m = m - rows.dot(u, m) * (u * (1 - angle.cos()) + y * angle.sin())
    return new_y, new_m, v


def fast_sgd_g(
    x: Tensor, g: Tensor, m: Tensor, rows: Rows, lr: float | Tensor, momentum: float, clip: float | None
) -> None:
    """`sgd_g` in place."""
    norm = rows.norm(x) + TINY
    h = rows.project(g, x, norm)
    take = clip_factor(norm if clip is None else rows.norm(h), clip) * lr
    per_m = blend(m, h, momentum, take)  # from here on d = -per_m * m
    angle = rows.norm(m) * per_m
    cos, sin = cosine(angle), angle.sin()
    u_per_m = per_m / (angle + TINY)
    rotate(x, m, xx=cos / norm, xm=sin * u_per_m, mx=angle * sin / norm, mm=angle * cos * u_per_m)


def fast_adam_g(
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
    """`adam_g` in place."""
    norm = rows.norm(x) + TINY
    h = rows.project(g, x, norm)
    length = rows.norm(h)
    clipped = clip_factor(length, clip)
    v.lerp_((length * clipped) ** 2, 1 - beta2)
    per_m = blend(m, h, beta1, clipped * (1 - beta1))  # from here on the paper's m is per_m * m
    rate = scale / (v + eps).sqrt()
    size = rows.norm(m) * per_m
    angle = rate * size
    cos, sin = cosine(angle), angle.sin()
    part = angle / (angle + TINY)  # |u|, and -(u.m) / |m|
    rotate(
        x,
        m,
        xx=cos / norm,
        xm=sin * rate * per_m / (angle + TINY),
        mx=sin * part * size / norm,
        mm=per_m * (1 - part * part * (1 - cos)),
    )


def blend(m: Tensor, h: Tensor, keep: float, take: Tensor) -> Tensor:
    """Makes `m` a multiple of `keep * m + take * h`, in one pass, and returns the factor that is missing."""
    factor = (take + keep).clamp(min=torch.finfo(m.dtype).tiny)
    m.lerp_(h, take / factor)
    return factor


def cosine(angle: Tensor) -> Tensor:
    """The cosine, kept so far from zero that one may divide by it: a right angle is missed by the root of the precision."""
    cos = angle.cos()
    least = torch.finfo(cos.dtype).eps ** 0.5
    return torch.where(cos.abs() > least, cos, least)


def rotate(x: Tensor, m: Tensor, *, xx: Tensor, xm: Tensor, mx: Tensor, mm: Tensor) -> None:
    """Sets `x` to `xx * x - xm * m` and `m` to `mx * x + mm * m`, row by row and in place."""
    x.mul_(xx).addcmul_(m, xm, value=-1)
    # From the new x, so that no copy of the old one is needed: x = (x' + xm * m) / xx.
    m.mul_(mm + mx / xx * xm).addcmul_(x, mx / xx)
