"""The geometry each method promises, for any shape, size of the numbers and setting that hypothesis draws."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hf_geo.optim import SGDG, AliG, Fromage
from tests.cases import CASES, Case, assert_same, drive, make_gradient, make_params

seeds = st.integers(0, 2**20)
exponents = st.floats(-3, 3).map(lambda x: 10.0**x)
rates = st.floats(-4, 0).map(lambda x: 10.0**x)
sizes = st.floats(-1, 3).map(lambda x: 10.0**x)
# Shapes of weights with fewer rows than columns.
wide_shapes = st.tuples(st.integers(1, 5), st.integers(2, 4), st.integers(3, 4))


def weight(shape: tuple[int, ...], seed: int, size: float = 1.0) -> nn.Parameter:
    return nn.Parameter(size * make_params([shape], seed=seed)[0].detach())


def row_norms(case: Case, tensor: Tensor) -> Tensor:
    return case.rows(tensor).norm(dim=1)


def step_with(case: Case, optimizer: torch.optim.Optimizer, param: Tensor, slope: float, number: int) -> None:
    param.grad = slope * make_gradient(param, 0, number)
    case.step(optimizer)


@given(shape=wide_shapes, seed=seeds, size=exponents, slope=exponents, lr=rates)
def test_fromage_moves_every_tensor_by_the_same_fraction(shape, seed, size, slope, lr):
    param = weight(shape, seed, size)
    old = param.detach().clone()
    param.grad = slope * make_gradient(param, 0, seed)
    Fromage([param], lr=lr).step()
    moved = param.detach() * math.sqrt(1 + lr**2) - old
    assert float(moved.norm() / old.norm()) == pytest.approx(lr, rel=1e-9)
    cosine = torch.dot(moved.flatten(), param.grad.flatten()) / (moved.norm() * param.grad.norm())
    assert float(cosine) == pytest.approx(-1, abs=1e-9)


@given(shape=wide_shapes, seed=seeds, slope=exponents, lr=rates)
def test_fromage_ignores_the_size_of_the_gradient(shape, seed, slope, lr):
    params = weight(shape, seed), weight(shape, seed)
    optimizers = Fromage([params[0]], lr=lr), Fromage([params[1]], lr=lr)
    for number in range(3):
        params[0].grad = make_gradient(params[0], 0, number)
        params[1].grad = slope * params[0].grad
        for optimizer in optimizers:
            optimizer.step()
    assert_same([params[0]], [params[1]], rtol=1e-12, atol=1e-12)


@given(shape=wide_shapes, seed=seeds, size=exponents, lr=rates, p_bound=st.floats(0.5, 3))
def test_fromage_never_leaves_its_ball(shape, seed, size, lr, p_bound):
    param = weight(shape, seed, size)
    bound = p_bound * param.detach().norm()
    optimizer = Fromage([param], lr=lr, p_bound=p_bound)
    for number in range(5):
        param.grad = make_gradient(param, 0, number % 2)
        optimizer.step()
        assert param.detach().norm() <= bound * (1 + 1e-12)


@pytest.mark.parametrize("case", [c for c in CASES if c.unit_rows], ids=str)
@given(shape=wide_shapes, seed=seeds, size=sizes, slope=exponents)
def test_rows_stay_on_the_unit_sphere(case: Case, shape, seed, size, slope):
    """Up to the 1e-8 that the authors, and the golden numbers, add to a norm before dividing by it."""
    param = weight(shape, seed, size)
    optimizer = case.make([param])
    for number in range(4):
        step_with(case, optimizer, param, slope, number)
        assert row_norms(case, param).tolist() == pytest.approx([1.0] * shape[0], abs=1e-6)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
@pytest.mark.parametrize("angle", (0.5, 0.5 - 1e-7, 0.5 + 1e-5, 0.51, 1.0, 1.5), ids="{} pi".format)
def test_a_great_circle_is_followed_however_far(angle: float, dtype: torch.dtype):
    """At a right angle the new point says nothing of the old one."""
    angle *= math.pi
    point = torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]], dtype=dtype)
    along = torch.tensor([[-0.8, 0.6, 0.0], [1.0, 0.0, 0.0]], dtype=dtype)
    param = nn.Parameter(point.clone())
    param.grad = along * angle
    optimizer = SGDG([param], lr=1.0, momentum=0.9, grassmann=True)
    optimizer.step()
    near = {"rtol": 0, "atol": 2 * angle * torch.finfo(dtype).eps ** 0.5}
    torch.testing.assert_close(param.detach(), math.cos(angle) * point - math.sin(angle) * along, **near)
    momentum = optimizer.state[param]["momentum_buffer"]
    torch.testing.assert_close(momentum, angle * (math.sin(angle) * point + math.cos(angle) * along), **near)


@pytest.mark.parametrize("case", [c for c in CASES if c.momentum], ids=str)
@given(shape=wide_shapes, seed=seeds, size=sizes, slope=sizes)
def test_momentum_is_orthogonal_to_the_new_point(case: Case, shape, seed, size, slope):
    param = weight(shape, seed, size)
    optimizer = case.make([param])
    for number in range(4):
        step_with(case, optimizer, param, size * slope / 1000, number)
        momentum = optimizer.state[param][case.momentum]
        dots = (case.rows(momentum) * case.rows(param)).sum(1)
        scale = row_norms(case, momentum) * row_norms(case, param)
        assert (scale > 0).all()
        assert (dots.abs() <= 1e-6 * scale).all()


@pytest.mark.parametrize("case", [c for c in CASES if c.rotates], ids=str)
@given(rows=st.integers(1, 3), columns=st.integers(3, 7), seed=seeds, slope=exponents)
def test_turned_weights_take_turned_steps(case: Case, rows, columns, seed, slope):
    """No direction is special: only dots and norms of a group of weights enter its step."""
    param, turned = weight((rows, columns), seed), weight((rows, columns), seed)
    size = case.rows(param).shape[1]
    turn, _ = torch.linalg.qr(make_params([(size, size)], seed=seed + 1)[0].detach())

    def turn_groups(x: Tensor) -> Tensor:
        return (case.rows(x) @ turn).view_as(x)

    with torch.no_grad():
        turned.copy_(turn_groups(turned))
    optimizers = case.make([param]), case.make([turned])
    for number in range(4):
        param.grad = slope * make_gradient(param, 0, number)
        turned.grad = turn_groups(param.grad)
        for optimizer in optimizers:
            case.step(optimizer)
    assert_same([turned], [turn_groups(param)], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", [c for c in CASES if c.equals], ids=str)
@given(rows=st.integers(1, 4), columns=st.integers(1, 4), seed=seeds, slope=exponents)
def test_without_geometry_it_is_torch_s_own_method(case: Case, rows, columns, seed, slope):
    """The plain settings, groups of one weight, and ALI-G where the loss is large are Adam's or SGD's steps."""
    shapes = ((rows, columns), (columns,), ())
    params, expected = make_params(shapes, seed=seed), make_params(shapes, seed=seed)
    optimizer, reference = case.make(params), case.equals(expected)
    for number in range(5):
        for index, param in enumerate(params):
            param.grad = slope * make_gradient(param, index, number)
            expected[index].grad = param.grad.clone()
        case.step(optimizer, loss=1e12)
        reference.step()
    assert_same(params, expected, rtol=1e-10, atol=1e-10)


@given(seed=seeds, lr=rates, loss=exponents, slope=exponents, eps=rates)
def test_alig_takes_the_polyak_step_up_to_its_bound(seed, lr, loss, slope, eps):
    params = make_params(seed=seed)
    before = [p.detach().clone() for p in params]
    for index, param in enumerate(params):
        param.grad = slope * make_gradient(param, index, 0)
    polyak = loss / (sum(float(p.grad.square().sum()) for p in params) + eps)
    optimizer = AliG(params, lr=lr, eps=eps)
    optimizer.step(lambda: loss)
    assert float(optimizer.step_size_unclipped) == pytest.approx(polyak, rel=1e-5)
    assert float(optimizer.step_size) <= lr * (1 + 1e-6)
    expected = [b - min(lr, polyak) * p.grad for b, p in zip(before, params, strict=True)]
    assert_same(params, expected, rtol=1e-5, atol=1e-12)


@given(seed=seeds, lr=rates, max_norm=exponents)
def test_alig_stays_in_its_ball(seed, lr, max_norm):
    params = make_params(seed=seed)
    case = Case("ball", "alig", {"lr": lr, "momentum": 0.9, "max_norm": max_norm})
    free = math.sqrt(sum(float(p.detach().square().sum()) for p in params))
    optimizer = case.make(params)
    for number in range(4):
        norm = math.sqrt(sum(float(p.detach().square().sum()) for p in params))
        assert norm <= max_norm * (1 + 1e-12)
        assert number or norm == pytest.approx(min(free, max_norm), rel=1e-12)
        drive(case, optimizer, params, 1, start=number)
