"""Half precision: the arithmetic is done in float32, and float32 state stays float32."""

import pytest
import torch
from torch import nn

from tests.cases import Case, drive, each_case, each_path, make_gradient, make_params

SHAPES = ((4, 8, 3, 3), (8, 80), (80,), ())


@each_case
def test_parameters_keep_their_dtypes_which_may_differ(case: Case):
    dtypes = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
    params = [nn.Parameter(p.detach().to(d)) for p, d in zip(make_params(), dtypes, strict=True)]
    drive(case, case.make(params), params, 3)
    assert [p.dtype for p in params] == list(dtypes)
    assert all(torch.isfinite(p).all() for p in params)
    if not case.coupled:  # each is computed as if it were alone
        wide = make_params()
        drive(case, case.make(wide), wide, 3)
        torch.testing.assert_close(params[1], wide[1], rtol=1e-12, atol=1e-12)


@each_path
@pytest.mark.parametrize(
    ("dtype", "size", "slope"),
    [(torch.bfloat16, 1.0, 300.0), (torch.float16, 100.0, 300.0), (torch.float16, 1.0, 1e-4)],
)
def test_a_half_precision_step_is_the_rounded_float32_step(case: Case, dtype: torch.dtype, size: float, slope: float):
    """Also if the square of a norm is beyond, or below, what half precision can hold."""
    halves = [nn.Parameter(size * p.detach()) for p in make_params(SHAPES, dtype=dtype)]
    floats = [nn.Parameter(p.detach().float()) for p in halves]
    optimizers = case.make(halves), case.make(floats)
    for index, (half, single) in enumerate(zip(halves, floats, strict=True)):
        half.grad = slope * make_gradient(half, index, 0)
        single.grad = half.grad.float()
    loss = 0.03 * float(sum(p.grad.double().square().sum() for p in floats))
    for optimizer in optimizers:
        case.step(optimizer, loss)
    for half, single in zip(halves, floats, strict=True):
        scale = single.detach().abs().max().item()
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(half.detach().float(), single.detach(), rtol=eps, atol=eps * scale)


@each_path
def test_float32_state_stays_float32_on_half_parameters(case: Case):
    params = make_params(dtype=torch.float32)
    optimizer = case.make(params)
    drive(case, optimizer, params, 3)
    halves = [nn.Parameter(p.detach().bfloat16()) for p in params]
    resumed = case.make(halves)
    resumed.load_state_dict(optimizer.state_dict())
    for param, half in zip(params, halves, strict=True):
        state = optimizer.state.get(param, {})
        assert resumed.state.get(half, {}).keys() == state.keys()
        for key, value in state.items():
            torch.testing.assert_close(resumed.state[half][key], value, rtol=0, atol=0)
    drive(case, resumed, halves, 1, start=3)
    assert {p.dtype for p in halves} == {torch.bfloat16}
    assert all(torch.isfinite(p).all() for p in halves)
