"""The probe for scale invariance: traps with known answers, what it leaves behind, what it refuses, what it costs."""

import copy
import os
import random
import time
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from hf_geo.optim import measure_invariance, scale_invariant_parameters
from hf_geo.optim._probe import is_epsilon
from hf_geo.optim._rescaling import group_sums

from .invariance_laws import Built, check_laws

FILTERS, WHOLE = (0,), ()


def images(*shape: int) -> Tensor:
    return torch.randn(5, *(shape or (3, 8, 8)))


def vectors() -> Tensor:
    return torch.randn(5, 4, 10)


def head(channels: int) -> nn.Module:
    return nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


def conv(**settings) -> nn.Conv2d:
    return nn.Conv2d(3, 6, 3, **settings)


class Standardised(nn.Conv2d):
    """A weight-standardised convolution with its epsilon in the code, next to a standard deviation."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, w / (w.flatten(1).std(1).view(-1, 1, 1, 1) + 1e-5), self.bias)


class HandMadeRMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.gain


class QueryKeyNorm(nn.Module):
    """Attention whose queries and keys are normalized by head; values are not."""

    def __init__(self, packed: bool) -> None:
        super().__init__()
        self.packed, self.norm = packed, nn.LayerNorm(5)
        if packed:
            self.qkv = nn.Linear(10, 30, bias=False)
        else:
            self.q, self.k, self.v = (nn.Linear(10, 10, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1) if self.packed else (self.q(x), self.k(x), self.v(x))
        q, k, v = (t.unflatten(-1, (2, 5)).transpose(1, 2) for t in (q, k, v))
        return F.scaled_dot_product_attention(self.norm(q), self.norm(k), v)


@dataclass
class OneOutput:
    logits: Tensor
    name: str = "logits"
    more: list[Tensor] = field(default_factory=list)


def frozen(module: nn.Module) -> nn.Module:
    return module.requires_grad_(False)


def with_zero(module: nn.Module, name: str, *, trained: bool = True) -> nn.Module:
    with torch.no_grad():
        getattr(module, name).zero_()
    getattr(module, name).requires_grad_(trained)
    return module


def seen_and_skipped(m: Built, x: Tensor) -> Tensor:
    y = m.conv(x)
    return m.head(m.norm(y) + y)


def twice(m: Built, x: Tensor) -> Tensor:
    return m.head(m.second(m.conv(F.relu(m.norm(m.conv(x))))))


# Name: the model, its inputs, and the axes of each weight's groups by the analysis of the network on paper. Weights
# that are not named are not scale-invariant.
TRAPS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor], dict[str, tuple[int, ...]]]] = {
    "batch norm takes the bias away": (
        lambda: nn.Sequential(conv(), nn.BatchNorm2d(6), head(6)), images, {"0.weight": FILTERS}),
    "instance norm": (
        lambda: nn.Sequential(conv(), nn.InstanceNorm2d(6), nn.Conv2d(6, 4, 6)), images, {"0.weight": FILTERS}),
    "group norm": (
        lambda: nn.Sequential(conv(bias=False), nn.GroupNorm(2, 6), head(6)), images, {"0.weight": WHOLE}),
    "group norm of groups of filters that are no axis": (
        lambda: nn.Sequential(conv(bias=False, groups=3), nn.GroupNorm(3, 6), head(6)), images, {"0.weight": WHOLE}),
    "depthwise, a filter a group": (
        lambda: nn.Sequential(nn.Conv2d(3, 3, 3, groups=3, bias=False), nn.GroupNorm(3, 3), head(3)), images,
        {"0.weight": FILTERS}),
    "a trained bias before group norm, zero at first": (
        lambda: nn.Sequential(with_zero(conv(), "bias"), nn.GroupNorm(2, 6), head(6)), images, {}),
    "a frozen bias of zero before group norm": (
        lambda: nn.Sequential(with_zero(conv(), "bias", trained=False), nn.GroupNorm(2, 6), head(6)), images,
        {"0.weight": WHOLE}),
    "layer norm": (
        lambda: nn.Sequential(nn.Linear(10, 12, bias=False), nn.LayerNorm(12), nn.Linear(12, 3)), vectors,
        {"0.weight": WHOLE}),
    "RMS norm": (
        lambda: nn.Sequential(nn.Linear(10, 12, bias=False), nn.RMSNorm(12), nn.Linear(12, 3)), vectors,
        {"0.weight": WHOLE}),
    "RMS norm with its epsilon in the code": (
        lambda: nn.Sequential(nn.Linear(10, 12, bias=False), HandMadeRMSNorm(12), nn.Linear(12, 3)), vectors,
        {"0.weight": WHOLE}),
    "a vector of unit length": (
        lambda: Built(lambda m, x: m.b(F.normalize(m.a(x), dim=-1)), a=nn.Linear(10, 6, bias=False), b=nn.Linear(6, 3)),
        vectors, {"a.weight": WHOLE}),
    "an embedding before layer norm": (
        lambda: nn.Sequential(nn.Embedding(20, 16), nn.LayerNorm(16), nn.Linear(16, 3)),
        lambda: torch.randint(0, 20, (5, 6)), {"0.weight": FILTERS}),
    "a transposed convolution": (
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 6, 3), nn.BatchNorm2d(6), head(6)), images, {"0.weight": (1,)}),
    "a linear layer before batch norm": (
        lambda: nn.Sequential(nn.Linear(10, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)),
        lambda: torch.randn(5, 10), {"0.weight": FILTERS}),
    "ReLU keeps scales": (
        lambda: nn.Sequential(conv(bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(6), head(6)), images,
        {"0.weight": FILTERS}),
    "ReLU does not keep them with a bias": (
        lambda: nn.Sequential(conv(), nn.ReLU(), nn.BatchNorm2d(6), head(6)), images, {}),
    "GELU does not keep scales": (
        lambda: nn.Sequential(conv(bias=False), nn.GELU(), nn.BatchNorm2d(6), head(6)), images, {}),
    "two in a row, the first as a whole": (
        lambda: nn.Sequential(conv(bias=False), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4), head(4)), images,
        {"0.weight": WHOLE, "2.weight": FILTERS}),
    "a norm whose affine part is frozen": (
        lambda: nn.Sequential(conv(), frozen(nn.BatchNorm2d(6)), head(6)), images, {"0.weight": FILTERS}),
    "a norm without affine part": (
        lambda: nn.Sequential(conv(), nn.BatchNorm2d(6, affine=False), head(6)), images, {"0.weight": FILTERS}),
    "a norm without running statistics": (
        lambda: nn.Sequential(conv(), nn.BatchNorm2d(6, track_running_stats=False), head(6)), images,
        {"0.weight": FILTERS}),
    "a branch whose last gain is zero at first": (
        lambda: Built(lambda m, x: m.head(m.stem(x) + m.branch(x)), stem=conv(),
                      branch=nn.Sequential(conv(), with_zero(nn.BatchNorm2d(6), "weight")), head=head(6)),
        images, {"branch.0.weight": FILTERS}),
    "seen by a norm and by a skip": (
        lambda: Built(seen_and_skipped, conv=conv(), norm=nn.BatchNorm2d(6), head=head(6)), images, {}),
    "used twice, always before a norm": (
        lambda: Built(twice, conv=nn.Conv2d(3, 3, 3), norm=nn.BatchNorm2d(3),
                      second=nn.BatchNorm2d(3, affine=False), head=head(3)), images, {"conv.weight": FILTERS}),
    "used twice, once without a norm": (
        lambda: Built(twice, conv=nn.Conv2d(3, 3, 3), norm=nn.BatchNorm2d(3), second=nn.Identity(),
                      head=head(3)), images, {}),
    "a dead layer": (
        lambda: Built(lambda m, x: m.head(m.norm(m.conv(x))), conv=conv(), norm=nn.BatchNorm2d(6), head=head(6),
                      dead=nn.Linear(4, 4)), images, {"conv.weight": FILTERS}),
    "a layer that is multiplied by zero": (
        lambda: Built(lambda m, x: m.head(m.norm(m.conv(x))) + 0.0 * m.dead(x).mean(), conv=conv(),
                      norm=nn.BatchNorm2d(6), head=head(6), dead=conv()), images, {"conv.weight": FILTERS}),
    "two scales that cancel": (
        lambda: Built(lambda m, x: m.a(x) / m.b(x).norm(dim=-1, keepdim=True), a=nn.Linear(10, 6, bias=False),
                      b=nn.Linear(10, 6, bias=False)), vectors, {}),
    "a scale that only the outputs show, not the gradient": (
        lambda: Built(lambda m, x: m.head(m.norm(m.conv(x))) + m.conv.weight.detach().norm(), conv=conv(),
                      norm=nn.BatchNorm2d(6), head=head(6)), images, {}),
    "a faint dependence, but not one of an epsilon": (
        lambda: Built(lambda m, x: m.head(m.norm(m.conv(x))) + 1e-4 * m.conv.weight.norm().log(), conv=conv(),
                      norm=nn.BatchNorm2d(6), head=head(6)), images, {}),
    "query and key norms": (lambda: QueryKeyNorm(packed=False), vectors, {"q.weight": WHOLE, "k.weight": WHOLE}),
    "query and key norms, packed with values": (lambda: QueryKeyNorm(packed=True), vectors, {}),
    "standardised weights": (
        lambda: nn.Sequential(Standardised(3, 6, 3), nn.GELU(), Standardised(6, 4, 3), head(4)), images,
        {"0.weight": FILTERS, "2.weight": FILTERS}),
    "weight norm": (
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(10, 6)), nn.ReLU(), nn.Linear(6, 3)), vectors,
        {"0.parametrizations.weight.original1": FILTERS}),
    "spectral norm": (
        lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(10, 6)), nn.ReLU(), nn.Linear(6, 3)), vectors,
        {"0.parametrizations.weight.original": WHOLE}),
    "tied weights": (
        lambda: tied(nn.Sequential(nn.Linear(10, 10, bias=False), nn.LayerNorm(10), nn.Linear(10, 10, bias=False))),
        vectors, {}),
    "tied weights, always before a norm": (
        lambda: tied(nn.Sequential(nn.Linear(10, 10, bias=False), nn.LayerNorm(10), nn.Linear(10, 10, bias=False),
                                   nn.LayerNorm(10), nn.Linear(10, 3))), vectors, {"0.weight": WHOLE}),
    "dropout draws the same on all sides": (
        lambda: nn.Sequential(conv(bias=False), nn.Dropout(0.3), nn.BatchNorm2d(6), head(6), nn.Dropout(0.2)), images,
        {"0.weight": FILTERS}),
    "recurrent weights": (
        lambda: Built(lambda m, x: m.out(m.lstm(x)[0]), lstm=nn.LSTM(10, 4), out=nn.Linear(4, 3)), vectors, {}),
    "taps of a filter that see padding only": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), head(6)), lambda: images(3, 1, 1),
        {"0.weight": FILTERS}),
    "mixed dtypes": (
        lambda: Built(lambda m, x: m.head(m.norm(m.conv(x.to(torch.bfloat16)).float())), conv=conv().bfloat16(),
                      norm=nn.BatchNorm2d(6), head=head(6)), images, {"conv.weight": FILTERS}),
    "float16 in the code": (
        lambda: Built(lambda m, x: m.head(m.norm(m.conv(x.half()).float())), conv=conv().half(),
                      norm=nn.BatchNorm2d(6), head=head(6)), images, {"conv.weight": FILTERS}),
    "a float32 constant in the code": (
        lambda: Built(lambda m, x: m.out(m.norm(m.a(x)) @ torch.eye(6)), a=nn.Linear(10, 6), norm=nn.BatchNorm1d(6),
                      out=nn.Linear(6, 3)), lambda: torch.randn(7, 10), {"a.weight": FILTERS}),
    "outputs in a dict": (
        lambda: Built(lambda m, x: {"logits": m.net(x), "size": len(x), "mask": x > 0},
                      net=nn.Sequential(conv(), nn.BatchNorm2d(6), head(6))), images, {"net.0.weight": FILTERS}),
    "outputs in a dataclass": (
        lambda: Built(lambda m, x: OneOutput(m.net(x), more=[m.net(x) * 2]),
                      net=nn.Sequential(conv(), nn.BatchNorm2d(6), head(6))), images, {"net.0.weight": FILTERS}),
    "one of two outputs shows the scale": (
        lambda: Built(lambda m, x: (m.head(m.norm(m.conv(x))), m.conv(x).mean()), conv=conv(), norm=nn.BatchNorm2d(6),
                      head=head(6)), images, {}),
    "complex outputs": (
        lambda: Built(lambda m, x: torch.fft.fft(m.norm(m.a(x))), a=nn.Linear(10, 6, bias=False), norm=nn.LayerNorm(6)),
        vectors, {"a.weight": WHOLE}),
    "outputs that are infinite where masked": (
        lambda: Built(lambda m, x: m.net(x).masked_fill(torch.eye(5).bool(), -torch.inf),
                      net=nn.Sequential(conv(), nn.BatchNorm2d(6), head(6))), images, {"net.0.weight": FILTERS}),
}  # fmt: skip
# Where check_laws cannot tell: dtypes it does not keep, dataclasses, masks, an epsilon it cannot lower.
NO_LAWS = {
    "mixed dtypes",
    "float16 in the code",
    "a float32 constant in the code",
    "outputs in a dataclass",
    "outputs in a dict",
}
NO_LAWS |= {"complex outputs", "outputs that are infinite where masked"}
EPSILON_IN_CODE = {"standardised weights", "RMS norm with its epsilon in the code"}

Pair = namedtuple("Pair", ["x", "scale"])


def tied(model: nn.Sequential) -> nn.Module:
    model[2].weight = model[0].weight
    return model


@pytest.mark.parametrize("trap", TRAPS)
def test_trap(trap: str):
    make, make_inputs, expected = TRAPS[trap]
    model, inputs = make(), make_inputs()
    rows = measure_invariance(model, inputs)
    assert {row.name: row.channel_dims for row in rows if row.channel_dims is not None} == expected
    assert all(bool(row.reason) == (row.channel_dims is None) for row in rows)
    if trap not in NO_LAWS:
        check_laws(model, inputs, rows, tolerance=1e-3 if trap in EPSILON_IN_CODE else 1e-6)


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


def test_inputs_by_position_and_by_name():
    model = Built(
        lambda m, x, scale: m.head(m.norm(m.conv(x) * scale)), conv=conv(), norm=nn.BatchNorm2d(6), head=head(6)
    )
    model.forward = lambda x, scale: model.function(model, x, scale)
    x, scale = images(), torch.tensor(2.0)
    assert scale_invariant_parameters(model, (x, scale)) == {"conv.weight": FILTERS}
    assert scale_invariant_parameters(model, {"scale": scale, "x": x}) == {"conv.weight": FILTERS}
    assert scale_invariant_parameters(model, Pair(x, scale)) == {"conv.weight": FILTERS}


class Unrolled(nn.Module):
    """Feeds its input in again at every step, with a factor: the mixing weight's scale shows through that."""

    def __init__(self, name: str, factor: float) -> None:
        super().__init__()
        self.mix, self.norm, self.out = nn.Linear(10, 10, bias=False), nn.BatchNorm1d(10), nn.Linear(10, 3)
        self.name = name
        setattr(self, name, factor)

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for _ in range(3):
            h = torch.tanh(self.norm(self.mix(h) + getattr(self, self.name) * x))
        return self.out(h)


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        *((name, 0.5) for name in ("rate", "stepsize", "timesteps", "deepscale", "_n_steps", "eps", "step_eps")),
        *((name, 0.001) for name in ("stepsize", "deepscale", "keepshift")),
        ("epsilon", 0.1),
    ],
)
def test_a_factor_is_no_epsilon(name: str, factor: float):
    model = Unrolled(name, factor)
    assert not is_epsilon(name, factor)
    if factor == 0.5:
        assert scale_invariant_parameters(model, torch.randn(16, 10)) == {}


