"""What ALI-G offers besides a step: the loss handed over, the step sizes shown, a projection of the caller's own."""

import copy
import pickle

import pytest
import torch

from hf_geo.checkpoints.compatibility import IncompatibleCheckpointError, check_same_optimizer
from hf_geo.optim import AliG
from tests.cases import FUSED, assert_same, make_gradient, make_params


def with_gradients() -> list[torch.nn.Parameter]:
    params = make_params()
    for index, param in enumerate(params):
        param.grad = make_gradient(param, index, 0)
    return params


@pytest.mark.parametrize(
    "loss", [1.0, 1, torch.tensor(1.0), torch.tensor([[1.0]]), torch.tensor(1.0, requires_grad=True)]
)
def test_a_loss_may_be_handed_over_before_the_step(loss):
    params, expected = with_gradients(), with_gradients()
    optimizer, reference = AliG(params, lr=1.0), AliG(expected, lr=1.0)
    optimizer.set_loss(loss)
    assert optimizer.step() is None
    reference.step(lambda: loss)
    assert_same(params, expected)
    polyak = 1 / (sum(float(p.grad.square().sum()) for p in params) + 1e-5)
    assert float(optimizer.step_size) == pytest.approx(polyak)


def test_an_infinite_bound_is_none():
    params, expected = with_gradients(), with_gradients()
    for some, lr in ((params, torch.inf), (expected, None)):
        optimizer = AliG(some, lr=lr, eps=0.0)
        optimizer.step(lambda: 1e9)
        assert optimizer.step_size > 1e6 and optimizer.step_size == optimizer.step_size_unclipped
    assert_same(params, expected)


def test_the_closure_s_loss_outdoes_the_one_handed_over():
    optimizer = AliG(with_gradients(), lr=1e9)
    optimizer.set_loss(1.0)
    optimizer.step(lambda: 2.0)
    doubled = float(optimizer.step_size)
    optimizer.step(lambda: 1.0)
    assert float(optimizer.step_size) == pytest.approx(doubled / 2)


def test_a_loss_goes_with_its_gradients():
    """A step that is left out, as on overflow, must not lend its loss to the next."""
    optimizer = AliG(with_gradients())
    optimizer.set_loss(1.0)
    optimizer.zero_grad(set_to_none=False)
    with pytest.raises(RuntimeError, match="set_loss"):
        optimizer.step()


@pytest.mark.parametrize("way", [copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))])
def test_copies_show_what_the_original_shows(way):
    optimizer = AliG(with_gradients(), lr=1e-3)
    optimizer.step(lambda: torch.nan)
    optimizer.step(lambda: 1.0)
    optimizer.set_loss(2.0)
    twin = way(optimizer)
    assert {name for name in vars(optimizer) if name[0] != "_"} == {name for name in vars(twin) if name[0] != "_"}
    assert twin.skipped_steps == 1
    for name in ("step_size", "step_size_unclipped"):
        assert torch.equal(getattr(twin, name), getattr(optimizer, name))
        assert getattr(twin, name) is not getattr(optimizer, name)
    assert twin.step() is None, "the loss that was set is there too"


def test_step_sizes_are_plain_scalars():
    optimizer = AliG(with_gradients(), lr=1e-3)
    optimizer.step(lambda: torch.full((1,), 1e6, requires_grad=True))
    for size in (optimizer.step_size, optimizer.step_size_unclipped):
        assert size.ndim == 0
        assert not size.requires_grad
    assert float(optimizer.step_size) == pytest.approx(1e-3)
    assert float(optimizer.step_size_unclipped) > 1
    optimizer.step(lambda: torch.nan)
    assert float(optimizer.step_size) == 0


@pytest.mark.parametrize("loss", [0.0, -1.0])
def test_no_step_against_the_gradient(loss: float):
    """A loss at or below its supposed minimum of zero asks for no step, never for one uphill."""
    params = with_gradients()
    optimizer = AliG(params, lr=1e-3)
    optimizer.step(lambda: loss)
    assert_same(params, make_params())
    assert float(optimizer.step_size) == 0
    assert optimizer.skipped_steps == 0


