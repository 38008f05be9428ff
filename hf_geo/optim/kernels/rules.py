"""The methods' updates of one row as linear combinations, for the Triton kernels of `programs`.

Every method but Adam moves a row x with gradient g and momentum m to

    x' = a x + b g + c m,    m' = d x + e g + f m

where the six numbers follow from the dot products of x, g and m and from the row's second moment v. A rule takes the six
products, v, Adam's bias corrections c1 and c2, the row's number of elements n, the learning rate, and up to four settings;
it returns a to f and the new v. The equations, and what the letters mean, stand in the docstrings of the optimizers.
"""

import triton
import triton.language as tl

from .great_circles import TINY
from .rows import SMALLEST_NORM

_TINY = tl.constexpr(TINY)
_SMALLEST_SQUARE = tl.constexpr(SMALLEST_NORM**2)


@triton.jit
def dot(ax, ag, am, bx, bg, bm, xx, xg, xm, gg, gm, mm):
    """The dot product of two combinations of x, g and m."""
    return (
        ax * bx * xx
        + ag * bg * gg
        + am * bm * mm
        + (ax * bg + ag * bx) * xg
        + (ax * bm + am * bx) * xm
        + (ag * bm + am * bg) * gm
    )


@triton.jit
def sgd(xx, xg, xm, gg, gm, mm, v, c1, c2, n, lr, momentum, undamped, weight_decay, nesterov):
    """SGD as in torch; `undamped` is 1 - dampening."""
    # b = momentum m + undamped (g + weight_decay x)
    bx, bg, bm = undamped * weight_decay, undamped, momentum
    # x' = x - lr b, or with Nesterov's momentum x - lr (g + weight_decay x + momentum b)
    ahead = tl.where(nesterov != 0, momentum, 1.0)
    now = tl.where(nesterov != 0, 1.0, 0.0)
    a = 1 - lr * (now * weight_decay + ahead * bx)
    return a, -lr * (now + ahead * bg), -lr * ahead * bm, bx, bg, bm, v


@triton.jit
def sgd_mrt(xx, xg, xm, gg, gm, mm, v, c1, c2, n, lr, momentum, undamped, weight_decay, unused):
    # b = momentum m + undamped (g + weight_decay x)
    bx, bg, bm = undamped * weight_decay, undamped, momentum
    # x' = x - lr b
    a, b, c = 1 - lr * bx, -lr * bg, -lr * bm
    square = tl.maximum(dot(a, b, c, a, b, c, xx, xg, xm, gg, gm, mm), _SMALLEST_SQUARE)
    # m' = b - (b.x') / |x'|^2 x'
    radial = dot(bx, bg, bm, a, b, c, xx, xg, xm, gg, gm, mm) / square
    return a, b, c, bx - radial * a, bg - radial * b, bm - radial * c, v


@triton.jit
def adam_s(xx, xg, xm, gg, gm, mm, v, c1, c2, n, lr, beta1, beta2, eps, weight_decay):
    # m = beta1 m + (1 - beta1) (g + weight_decay x),  v = beta2 v + (1 - beta2) |g + weight_decay x|^2
    mx, mg, m_ = (1 - beta1) * weight_decay, 1 - beta1, beta1 + 0 * xx
    v = beta2 * v + (1 - beta2) * tl.maximum(gg + weight_decay * (2 * xg + weight_decay * xx), 0.0)
    # x' = x - lr sqrt(n) (m / c1) / (sqrt(v / c2) + eps)
    rate = lr * tl.sqrt(n * c2) / (c1 * (tl.sqrt(v) + eps * tl.sqrt(c2)))
    return 1 - rate * mx, -rate * mg, -rate * m_, mx, mg, m_, v


@triton.jit
def adam_srt(xx, xg, xm, gg, gm, mm, v, c1, c2, n, lr, beta1, beta2, eps, weight_decay):
    a, b, c, mx, mg, m_, v = adam_s(xx, xg, xm, gg, gm, mm, v, c1, c2, n, lr, beta1, beta2, eps, weight_decay)
    square = tl.maximum(dot(a, b, c, a, b, c, xx, xg, xm, gg, gm, mm), _SMALLEST_SQUARE)
    # m' = (m - (m.x') / |x'|^2 x') |x'|^2 / (|x'|^2 + eps),  v' = v |x|^2 / (|x'|^2 + eps)
    radial = dot(mx, mg, m_, a, b, c, xx, xg, xm, gg, gm, mm) / square
    scale = square / (square + eps)
    d, e, f = scale * (mx - radial * a), scale * (mg - radial * b), scale * (m_ - radial * c)
    return a, b, c, d, e, f, v * xx / (square + eps)


