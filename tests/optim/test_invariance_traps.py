"""Networks with known answers for the probe of scale invariance, worked out on paper."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from hf_geo.optim import measure_invariance

from .invariance_laws import FILTERS, WHOLE, Built, check_laws, conv, head, images


def vectors() -> Tensor:
    return torch.randn(5, 4, 10)


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

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(5)
        self.q, self.k, self.v = (nn.Linear(10, 10, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (2, 5)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return F.scaled_dot_product_attention(self.norm(q), self.norm(k), v)


@dataclass
class OneOutput:
    logits: Tensor
    name: str = "logits"
    more: list[Tensor] = field(default_factory=list)


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
    "group norm": (
        lambda: nn.Sequential(conv(bias=False), nn.GroupNorm(2, 6), head(6)), images, {"0.weight": WHOLE}),
    "group norm of groups of filters that are no axis": (
        lambda: nn.Sequential(conv(bias=False, groups=3), nn.GroupNorm(3, 6), head(6)), images, {"0.weight": WHOLE}),
    "a trained bias before group norm, zero at first": (
        lambda: nn.Sequential(with_zero(conv(), "bias"), nn.GroupNorm(2, 6), head(6)), images, {}),
    "a frozen bias of zero before group norm": (
        lambda: nn.Sequential(with_zero(conv(), "bias", trained=False), nn.GroupNorm(2, 6), head(6)), images,
        {"0.weight": WHOLE}),
    "layer norm": (
        lambda: nn.Sequential(nn.Linear(10, 12, bias=False), nn.LayerNorm(12), nn.Linear(12, 3)), vectors,
        {"0.weight": WHOLE}),
    "RMS norm with its epsilon in the code": (
        lambda: nn.Sequential(nn.Linear(10, 12, bias=False), HandMadeRMSNorm(12), nn.Linear(12, 3)), vectors,
        {"0.weight": WHOLE}),
    "a transposed convolution": (
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 6, 3), nn.BatchNorm2d(6), head(6)), images, {"0.weight": (1,)}),
    "ReLU keeps scales": (
        lambda: nn.Sequential(conv(bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(6), head(6)), images,
        {"0.weight": FILTERS}),
    "ReLU does not keep them with a bias": (
        lambda: nn.Sequential(conv(), nn.ReLU(), nn.BatchNorm2d(6), head(6)), images, {}),
    "two in a row, the first as a whole": (
        lambda: nn.Sequential(conv(bias=False), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4), head(4)), images,
        {"0.weight": WHOLE, "2.weight": FILTERS}),
    "a branch whose last gain is zero at first": (
        lambda: Built(lambda m, x: m.head(m.stem(x) + m.branch(x)), stem=conv(),
                      branch=nn.Sequential(conv(), with_zero(nn.BatchNorm2d(6), "weight")), head=head(6)),
        images, {"branch.0.weight": FILTERS}),
    "seen by a norm and by a skip": (
        lambda: Built(seen_and_skipped, conv=conv(), norm=nn.BatchNorm2d(6), head=head(6)), images, {}),
    "used twice, always before a norm": (
        lambda: Built(twice, conv=nn.Conv2d(3, 3, 3), norm=nn.BatchNorm2d(3),
                      second=nn.BatchNorm2d(3, affine=False), head=head(3)), images, {"conv.weight": FILTERS}),
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
    "query and key norms": (QueryKeyNorm, vectors, {"q.weight": WHOLE, "k.weight": WHOLE}),
    "standardised weights": (
        lambda: nn.Sequential(Standardised(3, 6, 3), nn.GELU(), Standardised(6, 4, 3), head(4)), images,
        {"0.weight": FILTERS, "2.weight": FILTERS}),
    "weight norm": (
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(10, 6)), nn.ReLU(), nn.Linear(6, 3)), vectors,
        {"0.parametrizations.weight.original1": FILTERS}),
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
}
NO_LAWS |= {"complex outputs", "outputs that are infinite where masked"}
EPSILON_IN_CODE = {"standardised weights", "RMS norm with its epsilon in the code"}


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
