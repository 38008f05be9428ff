"""The papers' update rules in NumPy and float64, one weight or one group of weights at a time, written to be read.

Nothing is shared with the package: the sphere methods transport vectors with the formulas of Riemannian geometry (the
papers' equations), not with the projections that the package computes instead. The small constants that the authors'
code adds to norms before dividing are left out.
"""

import math
from collections.abc import Iterator
from itertools import product

import numpy as np

Array = np.ndarray


def groups(shape: tuple[int, ...], channel_dims: tuple[int, ...]) -> Iterator[tuple]:
    """Indices of the groups of weights that the axes `channel_dims` tell apart."""
    axes = {axis % len(shape) for axis in channel_dims}
    yield from product(*(range(n) if axis in axes else (slice(None),) for axis, n in enumerate(shape)))


class Fromage:
    """Bernstein et al., Algorithm 1, with the norm bound of their code."""

    def __init__(self, lr: float = 0.01, p_bound: float | None = None) -> None:
        self.lr, self.p_bound, self.bounds = lr, p_bound, {}

    def step(self, weights: list[Array], grads: list[Array], loss: float) -> None:
        for i, (w, g) in enumerate(zip(weights, grads, strict=True)):
            self.bounds.setdefault(i, np.linalg.norm(w))
            size, slope = np.linalg.norm(w), np.linalg.norm(g)
            relative = size / slope if size > 0 and slope > 0 else 1.0
            w[...] = (w - self.lr * relative * g) / math.hypot(1, self.lr)
            if self.p_bound is not None and np.linalg.norm(w) > self.p_bound * self.bounds[i]:
                w *= self.p_bound * self.bounds[i] / np.linalg.norm(w)


class AliG:
    """Berrada et al., equation (4), with Nesterov momentum as in their code, on the ball of radius `max_norm`."""

    def __init__(
        self, lr: float | None = None, momentum: float = 0.0, max_norm: float | None = None, eps: float = 1e-5
    ) -> None:
        self.lr, self.momentum, self.max_norm, self.eps, self.velocities = lr, momentum, max_norm, eps, {}

    def project(self, weights: list[Array]) -> None:
        norm = math.sqrt(sum((w**2).sum() for w in weights))
        if self.max_norm is not None and norm > self.max_norm:
            for w in weights:
                w *= self.max_norm / norm

    def step(self, weights: list[Array], grads: list[Array], loss: float) -> None:
        size = loss / (sum((g**2).sum() for g in grads) + self.eps)
        size = size if self.lr is None else min(size, self.lr)
        for i, (w, g) in enumerate(zip(weights, grads, strict=True)):
            velocity = self.momentum * self.velocities.get(i, 0.0) - size * g
            w += self.momentum * velocity - size * g
            self.velocities[i] = velocity
        self.project(weights)


def transport(vector: Array, start: Array, end: Array) -> Array:
    """The tangent part of `vector` at `start`, carried along the great circle to the direction of `end`.

    It keeps its component across the circle's plane; the component along the circle turns with it. The length is scaled
    by |start| / |end|, as that of a gradient of a scale-invariant function is.
    """
    here, there = start / np.linalg.norm(start), end / np.linalg.norm(end)
    tangent = vector - (vector * here).sum() * here
    along = there - (there * here).sum() * here
    sine = np.linalg.norm(along)
    if sine > 0:
        along /= sine
        cosine = (there * here).sum()
        component = (tangent * along).sum()
        tangent = tangent - component * along + component * (cosine * along - sine * here)
    return tangent * np.linalg.norm(start) / np.linalg.norm(end)


