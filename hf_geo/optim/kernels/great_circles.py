"""One step of SGD-G and Adam-G for the rows of a weight: the reference, and a fast form of the same numbers.

`sgd_g` and `adam_g` follow Algorithms 2 and 3 of Cho & Lee (arXiv 1709.09603) and return new tensors. `fast_sgd_g` and
`fast_adam_g` update their arguments in place, in three operations on whole tensors after the projection. The letters:

    x, y   the rows of the weight, and the same rows scaled to norm 1
    g, h   the gradient, and its part that is tangent to the sphere at y, clipped
    m      minus the paper's tau (SGD-G) or the paper's m (Adam-G): both point along the gradient, as torch's buffers do
    v      the second moment, one number a row
    d, u   the displacement along the great circle, and its direction d / |d|
"""

import torch
from torch import Tensor

from .rows import Rows
from .shards import local, local_grad, split_over, wide_dtype

# Added to norms before dividing by them, as in the authors' code: rows are unit vectors up to it.
TINY = 1e-8


def clip_factor(norm: Tensor, clip: float | None) -> Tensor:
    """Factors that scale vectors of these norms down to the length `clip` if they are longer."""
    return torch.ones_like(norm) if clip is None else (clip / norm).clamp(max=1.0)


def tangent_gradient(y: Tensor, g: Tensor, rows: Rows, clip: float | None) -> Tensor:
    """The part of `g` that is tangent to the sphere at the unit rows `y`, clipped row by row."""
    h = g - rows.dot(y, g) * y
    return h * clip_factor(rows.norm(h), clip)


def sgd_g(
    x: Tensor, g: Tensor, m: Tensor, rows: Rows, lr: float | Tensor, momentum: float, clip: float | None
) -> tuple[Tensor, Tensor]:
    """SGD-G as the paper writes it: the new rows, and the new momentum."""
    # y = x / |x|
    y = x / (rows.norm(x) + TINY)
    h = tangent_gradient(y, g, rows, clip)
    # d = momentum tau - lr h
    d = -momentum * m - lr * h
    length = rows.norm(d)
    u = d / (length + TINY)
    # y' = y cos|d| + u sin|d|
    new_y = y * length.cos() + u * length.sin()
    # tau' = d cos|d| - y |d| sin|d|
    tau = u * length * length.cos() - y * length * length.sin()
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
    """Adam-G as the paper writes it: the new rows and both new moments; `scale` is lr with Adam's bias corrections."""
    # y = x / |x|
    y = x / (rows.norm(x) + TINY)
    h = tangent_gradient(y, g, rows, clip)
    # m = beta1 m + (1 - beta1) h
    m = beta1 * m + (1 - beta1) * h
    # v' = beta2 v + (1 - beta2) |h|^2
    new_v = beta2 * v + (1 - beta2) * rows.dot(h, h)
    # d = -scale m / sqrt(v' + eps)
    d = -scale / (new_v + eps).sqrt() * m
    length = rows.norm(d)
    u = d / (length + TINY)
    # y' = y cos|d| + u sin|d|
    new_y = y * length.cos() + u * length.sin()
    # m' = m - (u.m) (u (1 - cos|d|) + y sin|d|), which is m transported along d
    new_m = m - rows.dot(u, m) * (u * (1 - length.cos()) + y * length.sin())
    return new_y, new_m, new_v


def fast_sgd_g(
    x: Tensor, g: Tensor, m: Tensor, rows: Rows, lr: float | Tensor, momentum: float, clip: float | None
) -> None:
    """`sgd_g` in place."""
    norm = rows.norm(x) + TINY
    h = rows.project(g, x, norm)
    rate = lr * clip_factor(norm if clip is None else rows.norm(h), clip)
    # d = -(momentum m + rate h) = -factor m, from the m on that `mix` leaves.
    factor = mix(m, h, momentum, rate)
    length = rows.norm(m) * factor
    cos, sin = nonzero_cosine(length), length.sin()
    u_per_m = factor / (length + TINY)  # u = -u_per_m m
    # y' = x cos / norm - u_per_m m sin,  -tau' = x |d| sin / norm + u_per_m m |d| cos
    rotate(x, m, xx=cos / norm, xm=sin * u_per_m, mx=length * sin / norm, mm=length * cos * u_per_m)


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
    h_norm = rows.norm(h)
    clipping = clip_factor(h_norm, clip)
    v.lerp_((h_norm * clipping) ** 2, 1 - beta2)
    # The paper's m is factor m, from the m on that `mix` leaves, and d = -rate factor m.
    factor = mix(m, h, beta1, clipping * (1 - beta1))
    rate = scale / (v + eps).sqrt()
    m_norm = rows.norm(m) * factor
    length = rate * m_norm
    cos, sin = nonzero_cosine(length), length.sin()
    u_norm = length / (length + TINY)  # 1 up to TINY, and -(u.m) = u_norm m_norm
    # y' = x cos / norm + u sin,  m' = x u_norm m_norm sin / norm + factor m (1 - u_norm^2 (1 - cos))
    rotate(
        x,
        m,
        xx=cos / norm,
        xm=sin * rate * factor / (length + TINY),
        mx=sin * u_norm * m_norm / norm,
        mm=factor * (1 - u_norm * u_norm * (1 - cos)),
    )


def mix(m: Tensor, h: Tensor, keep: float, add: Tensor) -> Tensor:
    """Makes `m` the weighted mean of `m` and `h`, in one pass; `keep * m + add * h` is the returned factor times it."""
    factor = (add + keep).clamp(min=torch.finfo(m.dtype).tiny)
    m.lerp_(h, add / factor)
    return factor


def nonzero_cosine(angle: Tensor) -> Tensor:
    """The cosine, but at least the root of the precision, so that `rotate` may divide by it at a right angle."""
    cos = angle.cos()
    least = torch.finfo(cos.dtype).eps ** 0.5
    return torch.where(cos.abs() > least, cos, least)


def rotate(x: Tensor, m: Tensor, *, xx: Tensor, xm: Tensor, mx: Tensor, mm: Tensor) -> None:
    """Sets `x` to `x' = xx x - xm m` and `m` to `mx x + mm m`, row by row and in place."""
    x.mul_(xx).addcmul_(m, xm, value=-1)
    # In terms of the new x, as the old one is gone: x = (x' + xm m) / xx.
    m.mul_(mm + mx / xx * xm).addcmul_(x, mx / xx)


def check_whole(p: Tensor, omega: float) -> None:
    """Raises `RuntimeError` if a weight is cut into shards, whose rows the regularizer cannot compare."""
    if split_over(p):
        raise RuntimeError(
            f"omega={omega} compares all rows of a weight with each other, but one of shape {tuple(p.shape)} is cut into "
            "shards: set omega=0, or leave that weight out of sharding."
        )


def regularized_gradient(p: Tensor, omega: float) -> Tensor:
    """This process's part of the gradient, plus that of `omega / 2 * |Y Y^T - I|^2` for the unit rows Y of `p`."""
    x, g = local(p), local_grad(p)
    if not omega:
        return g
    rows = x.to(wide_dtype(x)).flatten(1)
    y = rows / (torch.linalg.vector_norm(rows, dim=1, keepdim=True) + TINY)
    # g + 2 omega (Y Y^T - I) Y
    deviation = y @ y.T - torch.eye(len(y), dtype=y.dtype, device=y.device)
    return g + 2 * omega * (deviation @ y).view_as(g)
