"""One second moment a group of weights, not one a weight."""

import pytest
import timm
import torch

from hf_geo.optim import create_optimizer
from tests.cases import CASES, Case, drive, make_params


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    values = [value for state in optimizer.state.values() for value in state.values()]
    assert all(isinstance(value, torch.Tensor) for value in values)
    return sum(value.untyped_storage().nbytes() for value in values)


@pytest.mark.parametrize("case", [c for c in CASES if c.second_moment], ids=str)
def test_one_second_moment_a_group(case: Case):
    params = make_params()
    optimizer = case.make(params)
    drive(case, optimizer, params, 2)
    for param in params[:2]:
        moment = optimizer.state[param][case.second_moment]
        assert moment.numel() == case.rows(param).shape[0]
        assert moment.untyped_storage().nbytes() == moment.numel() * moment.element_size()


def test_adamsrt_keeps_little_more_than_a_momentum():
    model = timm.create_model("resnet18", num_classes=10)
    optimizer = create_optimizer("adamsrt", model)
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    optimizer.step()
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    assert parameters <= state_bytes(optimizer) <= 1.02 * parameters