@pytest.mark.parametrize(
    "name",
    ["eps", "_eps", "eps1", "EPS", "norm_eps", "layer_norm_epsilon", "variance_epsilon", "layerNormEps", "hc_eps_bn"],
)
@pytest.mark.parametrize("epsilon", [1e-3, 1e-5, 1e-12])
def test_an_epsilon_is_lowered_under_any_usual_name(name: str, epsilon: float):
    """Its effect is large, as the features are small."""

    def forward(m: Built, x: Tensor) -> Tensor:
        h = 1e-3 * m.a(x)
        return m.head(h * torch.rsqrt(h.square().mean(-1, keepdim=True) + getattr(m, name)))

    model = Built(forward, a=nn.Linear(10, 6, bias=False), head=nn.Linear(6, 3))
    setattr(model, name, epsilon)
    assert is_epsilon(name, epsilon)
    assert scale_invariant_parameters(model, torch.randn(16, 10)) == {"a.weight": WHOLE}
    assert getattr(model, name) == epsilon


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
    scale_invariant_parameters(nn.Sequential(conv(), nn.BatchNorm2d(6), head(6)), images(), progress=shown)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert ("Scale invariance" in printed.err and "2/2" in printed.err) == shown


def test_group_sums():
    tensor = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    sums = group_sums(tensor)
    assert len(sums) == 16
    for dims, values in sums.items():
        others = tuple(d for d in range(4) if d not in dims)
        np.testing.assert_allclose(values.numpy(), tensor.numpy().sum(axis=others), rtol=1e-12)


