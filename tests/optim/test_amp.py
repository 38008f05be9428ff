"""Mixed precision: `torch.amp.GradScaler` with the loss as a positional closure."""

import pytest
import torch
from torch import Tensor

from tests.cases import Case, assert_same, clones, each_path, make_params


def loss_of(params: list[Tensor], number: int) -> Tensor:
    return sum((p - number).square().sum() for p in params) / 16


@each_path
def test_scaled_training_is_unscaled_training(case: Case):
    """Scales are powers of two, so not a bit may differ: the gradients, and the loss a method sees, are the unscaled ones."""
    params, expected = make_params(dtype=torch.float32), make_params(dtype=torch.float32)
    optimizer, reference = case.make(params), case.make(expected)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for number in range(4):
        optimizer.zero_grad()
        loss = loss_of(params, number)
        scaler.scale(loss).backward()
        assert scaler.step(optimizer, lambda loss=loss: loss) is loss
        scaler.update()

        reference.zero_grad()
        unscaled = loss_of(expected, number)
        unscaled.backward()
        reference.step(lambda unscaled=unscaled: unscaled)
    assert_same(params, expected)


@each_path
def test_an_overflow_skips_the_step(case: Case):
    params = make_params(dtype=torch.float32)
    optimizer = case.make(params)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    before = clones(params)
    for index, param in enumerate(params):
        param.grad = torch.full_like(param, torch.inf if index == 1 else 1.0)
    scaler.scale(torch.ones(()))
    scaler.step(optimizer, lambda: pytest.fail("the closure was called"))
    scaler.update()
    assert not optimizer.state
    assert scaler.get_scale() == 2.0**9
    assert_same(params, before)
