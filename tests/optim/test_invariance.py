"""The probe for scale invariance: what it answers, what it refuses, what it costs."""

import os
import time
from collections import namedtuple
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from hf_geo.optim import measure_invariance, scale_invariant_parameters
from hf_geo.optim._probe import is_epsilon

from .invariance_laws import FILTERS, WHOLE, Built, conv, head, images
from .test_invariance_traps import TRAPS, vectors

Pair = namedtuple("Pair", ["x", "scale"])


def test_reasons():
    make, make_inputs, _ = TRAPS["a dead layer"]
    reasons = {row.name: row.reason for row in measure_invariance(make(), make_inputs())}
    assert "no gradient" in reasons["dead.weight"]
    assert "one weight a filter" in reasons["conv.bias"]
    assert "shows in the outputs" in reasons["head.3.weight"]
    make, make_inputs, _ = TRAPS["a trained bias before group norm, zero at first"]
    reasons = {row.name: row.reason for row in measure_invariance(make(), make_inputs(), explain=True)}
    assert "bias" in reasons["0.weight"]
    assert "bias" not in reasons["2.3.weight"]
    assert not any("bias before" in row.reason for row in measure_invariance(make(), make_inputs()))


def test_inputs_by_position_and_by_name():
    model = Built(
        lambda m, x, scale: m.head(m.norm(m.conv(x) * scale)), conv=conv(), norm=nn.BatchNorm2d(6), head=head(6)
    )
    model.forward = lambda x, scale: model.function(model, x, scale)
    x, scale = images(), torch.tensor(2.0)
    assert scale_invariant_parameters(model, (x, scale)) == {"conv.weight": FILTERS}
    assert scale_invariant_parameters(model, {"scale": scale, "x": x}) == {"conv.weight": FILTERS}
    assert scale_invariant_parameters(model, Pair(x, scale)) == {"conv.weight": FILTERS}


EPSILONS = ("eps", "_eps", "eps1", "EPS", "layer_norm_epsilon", "varianceEpsilon", "layerNormEps", "hc_eps_bn")
OTHERS = ("rate", "stepsize", "timesteps", "deepscale", "_n_steps", "keepshift")


def test_an_epsilon_is_told_by_a_word_of_its_name_and_its_size():
    assert all(is_epsilon(name, value) for name in EPSILONS for value in (1e-3, 1e-5, 1e-12))
    assert not any(is_epsilon(name, 0.001) for name in OTHERS)
    assert not any(is_epsilon(name, value) for name in EPSILONS for value in (0.1, 0.5, 1, "1e-5"))


@pytest.mark.parametrize(("epsilon", "found"), [(1e-3, {"a.weight": WHOLE}), (0.5, {})])
def test_an_epsilon_is_lowered_and_a_larger_number_is_not(epsilon: float, found: dict):
    """Its effect is large, as the features are small."""

    def forward(m: Built, x: Tensor) -> Tensor:
        h = 1e-3 * m.a(x)
        return m.head(h * torch.rsqrt(h.square().mean(-1, keepdim=True) + m.norm_eps))

    model = Built(forward, a=nn.Linear(10, 6, bias=False), head=nn.Linear(6, 3))
    model.norm_eps = epsilon
    assert scale_invariant_parameters(model, torch.randn(16, 10)) == found
    assert model.norm_eps == epsilon


def test_branches_that_stochastic_depth_drops_are_found():
    """Each branch is dropped as a whole four times out of five."""

    def forward(m: Built, x: Tensor) -> Tensor:
        y = m.stem(x)
        for branch in (m.first, m.second):
            y = y + branch(x) * float(torch.rand(()) > 0.8)
        return m.head(y)

    branch = partial(lambda: nn.Sequential(conv(), nn.BatchNorm2d(6)))
    model = Built(forward, stem=conv(), first=branch(), second=branch(), head=head(6))
    found = [scale_invariant_parameters(model, images(), seed=seed) for seed in range(6)]
    assert {"first.0.weight": FILTERS, "second.0.weight": FILTERS} in found
    assert all(set(one) <= {"first.0.weight", "second.0.weight"} for one in found)


def test_the_same_seed_finds_the_same():
    make, make_inputs, _ = TRAPS["dropout draws the same on all sides"]
    model, inputs = make(), make_inputs()
    first = measure_invariance(model, inputs, seed=3)
    torch.manual_seed(99)
    assert measure_invariance(model, inputs, seed=3) == first