@triton.jit
def _tangent(xx, xg, gg, clip):
    """The clipped tangent gradient as hx x + hg g, the norm of x, and the square of the length of h."""
    norm = tl.sqrt(xx) + _TINY
    # h = g - (y.g) y for y = x / |x|
    along = -xg / (norm * norm)
    square = tl.maximum(gg + along * (2 * xg + along * xx), 0.0)
    factor = tl.minimum(clip / tl.maximum(tl.sqrt(square), _SMALLEST_SQUARE), 1.0)
    return factor * along, factor, norm, factor * factor * square


@triton.jit
def sgd_g(xx, xg, xm, gg, gm, mm, v, c1, c2, n, lr, momentum, clip, unused, unused_too):
    hx, hg, norm, _ = _tangent(xx, xg, gg, clip)
    # d = -momentum m - lr h, as m is -tau
    dx, dg, dm = -lr * hx, -lr * hg, -momentum + 0 * xx
    length = tl.sqrt(tl.maximum(dot(dx, dg, dm, dx, dg, dm, xx, xg, xm, gg, gm, mm), 0.0))
    cos, sin = tl.cos(length), tl.sin(length)
    u = 1 / (length + _TINY)
    # y' = y cos|d| + u d sin|d|,  tau' = u |d| d cos|d| - y |d| sin|d|
    keep, move = u * sin, -u * length * cos
    return cos / norm + keep * dx, keep * dg, keep * dm, length * sin / norm + move * dx, move * dg, move * dm, v


@triton.jit
def adam_g(xx, xg, xm, gg, gm, mm, v, c1, c2, n, lr, beta1, beta2, eps, clip):
    hx, hg, norm, square = _tangent(xx, xg, gg, clip)
    # m = beta1 m + (1 - beta1) h,  v' = beta2 v + (1 - beta2) |h|^2
    mx, mg, m_ = (1 - beta1) * hx, (1 - beta1) * hg, beta1 + 0 * xx
    v = beta2 * v + (1 - beta2) * square
    # d = -rate m
    rate = lr * tl.sqrt(c2) / (c1 * tl.sqrt(v + eps))
    m_norm = tl.sqrt(tl.maximum(dot(mx, mg, m_, mx, mg, m_, xx, xg, xm, gg, gm, mm), 0.0))
    length = rate * m_norm
    cos, sin = tl.cos(length), tl.sin(length)
    u = rate / (length + _TINY)  # the unit vector along d is -u m
    # y' = y cos|d| - u m sin|d|,  m' = m + u |m|^2 (y sin|d| - u m (1 - cos|d|))
    turn = u * m_norm * m_norm
    keep = 1 - turn * u * (1 - cos)
    a, d = cos / norm - u * sin * mx, turn * sin / norm + keep * mx
    return a, -u * sin * mg, -u * sin * m_, d, keep * mg, keep * m_, v


@triton.jit
def fromage(xx, xg, xm, gg, gm, mm, v, c1, c2, n, lr, p_bound, unused, unused_too, unused_also):
    """`v` is the norm at the start, which `p_bound` multiplies; 0 is no bound."""
    keep = 1 / tl.sqrt(1 + lr * lr)
    relative = tl.where((xx > 0) & (gg > 0), tl.sqrt(xx) / tl.sqrt(tl.where(gg == 0, 1.0, gg)), 1.0)
    a, b = keep + 0 * xx, -keep * lr * relative
    norm = tl.sqrt(tl.maximum(a * a * xx + 2 * a * b * xg + b * b * gg, 0.0))
    shrink = tl.where((p_bound > 0) & (norm > p_bound * v), p_bound * v / tl.maximum(norm, _SMALLEST_SQUARE), 1.0)
    return shrink * a, shrink * b, 0 * xx, 0 * xx, 0 * xx, 0 * xx, v


@triton.jit
def alig(xx, xg, xm, gg, gm, mm, v, c1, c2, n, size, momentum, adjusted, unused, unused_too):
    """With `adjusted`, the momentum holds gradients and not steps."""
    # b = momentum m + inner g,  x' = x - outer (inner g + momentum b)
    inner, outer = tl.where(adjusted != 0, 1.0, size), tl.where(adjusted != 0, size, 1.0)
    b = -outer * inner * (1 + momentum)
    return 1 + 0 * size, b, -outer * momentum * momentum, 0 * size, inner, momentum + 0 * size, v


@triton.jit
def scale(xx, xg, xm, gg, gm, mm, v, c1, c2, n, factor, unused, unused_too, unused_also, unused_again):
    return factor, 0 * factor, 0 * factor, 0 * factor, 0 * factor, 0 * factor, v