# What a probe leaves behind: nothing.


class Busy(nn.Module):
    """Changes about everything a forward pass can change; raises at its call number `fails_at`."""

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__()
        self.conv, self.norm, self.dropout = conv(), nn.BatchNorm2d(6), nn.Dropout(0.2)
        with pytest.warns(FutureWarning):
            self.old = torch.nn.utils.weight_norm(nn.Conv2d(6, 6, 1))  # writes its weight as an attribute
        self.renormed = nn.Embedding(4, 6, max_norm=0.1)  # writes to its weight
        self.spectral = parametrizations.spectral_norm(nn.Linear(6, 6))
        self.frozen = frozen(nn.Linear(6, 6))
        self.calls, self.history, self.cache, self.seen = 0, [], {}, set()
        self.plain, self.generator = torch.ones(6), torch.Generator().manual_seed(5)
        self.failure, self.count = fails_at, [0]
        self.handle = self.frozen.register_forward_hook(lambda *_: self.handle.remove())

    def forward(self, x: Tensor) -> Tensor:
        Busy.total += 1
        if Busy.total == self.failure:
            raise ValueError("the model's own complaint")
        self.calls += 1
        self.history.append(x)
        self.cache["x"] = x
        self.seen.add(self.calls)
        self.plain.mul_(2.0)
        self.extra = x.mean()
        self.norm.eps = 1e-3
        x += 0.1
        random.random(), np.random.rand()
        y = self.old(F.relu(self.norm(self.conv(x)))) + torch.randn(6, 1, 1, generator=self.generator, dtype=x.dtype)
        y = self.dropout(y).mean((2, 3)) + self.renormed(torch.zeros(len(x), dtype=torch.long))
        return self.frozen(self.spectral(y)) * self.plain / self.plain


