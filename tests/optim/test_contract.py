"""What every optimizer owes its caller, whatever its method."""

import pytest
import torch
from torch import Tensor

from hf_geo.optim import SGDMRT, AdamS, AdamSRT, list_optimizers
from tests.cases import (
    CASES,
    PATHS,
    SHAPES,
    Case,
    assert_same,
    clones,
    drive,
    each_bounded_path,
    each_case,
    each_path,
    make_gradient,
    make_loss,
    make_params,
)


def test_every_method_has_a_row():
    assert {case.name for case in CASES} >= set(list_optimizers())
    assert len({case.id for case in CASES}) == len(CASES)


@each_case
def test_every_parameter_moves(case: Case):
    params = make_params()
    optimizer = case.make(params)
    before = clones(params)
    drive(case, optimizer, params, 3)
    for param, old in zip(params, before, strict=True):
        assert torch.isfinite(param).all()
        assert not torch.equal(param, old)


@pytest.mark.parametrize("case", [c for c in PATHS if not c.projects], ids=str)
def test_a_group_added_before_the_first_step_counts_as_one_of_the_first(case: Case):
    params, expected = make_params(), make_params()
    weights, rest = case.groups(params)
    optimizer = case.method.cls([weights], **case.settings)
    optimizer.add_param_group(rest)
    drive(case, optimizer, params, 3)
    drive(case, case.make(expected), expected, 3)
    assert_same(params, expected)


@each_case
def test_settings_of_groups_count_as_settings_of_all(case: Case):
    params, expected = make_params(), make_params()
    reference = case.make(expected)
    groups = case.groups(params)
    for group, like in zip(groups, reference.param_groups, strict=True):
        group.update({key: value for key, value in like.items() if key != "params"})
    drive(case, case.method.cls(groups, lr=0.5), params, 3)
    drive(case, reference, expected, 3)
    assert_same(params, expected)


@pytest.mark.parametrize("cls", [AdamS, AdamSRT, SGDMRT])
def test_a_group_s_own_geometry_wins_however_it_is_given(cls: type):
    channels, layers = [{"params": make_params(SHAPES[:1])} for _ in range(2)]
    by_channel = {"channel_wise": True, "channel_dims": None}
    by_layer = {"channel_wise": False, "channel_dims": ()}
    for optimizer in (
        cls([{**channels, "channel_wise": True}, layers], channel_dims=[]),
        cls([channels, {**layers, "channel_dims": []}], channel_wise=True),
    ):
        for group, expected in zip(optimizer.param_groups, (by_channel, by_layer), strict=True):
            assert expected.items() <= group.items()


@pytest.mark.parametrize("case", [c for c in PATHS if not c.projects], ids=str)
def test_a_group_steps_by_its_own_settings(case: Case):
    params, frozen = make_params(), clones(make_params())
    optimizer = case.make(params)
    optimizer.param_groups[1]["lr"] = 0.0
    drive(case, optimizer, params, 2)
    assert all(not torch.equal(p, f) for p, f in zip(params[:2], frozen[:2], strict=True))
    assert_same(params[2:], frozen[2:], rtol=1e-14)


@each_path
def test_parameters_without_gradient_stay(case: Case):
    params = make_params()
    optimizer = case.make(params)
    before = clones(params)
    case.step(optimizer)
    assert_same(params, before)
    params[0].grad = make_gradient(params[0], 0, 0)
    case.step(optimizer)
    assert not torch.equal(params[0], before[0])
    assert not any(optimizer.state.get(p) for p in params[1:])
    if not case.projects:
        assert_same(params[1:], before[1:])


@each_path
def test_parameters_that_appear_later(case: Case):
    """Those that get a gradient from the third step on begin there as in a new optimizer."""
    params = make_params()
    optimizer = case.make(params)
    drive(case, optimizer, params[:2], 2)
    before = clones(params[2:])
    drive(case, optimizer, params, 3, start=2)
    assert all(torch.isfinite(p).all() for p in params)
    assert all(not torch.equal(p, b) for p, b in zip(params[2:], before, strict=True))
    if not case.coupled:
        fresh_params = clones(make_params())
        drive(case, case.make(fresh_params), fresh_params, 3, start=2)
        assert_same(params[2:], fresh_params[2:])


@each_path
def test_the_closure_is_positional_and_its_value_returned(case: Case):
    params = make_params()
    optimizer = case.make(params)
    losses = []

    def closure() -> Tensor:
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        losses.append(sum(p.square().sum() for p in params))
        losses[-1].backward()
        return losses[-1]

    before = clones(params)
    assert optimizer.step(closure) is losses[0]
    assert len(losses) == 1
    assert not any(torch.equal(p, b) for p, b in zip(params, before, strict=True))
    if not case.method.needs_loss:
        assert optimizer.step() is None


@each_path
def test_gradients_are_neither_modified_nor_kept(case: Case):
    """The caller finds them as they were, and may overwrite them without reaching into the state."""
    params, expected = make_params(), make_params()
    optimizer = case.make(params)
    for number in range(3):
        gradients = [make_gradient(p, i, number) for i, p in enumerate(params)]
        for param, gradient in zip(params, gradients, strict=True):
            param.grad = gradient
        case.step(optimizer, make_loss(number))
        for index, (param, gradient) in enumerate(zip(params, gradients, strict=True)):
            assert param.grad is gradient
            assert torch.equal(gradient, make_gradient(param, index, number))
            gradient.fill_(torch.nan)
    drive(case, case.make(expected), expected, 3)
    assert_same(params, expected)


@each_bounded_path
@pytest.mark.parametrize("shape", [(), (1, 1)])
def test_a_tensor_learning_rate_counts_as_its_number(case: Case, shape: tuple[int, ...]):
    params, expected = make_params(), make_params()
    drive(case, case.make(expected), expected, 3)
    optimizer = case.make(params)
    for group in optimizer.param_groups:
        group["lr"] = torch.full(shape, group["lr"], dtype=torch.float64)
    drive(case, optimizer, params, 3)
    assert_same(params, expected, rtol=1e-12, atol=1e-12)
    assert all(group["lr"].shape == shape for group in optimizer.param_groups), "schedulers change it in place"

    lr = torch.full(shape, 0.125)
    assert case.method.cls(make_params(), lr=lr).param_groups[0]["lr"] is lr
