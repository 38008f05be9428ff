"""The Crammer-Singer loss: its formula by hand, its gradient, and where it is zero."""

import pytest
import torch

from hf_geo.losses import crammer_singer_loss


def test_value_and_gradient_are_those_of_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = (2 * torch.randn(64, 5, generator=generator, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(5, (64,), generator=generator)
    found = crammer_singer_loss(scores, labels)
    found.sum().backward()
    for row, label, value, gradient in zip(scores.tolist(), labels.tolist(), found.tolist(), scores.grad, strict=True):
        margins = [score + (j != label) for j, score in enumerate(row)]
        assert value == pytest.approx(max(margins) - row[label])
        expected = torch.zeros(5, dtype=torch.float64)
        expected[margins.index(max(margins))] += 1
        expected[label] -= 1
        assert torch.equal(gradient, expected)
    assert (found == 0).any() and (found > 1).any()


def test_half_precision_is_computed_in_float32() -> None:
    scores = torch.tensor([[3.0, 1.0], [1.0, 1.0]], dtype=torch.bfloat16)
    found = crammer_singer_loss(scores, torch.tensor([0, 1]))
    assert found.dtype == torch.float32 and found.tolist() == [0.0, 1.0]