class SphericalAdam:
    """Roburin et al., Algorithm 1: AdamS, and with `rt` AdamSRT; plain Adam for groups of one weight."""

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        channel_dims: tuple[int, ...] | None = None,
        rt: bool = True,
    ) -> None:
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.channel_dims, self.rt, self.state, self.count = channel_dims, rt, {}, 0

    def step(self, weights: list[Array], grads: list[Array], loss: float) -> None:
        self.count += 1
        for i, (w, g) in enumerate(zip(weights, grads, strict=True)):
            everything = range(w.ndim) if self.channel_dims is None else self.channel_dims
            for index in groups(w.shape, tuple(everything)):
                w[index] = self.moved((i, str(index)), np.asarray(w[index]), np.asarray(g[index]))

    def moved(self, key: tuple, x: Array, g: Array) -> Array:
        beta1, beta2 = self.betas
        g = g + self.weight_decay * x
        m, v = self.state.get(key, (np.zeros_like(x), 0.0))
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * (g**2).sum()
        corrected = math.sqrt(v / (1 - beta2**self.count))
        new = x - self.lr * math.sqrt(x.size) * m / (1 - beta1**self.count) / (corrected + self.eps)
        if self.rt and x.size > 1:
            m = transport(m, x, new)
            v = v * (x**2).sum() / (new**2).sum()
        self.state[key] = m, v
        return new


class SGDMRT:
    """Roburin et al.: SGD whose momentum is transported; plain SGD for groups of one weight."""

    def __init__(
        self,
        lr: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        channel_dims: tuple[int, ...] | None = None,
    ) -> None:
        self.lr, self.momentum, self.dampening, self.weight_decay = lr, momentum, dampening, weight_decay
        self.channel_dims, self.momenta = channel_dims, {}

    def step(self, weights: list[Array], grads: list[Array], loss: float) -> None:
        for i, (w, g) in enumerate(zip(weights, grads, strict=True)):
            everything = range(w.ndim) if self.channel_dims is None else self.channel_dims
            for index in groups(w.shape, tuple(everything)):
                x, key = np.asarray(w[index]), (i, str(index))
                b = self.momentum * self.momenta.get(key, np.zeros_like(x))
                b = b + (1 - self.dampening) * (g[index] + self.weight_decay * x)
                new = x - self.lr * b
                self.momenta[key] = transport(b, x, new) if x.size > 1 else b
                w[index] = new


class Grassmann:
    """Cho and Lee, Algorithms 2 (SGD-G) and 3 (Adam-G, with `beta2`): each row of a weight is a point of the unit sphere."""

    def __init__(
        self,
        lr: float,
        momentum: float = 0.0,
        omega: float = 0.0,
        grad_clip: float | None = None,
        beta2: float | None = None,
        epsilon: float = 1e-8,
    ) -> None:
        self.lr, self.momentum, self.omega, self.grad_clip = lr, momentum, omega, grad_clip
        self.beta2, self.epsilon, self.state, self.count = beta2, epsilon, {}, 0

    def step(self, weights: list[Array], grads: list[Array], loss: float) -> None:
        self.count += 1
        for i, (w, grad) in enumerate(zip(weights, grads, strict=True)):
            points = w.reshape(len(w), -1)
            points /= np.linalg.norm(points, axis=1, keepdims=True)
            regularizer = 2 * self.omega * (points @ points.T @ points - points)
            slopes = grad.reshape(len(w), -1) + regularizer
            moved = [self.moved((i, row), y, g) for row, (y, g) in enumerate(zip(points, slopes, strict=True))]
            w[...] = np.stack(moved).reshape(w.shape)

    def moved(self, key: tuple, y: Array, g: Array) -> Array:
        h = g - (y * g).sum() * y
        if self.grad_clip is not None and np.linalg.norm(h) > self.grad_clip:
            h *= self.grad_clip / np.linalg.norm(h)
        m, v = self.state.get(key, (np.zeros_like(y), 0.0))
        if self.beta2 is None:
            m = self.momentum * m - self.lr * h
            move = m
        else:
            m = self.momentum * m + (1 - self.momentum) * h
            v = self.beta2 * v + (1 - self.beta2) * (h**2).sum()
            correction = math.sqrt(1 - self.beta2**self.count) / (1 - self.momentum**self.count)
            move = -self.lr * correction * m / math.sqrt(v + self.epsilon)
        angle = np.linalg.norm(move)
        new = y * math.cos(angle) + (move / angle * math.sin(angle) if angle > 0 else 0.0)
        self.state[key] = transport(m, y, new), v
        return new
