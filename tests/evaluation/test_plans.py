"""The positions at which a subspace is walked."""

import pytest
import torch

from hf_geo.evaluation.plans import Plan, group_positions, plan_walk
from hf_geo.subspaces import Subspace, SubspaceConfig
from tests.subspaces.cases import GoldenNetwork


@pytest.mark.parametrize(("count", "expected"), [(4, 4), (6, 4), (7, 7), (15, 10), (16, 16), (22, 22)])
def test_three_points_are_walked_on_a_lattice_with_the_centre(count: int, expected: int) -> None:
    subspace = Subspace.attach(GoldenNetwork(), SubspaceConfig("simplex"), model_init=GoldenNetwork)
    plan = plan_walk(subspace, count)
    rows = torch.stack(plan.positions)
    assert len({tuple(row) for row in (rows * 3600).round().tolist()}) == len(rows) == expected
    torch.testing.assert_close(rows.sum(-1), torch.ones(len(rows), dtype=torch.float64))
    torch.testing.assert_close(rows[3], torch.full((3,), 1 / 3, dtype=torch.float64))
    lattice = rows[4:] * {4: 1, 7: 2, 10: 3, 16: 4, 22: 5}[expected]
    torch.testing.assert_close(lattice, lattice.round())


def test_lines_are_walked_evenly_in_pairs_and_layer_by_layer() -> None:
    subspace = Subspace.attach(GoldenNetwork(), SubspaceConfig(layerwise=True), model_init=GoldenNetwork)
    plan: Plan = plan_walk(subspace, 5)
    assert [p.item() for p in plan.positions[:5]] == [0, 0.25, 0.5, 0.75, 1]
    assert plan.ensembles == [(0, 4), (1, 3), (5, 6)]
    assert [p.shape for p in plan.positions[plan.grid :]] == [(5,), (5,)]
    again = plan_walk(subspace, 5)
    assert all(torch.equal(p, q) for p, q in zip(plan.positions, again.positions, strict=True))


def test_draws_of_a_simplex_are_joined_into_growing_ensembles() -> None:
    subspace = Subspace.attach(GoldenNetwork(), SubspaceConfig("simplex", 4), model_init=GoldenNetwork)
    plan = plan_walk(subspace, 6, draws=4)
    assert (plan.grid, len(plan.positions)) == (6, 10)
    assert plan.ensembles[-3:] == [(6, 7), (6, 7, 8), (6, 7, 8, 9)]
    assert all(p.min() >= 0 and p.sum().item() == pytest.approx(1) for p in plan.positions[6:])
    with pytest.raises(ValueError, match="--positions_at_once must be at least 4, not 3"):
        next(group_positions(10, [(0, 1), *plan.ensembles[-3:]], 3))  # before the first group is worked on
    line = Subspace.attach(GoldenNetwork(), SubspaceConfig(), model_init=GoldenNetwork)
    with pytest.raises(ValueError, match="--draws is for simplexes and layer-wise"):
        plan_walk(line, 5, draws=2)


@pytest.mark.parametrize(("config", "count"), [(SubspaceConfig(), 1), (SubspaceConfig("simplex", 5), 5)])
def test_too_few_positions_are_refused(config: SubspaceConfig, count: int) -> None:
    subspace = Subspace.attach(GoldenNetwork(), config, model_init=GoldenNetwork)
    with pytest.raises(ValueError, match=f"positions or more, not {count}"):
        plan_walk(subspace, count)
