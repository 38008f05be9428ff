"""Weights whose rows live on spheres start there, and a network before its norms computes the same."""

import pytest
import torch

from tests.training.test_trainer import Normalized, make_trainer


@pytest.mark.parametrize("name", ["sgdg", "adamg"])
def test_rows_start_with_norm_1_and_stay_bit_for_bit_once_they_have(tmp_path, name: str) -> None:
    model, x = Normalized(), torch.randn(16, 8, dtype=torch.float64)
    before, rest = model(x)["logits"], model.out.weight.detach().clone()
    trainer = make_trainer(tmp_path, model, optim=name)
    trainer.create_optimizer()
    torch.testing.assert_close(model.hidden.weight.norm(dim=1), torch.ones(6, dtype=torch.float64))
    assert torch.equal(model.out.weight, rest), "rows that are on no sphere are left alone"
    # The norm's epsilon is all that sees the scale.
    torch.testing.assert_close(model(x)["logits"], before, rtol=1e-3, atol=1e-3)

    kept = model.hidden.weight.detach().clone().mul_(1 + 1e-7)
    with torch.no_grad():
        model.hidden.weight.copy_(kept)
    make_trainer(tmp_path, model, optim=name).create_optimizer()
    assert torch.equal(model.hidden.weight, kept)


@pytest.mark.parametrize("name", ["adamsrt", "sgdmrt"])
def test_methods_without_unit_rows_leave_them(tmp_path, name: str) -> None:
    model = Normalized()
    before = model.hidden.weight.detach().clone()
    make_trainer(tmp_path, model, optim=name).create_optimizer()
    assert torch.equal(model.hidden.weight, before)
