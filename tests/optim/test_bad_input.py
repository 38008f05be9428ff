"""Errors are interface: each row is a mistake, the error it raises, and the value its text names."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hf_geo.optim import SGDG, SGDMRT, AdamG, AdamS, AdamSRT, AliG, Fromage, get_method, list_optimizers

NAN, INF = float("nan"), float("inf")
SPHERICAL, ADAM, SGD, SPHERES = [AdamSRT, AdamS, SGDMRT], [AdamSRT, AdamS], [SGDMRT, SGDG, AdamG], [SGDG, AdamG]
EVERY = [Fromage, AliG, *SPHERICAL, *SPHERES]

# Classes, a setting, and values that it refuses, by the error. What is checked alike is tried with all values once.
MISTAKES: list[tuple[list[type], str, list[Any], type[Exception]]] = [
    (EVERY, "lr", [-1e-9], ValueError),
    ([Fromage], "lr", [-1.0, NAN, -INF, INF], ValueError),
    (EVERY, "lr", ["0.1"], TypeError),
    ([Fromage], "lr", [[0.1], True, 1j, None], TypeError),
    (EVERY, "lr", [torch.ones(2)], ValueError),
    ([Fromage], "p_bound", [0.0, -1.0], ValueError),
    ([Fromage], "p_bound", ["2"], TypeError),
    ([AliG, *SGD], "momentum", [-0.1, 1.0], ValueError),
    ([AliG, *SGD], "momentum", [None], TypeError),
    ([AliG], "max_norm", [0.0, -1.0], ValueError),
    ([AliG], "max_norm", ["8"], TypeError),
    ([AliG, *ADAM], "eps", [-1e-9], ValueError),
    ([AliG, *ADAM], "eps", [None], TypeError),
    ([AliG], "adjusted_momentum", ["yes", 1], TypeError),
    ([AliG], "projection_fn", [3.0], TypeError),
    (ADAM, "betas", [(-0.1, 0.9), (1.0, 0.9), (0.9, 1.0), (0.9, NAN), (0.9,), (0.9, 0.99, 0.999)], ValueError),
    (ADAM, "betas", [0.9, "ab", (0.9, "0.9"), (True, 0.9)], TypeError),
    ([AdamSRT], "rt", ["no", 1], TypeError),
    ([*SPHERICAL, *SPHERES], "weight_decay", [-1e-9], ValueError),
    ([*SPHERICAL, *SPHERES], "weight_decay", [None], TypeError),
    (SPHERICAL, "channel_dims", [[2], [-3], [1, -1]], ValueError),
    (SPHERICAL, "channel_dims", [0, "01", [0.5], [True]], TypeError),
    (SPHERICAL, "channel_wise", ["yes"], TypeError),
    (SGD, "dampening", [NAN], ValueError),
    (SGD, "dampening", ["0.1"], TypeError),
    (SPHERES, "nesterov", ["yes"], TypeError),
    (SPHERES, "grassmann", ["yes"], TypeError),
    (SPHERES, "omega", [-1e-9], ValueError),
    (SPHERES, "omega", [None], TypeError),
    (SPHERES, "grad_clip", [0.0, -1.0], ValueError),
    (SPHERES, "grad_clip", ["0.1"], TypeError),
    ([AdamG], "beta2", [-0.1, 1.0], ValueError),
    ([AdamG], "beta2", ["0.1"], TypeError),
    ([AdamG], "epsilon", [-1e-9], ValueError),
    ([AdamG], "epsilon", ["0.1"], TypeError),
]
# Settings that exclude each other or the shape of a parameter, and words of the message.
COMBINATIONS: list[tuple[type, dict[str, Any], tuple[int, ...], str]] = [
    *((cls, {"channel_wise": True, "channel_dims": [1]}, (4, 6), r"channel_wise=True .* channel_dims is \[1\]") for cls in SPHERICAL),
    (SGDG, {"nesterov": True, "momentum": 0.0}, (4, 6), "nesterov needs .* momentum=0"),
    (AdamG, {"nesterov": True, "momentum": 0.9, "dampening": 0.5}, (4, 6), "nesterov needs .* dampening=0.5"),
    *((cls, {"grassmann": True}, (6,), r"grassmann=True needs .* \(6,\)") for cls in SPHERES),
    (SGDG, {"grassmann": True}, (6, 1), r"grassmann=True needs .* \(6, 1\)"),
    *((cls, {"grassmann": True, "omega": 0.1}, (6, 4), r"omega=0.1 .* \(6, 4\) has more rows") for cls in SPHERES),
]  # fmt: skip


def parameter(shape: tuple[int, ...] = (4, 6)) -> nn.Parameter:
    return nn.Parameter(torch.ones(shape))


def assert_refused(cls: type, settings: dict, error: type[Exception], words: str, shape=(4, 6)) -> None:
    """The constructor raises; so does `add_param_group`, and adds nothing."""
    with pytest.raises(error, match=words):
        cls([parameter(shape)], **settings)
    optimizer = cls([parameter()], lr=0.1)
    with pytest.raises(error, match=words):
        optimizer.add_param_group({"params": [parameter(shape)], **settings})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("classes", "setting", "bad", "error"), MISTAKES, ids=[f"{m[1]}-{m[3].__name__}" for m in MISTAKES]
)
def test_a_bad_value_is_named(classes: list[type], setting: str, bad: list[Any], error: type[Exception]):
    for cls in classes:
        for value in bad:
            named = "(2,)" if isinstance(value, Tensor) else str(value)
            words = f"(?s)(?=.*{setting})(?=.*{re.escape(named)})"
            # The momentum keeps nesterov's own check quiet.
            also = {"momentum": 0.9} if setting == "nesterov" else {}
            assert_refused(cls, {**also, setting: value}, error, words)


@pytest.mark.parametrize(
    ("cls", "settings", "shape", "words"),
    COMBINATIONS,
    ids=[f"{c[0].__name__}-{c[3][:9]}-{c[2]}" for c in COMBINATIONS],
)
def test_a_bad_combination_is_named(cls: type, settings: dict, shape: tuple[int, ...], words: str):
    assert_refused(cls, settings, ValueError, words, shape)


@pytest.mark.parametrize("name", list_optimizers())
def test_bad_parameters(name: str):
    cls, twice = get_method(name).cls, parameter()
    with pytest.raises(ValueError, match=r"twice|more than one"):
        cls([twice, twice], lr=0.1)
    with pytest.raises(ValueError, match=r"twice|more than one"):
        cls([{"params": [twice]}, {"params": [twice]}], lr=0.1)
    with pytest.raises(TypeError, match="complex"):
        cls([nn.Parameter(torch.ones(3, 4, dtype=torch.complex64))], lr=0.1)


def alig_with_gradient() -> AliG:
    param = parameter()
    param.grad = torch.ones_like(param)
    return AliG([param], lr=0.1)


def test_ball_and_projection_exclude_each_other():
    with pytest.raises(ValueError, match=r"(?s)(?=.*max_norm)(?=.*projection_fn)"):
        AliG([parameter()], max_norm=8.0, projection_fn=lambda: None)
    with pytest.raises(ValueError, match="one group has None and another 8"):
        AliG([{"params": [parameter()]}, {"params": [parameter()], "max_norm": 8.0}])
    with pytest.raises(TypeError, match=r"projection_fn.* cannot belong to a group"):
        AliG([{"params": [parameter()], "projection_fn": print}])


def test_alig_needs_a_loss_and_takes_each_once():
    optimizer = alig_with_gradient()
    before = optimizer.param_groups[0]["params"][0].detach().clone()
    with pytest.raises(RuntimeError, match=r"(?s)(?=.*closure)(?=.*set_loss)"):
        optimizer.step()
    assert torch.equal(optimizer.param_groups[0]["params"][0], before)
    optimizer.set_loss(0.5)
    optimizer.step()
    with pytest.raises(RuntimeError, match="set_loss"):
        optimizer.step()


LOSSES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: torch.ones(3), ValueError, "(3,)"),
    (lambda: "1.0", TypeError, "1.0"),
    (lambda: True, TypeError, "bool"),
    (lambda: {"loss": 1.0}, TypeError, "dict"),
    (lambda: None, RuntimeError, "set_loss"),
]


@pytest.mark.parametrize(("closure", "error", "named"), LOSSES, ids=[named for *_, named in LOSSES])
def test_alig_needs_one_number(closure: Callable[[], Any], error: type[Exception], named: str):
    with pytest.raises(error, match=re.escape(named)):
        alig_with_gradient().step(closure)
    with pytest.raises((TypeError, ValueError)):
        alig_with_gradient().set_loss(closure())