def snapshot(value, depth: int = 0):
    """Everything a module holds, as plain data that compares: tensors by identity, dtype, contents and gradient."""
    if isinstance(value, Tensor):
        gradient = None if not value.is_leaf or value.grad is None else (id(value.grad), value.grad.tolist())
        return id(value), value.dtype, value.requires_grad, gradient, value.detach().tolist()
    if isinstance(value, torch.Generator):
        return id(value), value.get_state().tolist()
    if isinstance(value, dict):
        return id(value), [(key, snapshot(item, depth + 1)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return id(value), [snapshot(item, depth + 1) for item in value]
    if isinstance(value, set):
        return id(value), sorted(value)
    if isinstance(value, nn.Module):
        return id(value), type(value), snapshot(vars(value), depth + 1)
    return value if isinstance(value, str | int | float | bool | None) else id(value)


def random_states() -> list:
    numpy = np.random.get_state()
    return [torch.get_rng_state().tolist(), random.getstate(), numpy[0], numpy[1].tolist(), numpy[2:]]


def busy(fails_at: int | None = None) -> Busy:
    Busy.total = -1
    model = Busy(fails_at)
    model(images()).sum().backward()
    model.eval()
    model.norm.train()
    return model


@pytest.mark.parametrize("fails_at", [None, 1, 2, 3], ids=lambda n: f"fails at call {n}" if n else "succeeds")
def test_everything_is_as_before(fails_at: int | None):
    model, inputs = busy(fails_at), images().double()
    before, states, kept = snapshot(model), random_states(), inputs.clone()
    if fails_at is None:
        found = {"conv.weight", "old.weight_v", "spectral.parametrizations.weight.original"}
        assert scale_invariant_parameters(model, inputs).keys() == found
    else:
        with pytest.raises(ValueError, match="the model's own complaint"):
            scale_invariant_parameters(model, inputs)
    assert Busy.total >= (fails_at or 3)
    assert snapshot(model) == before
    assert random_states() == states
    assert torch.equal(inputs, kept)


def test_training_goes_on_as_without_the_probe():
    def losses(probed: bool) -> list[float]:
        torch.manual_seed(3)
        model = nn.Sequential(conv(), nn.BatchNorm2d(6), nn.Dropout(0.3), head(6))
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        result, batch = [], images()
        for step in range(4):
            if probed and step in (0, 2):
                scale_invariant_parameters(model, batch)
            loss = model(torch.randn(5, 3, 8, 8)).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            result.append(loss.item())
        return [*result, *(b.double().sum().item() for b in model.buffers())]

    assert losses(probed=True) == losses(probed=False)


def test_a_model_that_keeps_its_parameters_elsewhere_gets_no_gradient():
    layer = nn.Linear(10, 3)
    weight = layer.weight
    model = Built(lambda m, x: m.layer(x) + F.linear(x, weight.to(x.dtype)), layer=layer)
    assert scale_invariant_parameters(model, vectors()) == {}
    assert weight.grad is None and weight.requires_grad


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
    model = make()
    before = copy.deepcopy(snapshot(model))
    with pytest.raises(error, match=message):
        scale_invariant_parameters(model, make_inputs())
    assert snapshot(model) == before
