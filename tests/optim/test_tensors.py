"""Every kind of tensor: zero, not finite, sparse, complex, empty, of any memory layout."""

import pytest
import torch
from torch import nn

from hf_geo.optim.kernels import blocks
from tests.cases import (
    PATHS,
    Case,
    assert_same,
    clones,
    drive,
    each_case,
    each_path,
    make_gradient,
    make_loss,
    make_params,
)


@each_case
def test_zero_parameters_and_zero_gradients_stay_finite(case: Case):
    params = make_params(((4, 9), (4, 9), (3,), (3,), ()))
    with torch.no_grad():
        params[0].zero_()
        params[1][2].zero_()
        params[2].zero_()
    optimizer = case.make(params)
    for zeroed in (params[:2], params[2:], params, []):
        for index, param in enumerate(params):
            param.grad = make_gradient(param, index, 0)
        for param in zeroed:
            param.grad.zero_()
        case.step(optimizer)
        assert all(torch.isfinite(p).all() for p in params)


@pytest.mark.parametrize("case", [c for c in PATHS if not c.coupled], ids=str)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bad_gradient_poisons_no_other_parameter(case: Case, bad: float):
    shapes = ((4, 9), (4, 9), (3,), (3,))
    params, expected = make_params(shapes), make_params(shapes)
    optimizer, reference = case.make(params), case.make(expected)
    for number in range(4):
        for index, (param, other) in enumerate(zip(params, expected, strict=True)):
            param.grad, other.grad = make_gradient(param, index, number), make_gradient(param, index, number)
        if number >= 2:
            params[0].grad[1, 2] = params[2].grad[1] = bad
        case.step(optimizer)
        case.step(reference)
    assert_same([params[1], params[3]], [expected[1], expected[3]])
    for param, other in ((params[1], expected[1]), (params[3], expected[3])):
        assert optimizer.state[param].keys() == reference.state[other].keys()
        for key, value in reference.state[other].items():
            assert torch.equal(optimizer.state[param][key], value)


@pytest.mark.parametrize("case", [c for c in PATHS if c.coupled], ids=str)
@pytest.mark.parametrize(("bad", "where"), [(torch.nan, "loss"), (torch.inf, "loss"), (torch.inf, "gradient")])
def test_a_bad_value_skips_the_step_of_all(case: Case, bad: float, where: str):
    """Neither the parameters nor what follows are touched by the steps with a bad value."""
    params, expected = make_params(), make_params()
    optimizer, reference = case.make(params), case.make(expected)
    drive(case, optimizer, params, 2)
    drive(case, reference, expected, 2)
    for number in range(3):
        for index, param in enumerate(params):
            param.grad = make_gradient(param, index, number)
        if where == "gradient":
            params[1].grad[1, 2] = bad
        case.step(optimizer, torch.tensor(bad) if where == "loss" else 2.0)
        assert_same(params, expected)
        assert int(optimizer.skipped_steps) == number + 1
    drive(case, optimizer, params, 2, start=2)
    drive(case, reference, expected, 2, start=2)
    assert_same(params, expected)
    assert int(optimizer.skipped_steps) == 3
    assert int(reference.skipped_steps) == 0


@each_path
def test_sparse_gradients_are_refused_before_anything_moves(case: Case):
    params = make_params()
    optimizer = case.make(params)
    for index, param in enumerate(params):
        param.grad = make_gradient(param, index, 0)
    params[1].grad = params[1].grad.to_sparse()
    before = clones(params)
    with pytest.raises(RuntimeError, match="sparse"):
        case.step(optimizer)
    assert_same(params, before)


LAYOUTS = {
    "transposed": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "strided": lambda x: torch.stack([x, x], dim=-1).flatten(-2)[..., ::2],
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
}


@each_path
@pytest.mark.parametrize(
    ("layout", "gradient_alike"),
    [("transposed", False), ("strided", True), ("channels_last", True), ("channels_last", False)],
)
def test_memory_layout_does_not_matter(case: Case, layout: str, gradient_alike: bool):
    shapes = ((4, 3, 2, 2), (3, 2, 2, 3))
    expected = make_params(shapes)
    params = [nn.Parameter(LAYOUTS[layout](p.detach())) for p in make_params(shapes)]
    strides = [p.stride() for p in params]
    assert not any(p.is_contiguous() for p in params)

    optimizer, reference = case.make(params), case.make(expected)
    for number in range(4):
        for index, param in enumerate(params):
            gradient = make_gradient(param, index, number)
            expected[index].grad = gradient
            param.grad = LAYOUTS[layout](gradient) if gradient_alike else gradient.clone()
        case.step(optimizer, make_loss(number))
        case.step(reference, make_loss(number))
    assert_same(params, expected, rtol=1e-11, atol=1e-11)
    assert [p.stride() for p in params] == strides


@each_case
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_how_the_work_is_cut_does_not_matter(case: Case, dtype: torch.dtype, monkeypatch):
    """Large tensors are worked on in blocks of rows, small ones together; here a block is smaller than a weight."""
    params, expected = make_params(dtype=dtype), make_params(dtype=dtype)
    drive(case, case.make(expected), expected, 4)
    monkeypatch.setattr(blocks, "BLOCK", 40)
    drive(case, case.make(params), params, 4)
    assert_same(params, expected, rtol=1e-13 if dtype is torch.float64 else 0.0)


@each_path
def test_scalar_and_empty_parameters(case: Case):
    shapes = ((), (0,), (0, 3), (4, 9))
    params = make_params(shapes)
    drive(case, case.make(params), params, 3)
    assert [tuple(p.shape) for p in params] == list(shapes)
    full = [params[0], params[3]]
    assert all(torch.isfinite(p).all() for p in full)

    expected = make_params(shapes)
    without_empty = [expected[0], expected[3]]
    reference = case.make(without_empty)
    for number in range(3):
        for index, param in ((0, expected[0]), (3, expected[3])):
            param.grad = make_gradient(param, index, number)
        case.step(reference, make_loss(number))
    assert_same(full, without_empty, rtol=1e-12, atol=1e-12)
