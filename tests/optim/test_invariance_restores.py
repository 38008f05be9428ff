"""The probe for scale invariance leaves a model and the random number generators as they were."""

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from hf_geo.optim import scale_invariant_parameters

from .invariance_laws import Built, conv, images
from .test_invariance_traps import vectors


class Busy(nn.Module):
    """Changes about everything a forward pass can change; raises at its call number `fails_at`."""

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__()
        self.conv, self.norm, self.dropout = conv(), nn.BatchNorm2d(6), nn.Dropout(0.2)
        with pytest.warns(FutureWarning):
            self.old = torch.nn.utils.weight_norm(nn.Conv2d(6, 6, 1))  # writes its weight as an attribute
        self.renormed = nn.Embedding(4, 6, max_norm=0.1)  # writes to its weight
        self.spectral = parametrizations.spectral_norm(nn.Linear(6, 6))
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
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


@pytest.mark.parametrize("fails_at", [None, 1, 3], ids=lambda n: f"fails at call {n}" if n else "succeeds")
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


def test_a_model_that_keeps_its_parameters_elsewhere_gets_no_gradient():
    layer = nn.Linear(10, 3)
    weight = layer.weight
    model = Built(lambda m, x: m.layer(x) + F.linear(x, weight.to(x.dtype)), layer=layer)
    assert scale_invariant_parameters(model, vectors()) == {}
    assert weight.grad is None and weight.requires_grad
