"""Draws depend on their key alone; batches are split between positions."""

from collections import namedtuple

import pytest
import torch
from torch.utils._pytree import tree_map

from hf_geo.subspaces import Subspace, SubspaceConfig, draw_generator, split_batch
from tests.subspaces.cases import GoldenNetwork

Pair = namedtuple("Pair", ["inputs", "targets"])


def _positions(seed: int, rank: int, steps: range) -> list[list[float]]:
    subspace = Subspace.attach(GoldenNetwork(), SubspaceConfig("simplex", 3), model_init=GoldenNetwork)
    return [subspace.sample(draw_generator(seed, step, rank)).tolist() for step in steps]


def test_a_resumed_run_draws_what_an_unbroken_one_draws() -> None:
    whole = _positions(0, 0, range(8))
    torch.rand(100)
    assert _positions(0, 0, range(5, 8)) == whole[5:]
    others = _positions(0, 1, range(8)) + _positions(1, 0, range(8))
    assert len({tuple(p) for p in whole + others}) == 24


def test_neighbouring_keys_are_uncorrelated() -> None:
    values = torch.stack([torch.rand((), generator=draw_generator(0, step)) for step in range(4000)])
    assert values.mean().item() == pytest.approx(0.5, abs=0.02)
    assert torch.corrcoef(torch.stack([values[1:], values[:-1]]))[0, 1].abs().item() < 0.05


def test_drawing_leaves_the_global_generator_alone() -> None:
    subspace = Subspace.attach(GoldenNetwork(), SubspaceConfig("simplex", 3))
    state = torch.get_rng_state()
    subspace.sample(draw_generator(0, 0))
    subspace.regularizer(generator=draw_generator(0, 0))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "batch",
    [
        (torch.arange(5), torch.arange(10.0).view(5, 2)),
        {"pixels": torch.ones(5, 2), "labels": torch.arange(5), "scale": 2.0, "temperature": torch.tensor(3)},
        {"nested": {"ids": [torch.arange(5), torch.arange(5)]}, "empty": {}, "none": [()]},
        Pair(torch.arange(5), [torch.arange(5)]),
    ],
    ids=["tuple", "dict", "nested", "named"],
)
def test_chunks_are_the_batch_in_order(batch: object) -> None:
    chunks = split_batch(batch, 2)
    assert len(chunks) == 2
    merged = tree_map(lambda *parts: torch.cat(parts) if getattr(parts[0], "ndim", 0) else parts[0], *chunks)
    torch.testing.assert_close(merged, batch)


def test_a_small_batch_gives_fewer_chunks_and_a_mixed_one_is_refused() -> None:
    assert [len(chunk) for chunk in split_batch(torch.arange(3), 8)] == [1, 1, 1]
    with pytest.raises(ValueError, match=r"sizes \[3, 4\]"):
        split_batch({"a": torch.zeros(3), "b": torch.zeros(4)}, 2)
    with pytest.raises(ValueError, match=r"sizes \[\]"):
        split_batch({"a": 1.0}, 2)
