"""Each addressing operation against loops written from the paper, and the laws that the paper states of it."""

import numpy as np
import pytest
import torch

from hf_geo.models.dnc import addressing
from tests.models.dnc import oracle

B, N, W, R = 3, 7, 5, 2
torch.manual_seed(0)


def rand(*shape: int) -> torch.Tensor:
    return torch.rand(B, *shape, dtype=torch.float64)


def shares(*shape: int) -> torch.Tensor:
    """Weightings, whose sums are at most 1."""
    return rand(*shape).softmax(-1) * rand(*shape[:-1], 1)


MEMORY, USED, GATES = rand(N, W) - 0.5, rand(N), rand(R)
READS, WRITES, PRECEDENCE = shares(R, N), shares(1, N), shares(1, N)
LINKS = addressing.temporal_links(torch.zeros(B, 1, N, N, dtype=torch.float64), PRECEDENCE, WRITES)
KEYS, STRENGTHS, MODES = rand(R, W) - 0.5, 1 + 3 * rand(R), rand(R, 3).softmax(-1)

# Operation, its arguments, and what the oracle gives for sequence b of them, as arrays.
ROWS = {
    "content_weighting": (
        (MEMORY, KEYS, STRENGTHS),
        lambda m, k, s: [oracle.content_weighting(m, *p) for p in zip(k, s, strict=True)],
    ),
    "retention": ((GATES, READS), oracle.retention),
    "usage": ((USED, WRITES, rand(N)), lambda u, w, kept: oracle.usage(u, w[0], kept)),
    "allocation_weighting": ((USED,), oracle.allocation_weighting),
    "allocate": ((USED, rand(1)), lambda u, g: [oracle.allocation_weighting(u)]),
    "write_weighting": ((shares(1, N), WRITES, rand(1), rand(1)), lambda c, a, ga, gw: gw * (ga * a + (1 - ga) * c)),
    "write": ((MEMORY, WRITES, rand(1, W), rand(1, W)), lambda m, w, e, v: oracle.write(m, w[0], e[0], v[0])),
    "temporal_links": ((LINKS, PRECEDENCE, shares(1, N)), lambda k, p, w: [oracle.temporal_links(k[0], p[0], w[0])]),
    "next_precedence": ((PRECEDENCE, WRITES), lambda p, w: [oracle.next_precedence(p[0], w[0])]),
    "read_weighting": (
        (LINKS, READS, shares(R, N), MODES),
        lambda k, r, c, m: [oracle.read_weighting(k[0], *p) for p in zip(r, c, m, strict=True)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_an_operation_is_the_papers(name: str) -> None:
    arguments, expected = ROWS[name]
    found = getattr(addressing, name)(*arguments)
    for b in range(B):
        loops = np.array(expected(*(tensor[b].numpy() for tensor in arguments)))
        np.testing.assert_allclose(found[b].numpy(), loops, atol=2e-5)


def is_weighting(weights: torch.Tensor, whole: bool = False) -> bool:
    """Whether each row has no negative entry and a sum of at most 1, or of exactly 1."""
    total = weights.sum(-1)
    return bool((weights >= 0).all() and (total <= 1 + 1e-9).all() and (not whole or total.min() > 1 - 1e-9))


def test_laws_of_weightings_usage_and_links() -> None:
    """Over steps on end, each from what the one before left."""
    used, links, precedence, written = USED, LINKS, PRECEDENCE, WRITES
    for _ in range(10):
        used = addressing.usage(used, written, addressing.retention(rand(R), shares(R, N)))
        assert ((used >= 0) & (used <= 1)).all()
        content = addressing.content_weighting(rand(N, W), rand(1, W), 1 + rand(1))
        allocated = addressing.allocate(used, rand(1))
        written = addressing.write_weighting(content, allocated, rand(1), rand(1))
        links = addressing.temporal_links(links, precedence, written)
        precedence = addressing.next_precedence(precedence, written)
        read = addressing.read_weighting(links, shares(R, N), content.expand(-1, R, -1), rand(R, 3).softmax(-1))
        assert is_weighting(content, whole=True) and all(map(is_weighting, (allocated, written, precedence, read)))
        assert is_weighting(links) and is_weighting(links.mT) and not links.diagonal(dim1=-2, dim2=-1).any()


def test_free_locations_are_taken_in_the_order_of_their_use() -> None:
    used = torch.tensor([[0.9, 0.0, 1.0, 0.5], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    weights = addressing.allocation_weighting(used)
    torch.testing.assert_close(weights[0], torch.tensor([0.0, 1.0, 0.0, 0.0]), atol=1e-5, rtol=0)
    assert weights[1].max() == 0  # a full memory has nothing to give
    torch.testing.assert_close(weights[2], torch.tensor([1.0, 0.0, 0.0, 0.0]), atol=1e-5, rtol=0)
    two = addressing.allocate(used, torch.ones(3, 2))[0]
    torch.testing.assert_close(
        two[1], torch.tensor([0.05, 0.0, 0.0, 0.5]), atol=1e-5, rtol=0
    )  # the next ones on the list


def test_an_empty_memory_has_gradients() -> None:
    memory, keys = torch.zeros(1, N, W, requires_grad=True), torch.zeros(1, 1, W, requires_grad=True)
    used = torch.zeros(1, N, requires_grad=True)
    (addressing.content_weighting(memory, keys, torch.ones(1, 1)) * torch.arange(N)).sum().backward()
    (addressing.allocation_weighting(used) * torch.arange(N)).sum().backward()
    assert all(tensor.grad.isfinite().all() for tensor in (memory, keys, used))