def test_the_caller_s_projection_ends_the_construction_and_each_step():
    params, seen = with_gradients(), []

    def halve_the_first() -> None:
        seen.append(params[0].detach().clone())
        params[0].mul_(0.5)

    optimizer = AliG(params, lr=1e-2, projection_fn=halve_the_first)
    assert len(seen) == 1
    assert_same(params[:1], [seen[0] * 0.5])
    for count in (2, 3):
        optimizer.step(lambda: 1.0)
        assert len(seen) == count
        assert_same(params[:1], [seen[-1] * 0.5])
        assert not torch.equal(seen[-1], seen[-2] * 0.5)


@pytest.mark.parametrize("fused", FUSED)
def test_a_lower_bound_is_taken_from_the_loss(fused: bool):
    settings = {"lr": 0.3, "momentum": 0.9, "fused": fused}
    params, expected = make_params(dtype=torch.float32), make_params(dtype=torch.float32)
    optimizer, reference = AliG(params, lower_bound=-1.5, **settings), AliG(expected, **settings)
    for step in range(3):
        for some in (params, expected):
            for index, param in enumerate(some):
                param.grad = make_gradient(param, index, step)
        optimizer.step(lambda: 1.0)
        reference.step(lambda: 2.5)
    assert_same(params, expected)
    assert 0 < float(optimizer.step_size) == float(reference.step_size)


@pytest.mark.parametrize(("bound", "is_reached"), [(1.0, True), (0.0, False)])
def test_a_quadratic_above_zero_needs_its_bound(bound: float, is_reached: bool):
    """l(w) = |w|^2 + 1: with its least value each step is |w|^2 / |2 w|^2, which halves w."""
    w = torch.nn.Parameter(torch.tensor([3.0, -4.0]))
    optimizer = AliG([w], lower_bound=bound, eps=0.0)
    distances = []
    for _ in range(60):
        loss = w.square().sum() + 1
        (w.grad,) = torch.autograd.grad(loss, w)
        optimizer.step(lambda loss=loss: loss)
        distances.append(float(w.detach().norm()))
    assert (max(distances[30:]) < 1e-3) == is_reached
    if is_reached:  # as long as 1 + |w|^2 is not 1 in float32
        assert distances[:8] == pytest.approx([5 / 2**n for n in range(1, 9)], rel=1e-3)


def test_a_checkpoint_from_before_the_lower_bound_has_zero():
    state = AliG(with_gradients(), lr=0.1).state_dict()
    for group in state["param_groups"]:
        del group["lower_bound"], group["fused"]
    optimizer, other = (AliG(with_gradients(), lr=0.1, lower_bound=bound) for bound in (0.0, -1.0))
    for each in (optimizer, other):
        each.register_load_state_dict_pre_hook(check_same_optimizer)
    optimizer.load_state_dict(state)
    optimizer.step(lambda: 1.0)
    assert optimizer.param_groups[0]["lower_bound"] == 0.0 and optimizer.param_groups[0]["fused"] is None
    with pytest.raises(IncompatibleCheckpointError, match=r"lower_bound=0.0 .* asks for lower_bound=-1.0"):
        other.load_state_dict(state)


def test_a_bad_lower_bound_is_refused():
    for bound, error, message in (
        (None, TypeError, "lower_bound has to be a number, not None"),
        (torch.inf, ValueError, "lower_bound has to be finite"),
    ):
        with pytest.raises(error, match=message):
            AliG(make_params(), lower_bound=bound)
    first, *others = make_params()
    with pytest.raises(ValueError, match="lower_bound is of the loss of all parameters together"):
        AliG([{"params": [first]}, {"params": others, "lower_bound": 1.0}])
