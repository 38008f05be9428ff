"""Shapes of a subspace: from a position to the coefficients of the control points, and how positions are drawn.

A shape is one row of `SHAPES`; line, curve and simplex differ in nothing else. Control points are numbered along a
curve: start, bend, end.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

_TOLERANCE = 1e-5  # float32 weights sum to one only this closely


@dataclass(frozen=True)
class Shape:
    """A family of subspaces.

    Args:
        default_points: Control points when the user names no number.
        allows: Whether it exists for a number of control points.
        requirement: That rule in words, for the error message.
        is_path: Whether a position is one number in [0, 1] (else it is a weight for every control point).
        coefficients: From positions (numbers, or rows of weights) to rows of coefficients, (..., num_points).
        pairs: From the number of control points to the pairs the regularizer may draw.
    """

    default_points: int
    allows: Callable[[int], bool]
    requirement: str
    is_path: bool
    coefficients: Callable[[Tensor], Tensor]
    pairs: Callable[[int], list[tuple[int, int]]]

    def draw(self, rows: tuple[int, ...], num_points: int, generator: torch.Generator | None) -> Tensor:
        """`rows` independent positions, uniform over [0, 1] or over the simplex (normalised exponentials); float64."""
        device = generator.device if generator is not None else "cpu"
        if self.is_path:
            return torch.rand(rows, dtype=torch.float64, generator=generator, device=device)
        weights = torch.empty((*rows, num_points), dtype=torch.float64, device=device).exponential_(generator=generator)
        return weights / weights.sum(-1, keepdim=True)

    def draw_pair(self, num_points: int, generator: torch.Generator | None, any_two: bool = False) -> tuple[int, int]:
        """Draws one of the pairs for the regularizer, or any two points; leaves the generator alone if there is only one."""
        pairs = list(combinations(range(num_points), 2)) if any_two else self.pairs(num_points)
        if len(pairs) == 1:
            return pairs[0]
        device = generator.device if generator is not None else "cpu"
        return pairs[int(torch.randint(len(pairs), (), generator=generator, device=device))]

    def centre(self, num_points: int) -> Tensor:
        """The middle of a line or curve, equal weights of a simplex."""
        value = 0.5 if self.is_path else [1 / num_points] * num_points
        return torch.tensor(value, dtype=torch.float64)

    def check(self, position: Tensor, num_points: int, num_layers: int | None) -> None:
        """Raises `ValueError` unless `position` is a position of this shape, or one for each of `num_layers` layers."""
        one = () if self.is_path else (num_points,)
        if position.shape != one and (num_layers is None or position.shape != (num_layers, *one)):
            expected = "a number in [0, 1]" if self.is_path else f"{num_points} weights that sum to one"
            layers = "" if num_layers is None else f", or a row of that for each of the {num_layers} layers"
            raise ValueError(f"A position here is {expected}{layers}; got a value of shape {tuple(position.shape)}.")
        if self.is_path:
            if not bool(((position >= 0) & (position <= 1)).all()):
                raise ValueError(f"A position on a line or curve lies in [0, 1]; got {position.tolist()}.")
        else:
            if not bool((position >= 0).all()):
                raise ValueError(f"The weights of a position in a simplex are not negative; got {position.tolist()}.")
            check_sum(position)


def check_sum(coefficients: Tensor) -> None:
    """Raises `ValueError` unless every row sums to one."""
    sums = coefficients.sum(-1)
    if not bool(((sums - 1).abs() <= _TOLERANCE).all()):
        raise ValueError(
            f"The weights of the control points sum to one; got {coefficients.tolist()}, sum {sums.tolist()}."
        )


def _line(t: Tensor) -> Tensor:
    return torch.stack([1 - t, t], -1)


def _curve(t: Tensor) -> Tensor:
    return torch.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], -1)


SHAPES = {
    "line": Shape(
        default_points=2,
        allows=lambda n: n == 2,
        requirement="exactly 2",
        is_path=True,
        coefficients=_line,
        pairs=lambda n: [(0, 1)],
    ),
    "curve": Shape(
        default_points=3,
        allows=lambda n: n == 3,
        requirement="exactly 3 (start, bend, end)",
        is_path=True,
        coefficients=_curve,
        pairs=lambda n: [(0, 2)],  # as in the paper, the two ends are pushed apart; the bend follows the loss
    ),
    "simplex": Shape(
        default_points=3,
        allows=lambda n: n >= 2,
        requirement="2 or more",
        is_path=False,
        coefficients=lambda weights: weights,
        pairs=lambda n: list(combinations(range(n), 2)),
    ),
}
