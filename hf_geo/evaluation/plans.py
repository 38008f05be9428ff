"""Chooses the positions of a subspace to evaluate, and the ensembles of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_geo.subspaces import Subspace, draw_generator


@dataclass(frozen=True)
class Plan:
    """Positions and ensembles.

    Args:
        positions: As `Subspace.set_position` takes them.
        ensembles: Indices of positions.
        grid: How many of the first positions are on the grid; the others were drawn as in training.
    """

    positions: list[Tensor]
    ensembles: list[tuple[int, ...]]
    grid: int

    def coefficients(self, subspace: Subspace) -> list[Tensor]:
        return [subspace.config.shape.coefficients(position) for position in self.positions]


def plan_walk(subspace: Subspace, count: int, seed: int = 0, draws: int | None = None) -> Plan:
    """Chooses positions and ensembles.

    - Line and curve: `count` evenly spaced positions; ensembles of each pair a and 1 - a.
    - Simplex: the control points and the centre; then, for three points, the rest of the finest triangular lattice that
      keeps within `count`, else draws up to `count`. Ensembles of the first two, three, ... of all control points.
    - Simplex and layer-wise: also `draws` positions drawn as in training, and the ensembles of the first two, three, ... of
      them.

    Args:
        subspace: The subspace to walk.
        count: Positions of the grid; at least 2, for a simplex at least its control points and the centre.
        seed: Seed of the draws.
        draws: By default `num_points` of a layer-wise subspace and none of any other.

    Raises:
        ValueError: `count` is too small, or there are draws of a line or curve that is not layer-wise.
    """
    config = subspace.config
    points = config.num_points
    least = 2 if config.shape.is_path else points + 1
    if count < least:
        raise ValueError(
            f"The walk of a {config.kind} of {points} points takes {least} positions or more, not {count}."
        )
    generator = draw_generator(seed)
    if config.shape.is_path:
        positions = list(even_positions(count))
        ensembles = [(i, count - 1 - i) for i in range(count // 2)]
    else:
        corners = torch.eye(points, dtype=torch.float64)
        inner = _lattice(count) if points == 3 else config.shape.draw((count - points - 1,), points, generator)
        positions = [*corners, config.shape.centre(points), *inner]
        ensembles = [tuple(range(size)) for size in range(2, points + 1)]
    grid = len(positions)
    if draws is None:
        draws = points if config.layerwise else 0
    elif config.shape.is_path and not config.layerwise:
        raise ValueError(
            f"The {config.kind} is walked from end to end: --draws is for simplexes and layer-wise subspaces."
        )
    layers = (len(subspace.layer_names),) if config.layerwise else ()
    positions += [config.shape.draw(layers, points, generator) for _ in range(draws)]
    ensembles += [tuple(range(grid, grid + size)) for size in range(2, draws + 1)]
    return Plan(positions, ensembles, grid)


def even_positions(count: int) -> Tensor:
    """Evenly spaced positions from 0 to 1; of an odd count the middle one is 0.5 exactly, which `torch.linspace` may miss."""
    return torch.arange(count, dtype=torch.float64) / (count - 1)


def _lattice(limit: int) -> Tensor:
    """The finest triangular lattice that has at most `limit` points with its corners and the centre, but without these."""

    def size(steps: int) -> int:
        return (steps + 1) * (steps + 2) // 2 + (steps % 3 != 0)  # every third lattice has the centre itself

    steps = max(s for s in range(1, limit) if size(s) <= limit)
    inner = [
        (i, j, steps - i - j)
        for i in range(steps + 1)
        for j in range(steps + 1 - i)
        if max(i, j, steps - i - j) < steps and not i == j == steps - i - j
    ]
    return torch.tensor(inner, dtype=torch.float64).view(-1, 3) / steps


def group_positions(count: int, ensembles: Sequence[Sequence[int]], limit: int) -> Iterator[list[int]]:
    """Yields positions in groups of at most `limit`, with the members of an ensemble together.

    Raises:
        ValueError: Ensembles that share members have more of them, or `limit` is below one.
    """
    if limit < 1:
        raise ValueError(f"positions_at_once is one or more; got {limit}.")
    blocks = [{i} for i in range(count)]
    for members in ensembles:
        joined = [block for block in blocks if block & set(members)]
        blocks = [block for block in blocks if block not in joined] + [set().union(*joined)]
    largest = max(map(len, blocks))
    if largest > limit:
        raise ValueError(
            f"{largest} positions are in ensembles with one another, so their predictions are needed at the same time: "
            f"--positions_at_once must be at least {largest}, not {limit}."
        )
    group: list[int] = []
    for block in sorted(blocks, key=min):
        if len(group) + len(block) > limit:
            yield group
            group = []
        group = group + sorted(block)
    yield group
