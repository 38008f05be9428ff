"""Weights whose rows live on spheres start there, and a network before its norms computes the same."""

import pytest
import torch
from torch import nn

from hf_geo.optim import create_optimizer


def network(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).to(dtype)


@pytest.mark.parametrize("name", ["sgdg", "adamg"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_rows_start_with_norm_1_and_stay_bit_for_bit_once_they_have(name: str, dtype: torch.dtype) -> None:
    model, x = network(dtype), torch.randn(16, 8, dtype=dtype)
    before, rest = model(x), model[3].weight.detach().clone()
    create_optimizer(name, model)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(model[0].weight.double().norm(dim=1), torch.ones(6).double(), rtol=eps, atol=eps)
    assert torch.equal(model[3].weight, rest), "rows that are on no sphere are left alone"
    if dtype is torch.float64:  # the norm's epsilon is all that sees the scale
        torch.testing.assert_close(model(x), before, rtol=1e-3, atol=1e-3)

    with torch.no_grad():
        model[0].weight.mul_(1 + 1e-7)
    kept = model[0].weight.detach().clone()
    create_optimizer(name, model)
    assert torch.equal(model[0].weight, kept)