@pytest.mark.parametrize("shown", [True, False])
def test_progress(shown: bool, capsys: pytest.CaptureFixture):
    make, make_inputs, _ = TRAPS["a dead layer"]
    scale_invariant_parameters(make(), make_inputs(), progress=shown)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert ("Scale invariance" in printed.err and "3/3" in printed.err) == shown


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, partial(torch.autocast, "cpu")])
@pytest.mark.parametrize("trap", ["batch norm takes the bias away", "a float32 constant in the code"])
def test_the_caller_s_modes_do_not_matter(trap: str, context: Callable):
    make, make_inputs, expected = TRAPS[trap]
    model, inputs, dtypes = make().eval(), make_inputs(), set()
    model.register_forward_hook(lambda module, inputs, output: dtypes.add(output.dtype))
    with context():
        assert scale_invariant_parameters(model, inputs) == expected
    assert dtypes == {torch.float32 if "float32" in trap else torch.float64}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_an_accelerator():
    for trap in (
        "batch norm takes the bias away",
        "layer norm",
        "dropout draws the same on all sides",
        "recurrent weights",
    ):
        make, make_inputs, expected = TRAPS[trap]
        model, inputs = make().cuda(), make_inputs()
        states = [torch.cuda.get_rng_state(), torch.get_rng_state()]
        assert scale_invariant_parameters(model, inputs) == expected
        assert scale_invariant_parameters(model, inputs.cuda()) == expected
        assert all(map(torch.equal, states, [torch.cuda.get_rng_state(), torch.get_rng_state()]))


# What it costs, and what it refuses.


def counted(model: nn.Module, inputs: Tensor) -> tuple[dict[str, tuple[int, ...]], int]:
    """What is found, and how many forward passes it took."""
    calls = []
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    found = scale_invariant_parameters(model, inputs)
    handle.remove()
    return found, len(calls)


def test_the_number_of_passes_does_not_grow_with_the_number_of_weights():
    blocks = [nn.Sequential(nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6), nn.ReLU()) for _ in range(24)]
    model = nn.Sequential(
        conv(), nn.ReLU(), *blocks, nn.LayerNorm([6, 6, 6]), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 2, 1), head(2)
    )
    found, passes = counted(model, images())
    assert len(found) == 24
    assert passes <= 3 + 4  # a doubtful weight or two may take a pass each


def test_weights_that_deceive_the_gradient_are_searched_by_halves():
    """Of 32 convolutions before a norm, two also show their scale in a way that has no gradient."""

    def forward(m: Built, x: Tensor) -> Tensor:
        return m.head(m.net(x)) + sum(m.net[3 * i].weight.detach().norm() for i in (5, 20))

    layers = [layer for _ in range(32) for layer in (nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6), nn.ReLU())]
    model = Built(forward, net=nn.Sequential(*layers), head=head(6))
    found, passes = counted(model, images(6, 4, 4))
    assert found == {f"net.{3 * i}.weight": FILTERS for i in range(32) if i not in (5, 20)}
    # Two paths down five halvings, and each of the two weights in all its coarser groups.
    assert passes <= 3 + 4 * 5 + 2 * 16


class Clock(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 + time.perf_counter_ns() % 1000)


class Urandom(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + int.from_bytes(os.urandom(2), "little")


BAD = {
    "no inputs": (lambda: nn.Linear(10, 3), lambda: None, ValueError, "needs example_inputs"),
    "no parameter": (lambda: nn.ReLU(), vectors, ValueError, "ReLU has no floating-point parameter"),
    "no floating-point parameter": (
        lambda: Built(lambda m, x: x, w=nn.Parameter(torch.ones(3, 3, dtype=torch.int8), requires_grad=False)),
        vectors, ValueError, "Built has no floating-point parameter"),
    "a clock": (lambda: Clock(10, 3), vectors, RuntimeError, r"Clock gives outputs that differ.*structure"),
    "random numbers from elsewhere": (
        lambda: Urandom(10, 3), vectors, RuntimeError, r"Urandom gives outputs that differ.*structure"),
    "the model's own error": (
        lambda: nn.Linear(10, 3), lambda: torch.randn(5, 11), RuntimeError, "shapes cannot be multiplied"),
    "one value a channel": (
        lambda: nn.Sequential(nn.Linear(10, 3), nn.BatchNorm1d(3)), lambda: torch.randn(1, 10), ValueError,
        "more than 1 value per channel"),
    "no output that depends on a parameter": (
        lambda: Built(lambda m, x: m.a(x).detach(), a=nn.Linear(10, 3)), vectors, ValueError,
        "No floating-point output of Built depends"),
    "no number in the outputs": (
        lambda: Built(lambda m, x: m.a(x) / 0.0 * 0.0, a=nn.Linear(10, 3)), vectors, ValueError,
        "No floating-point output of Built depends"),
    "a gradient that is not finite": (
        lambda: Built(lambda m, x: (m.a(x) * 0).abs().sqrt().sum() + m.a(x), a=nn.Linear(10, 3)), vectors, RuntimeError,
        r"gradient for a\.weight that is not finite.*structure"),
    "wrapped for several devices": (
        lambda: nn.DataParallel(nn.Linear(10, 3)), vectors, ValueError, r"model\.module"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str):
    make, make_inputs, error, message = BAD[case]
    with pytest.raises(error, match=message):
        scale_invariant_parameters(make(), make_inputs())
