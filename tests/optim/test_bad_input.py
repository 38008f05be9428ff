"""Errors are interface: each row is a mistake, the error it raises, and the value its text names."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hf_geo.optim import SGDG, SGDMRT, AdamG, AdamS, AdamSRT, AliG, Fromage, get_method, list_optimizers

NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True)
class Mistake:
    """`cls` made with `settings` for a parameter of shape `shape` raises `error` with `named` (and the setting) in its text."""

    cls: type[torch.optim.Optimizer]
    settings: dict[str, Any]
    error: type[Exception]
    named: str
    shape: tuple[int, ...] = (4, 6)
    also: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.cls.__name__}-{self.settings}-{self.shape}".replace(" ", "")


def values(classes: list[type], setting: str, bad: list[Any], error: type[Exception], **also: Any) -> list[Mistake]:
    return [Mistake(c, {setting: value}, error, str(value), also=also) for c in classes for value in bad]


SPHERICAL, ADAM, SGD = [AdamSRT, AdamS, SGDMRT], [AdamSRT, AdamS], [SGDMRT, SGDG, AdamG]
EVERY = [Fromage, AliG, AdamSRT, AdamS, SGDMRT, SGDG, AdamG]
BELOW_ZERO = [-1.0, -1e-9, NAN, -INF]
NO_FRACTION = [-0.1, 1.0, 1.5, NAN]
NO_NUMBER = ["0.1", [0.1], True, 1j]

MISTAKES = [
    *values(EVERY, "lr", [*BELOW_ZERO, INF], ValueError),
    *values(EVERY, "lr", NO_NUMBER, TypeError),
    *values([c for c in EVERY if c is not AliG], "lr", [None], TypeError),
    *[Mistake(c, {"lr": torch.ones(2)}, ValueError, "(2,)") for c in EVERY],
    *values([Fromage], "p_bound", BELOW_ZERO, ValueError),
    *values([Fromage], "p_bound", ["2", True], TypeError),
    *values([AliG, SGDMRT, SGDG, AdamG], "momentum", NO_FRACTION, ValueError, lr=0.1),
    *values([AliG, SGDMRT, SGDG, AdamG], "momentum", [*NO_NUMBER, None], TypeError, lr=0.1),
    *values([AliG], "max_norm", [0.0, *BELOW_ZERO], ValueError),
    *values([AliG], "max_norm", ["8", True], TypeError),
    *values([AliG, AdamSRT, AdamS], "eps", BELOW_ZERO, ValueError),
    *values([AliG, AdamSRT, AdamS], "eps", [*NO_NUMBER, None], TypeError),
    *values([AliG], "adjusted_momentum", ["yes", 1], TypeError),
    *values([AliG], "projection_fn", [3.0], TypeError),
    *values(ADAM, "betas", [(NAN, 0.9), (-0.1, 0.9), (1.0, 0.9), (0.9, 1.0), (0.9, -0.1)], ValueError),
    *values(ADAM, "betas", [0.9, "ab", (0.9, "0.9"), None], TypeError),
    *values(ADAM, "betas", [(0.9,), (0.9, 0.99, 0.999)], ValueError),
    *values([AdamSRT], "rt", ["no", 1, None], TypeError),
    *values([*SPHERICAL, SGDG, AdamG], "weight_decay", BELOW_ZERO, ValueError, lr=0.1),
    *values([*SPHERICAL, SGDG, AdamG], "weight_decay", [*NO_NUMBER, None], TypeError, lr=0.1),
    *values(SPHERICAL, "channel_dims", [[2], [0, 5], [-3]], ValueError, lr=0.1),
    *values(SPHERICAL, "channel_dims", [[0, 0], [1, -1]], ValueError, lr=0.1),
    *values(SPHERICAL, "channel_dims", [0, "01", [0.5], [True]], TypeError, lr=0.1),
    *values(SPHERICAL, "channel_wise", ["yes", 1, None], TypeError, lr=0.1),
    *[Mistake(c, {"channel_wise": True, "channel_dims": [1]}, ValueError, "[1]", also={"lr": 0.1}) for c in SPHERICAL],
    *values(SGD, "dampening", NO_NUMBER, TypeError, lr=0.1),
    *values(SGD, "dampening", [NAN], ValueError, lr=0.1),
    *values([SGDG, AdamG], "nesterov", ["yes", 1, None], TypeError, lr=0.1, momentum=0.9),
    Mistake(SGDG, {"nesterov": True, "momentum": 0.0}, ValueError, "momentum", also={"lr": 0.1}),
    Mistake(AdamG, {"nesterov": True, "momentum": 0.9, "dampening": 0.5}, ValueError, "dampening", also={"lr": 0.1}),
    *values([SGDG, AdamG], "grassmann", ["yes", 1, None], TypeError, lr=0.1),
    *values([SGDG, AdamG], "omega", BELOW_ZERO, ValueError, lr=0.1),
    *values([SGDG, AdamG], "omega", [*NO_NUMBER, None], TypeError, lr=0.1),
    *values([SGDG, AdamG], "grad_clip", [0.0, *BELOW_ZERO], ValueError, lr=0.1),
    *values([SGDG, AdamG], "grad_clip", NO_NUMBER, TypeError, lr=0.1),
    *[Mistake(c, {"grassmann": True}, ValueError, "(6,)", shape=(6,), also={"lr": 0.1}) for c in (SGDG, AdamG)],
    *[
        Mistake(c, {"grassmann": True, "omega": 0.1}, ValueError, "(6, 4)", shape=(6, 4), also={"lr": 0.1})
        for c in (SGDG, AdamG)
    ],
    *values([AdamG], "beta2", NO_FRACTION, ValueError, lr=0.1),
    *values([AdamG], "beta2", NO_NUMBER, TypeError, lr=0.1),
    *values([AdamG], "epsilon", BELOW_ZERO, ValueError, lr=0.1),
    *values([AdamG], "epsilon", NO_NUMBER, TypeError, lr=0.1),
]


def parameter(shape: tuple[int, ...] = (4, 6)) -> nn.Parameter:
    return nn.Parameter(torch.ones(shape))


def names(mistake: Mistake) -> str:
    """A pattern for the setting and the value, in any order."""
    setting = re.escape(next(iter(mistake.settings)))
    return f"(?s)(?=.*{setting})(?=.*{re.escape(mistake.named)})"


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_the_constructor_names_the_bad_value(mistake: Mistake):
    with pytest.raises(mistake.error, match=names(mistake)):
        mistake.cls([parameter(mistake.shape)], **{**mistake.also, **mistake.settings})


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_so_does_a_group_and_is_not_added(mistake: Mistake):
    optimizer = mistake.cls([parameter()], lr=0.1)
    group = {"params": [parameter(mistake.shape)], **mistake.also, **mistake.settings}
    with pytest.raises(mistake.error, match=names(mistake)):
        optimizer.add_param_group(group)
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("name", list_optimizers())
def test_bad_parameters(name: str):
    cls = get_method(name).cls
    twice = parameter()
    with pytest.raises(ValueError, match="empty"):
        cls([], lr=0.1)
    with pytest.raises(ValueError, match=r"twice|more than one"):
        cls([twice, twice], lr=0.1)
    with pytest.raises(ValueError, match=r"twice|more than one"):
        cls([{"params": [twice]}, {"params": [twice]}], lr=0.1)
    with pytest.raises(TypeError, match="iterable"):
        cls(parameter(), lr=0.1)
    with pytest.raises(TypeError, match="str"):
        cls(["weight"], lr=0.1)
    with pytest.raises(ValueError, match="leaf"):
        cls([parameter() * 2], lr=0.1)


def alig_with_gradient() -> AliG:
    param = parameter()
    param.grad = torch.ones_like(param)
    return AliG([param], lr=0.1)


def test_ball_and_projection_exclude_each_other():
    with pytest.raises(ValueError, match=r"(?s)(?=.*max_norm)(?=.*projection_fn)"):
        AliG([parameter()], max_norm=8.0, projection_fn=lambda: None)


def test_alig_needs_a_loss():
    optimizer = alig_with_gradient()
    before = optimizer.param_groups[0]["params"][0].detach().clone()
    with pytest.raises(RuntimeError, match=r"(?s)(?=.*closure)(?=.*set_loss)"):
        optimizer.step()
    assert torch.equal(optimizer.param_groups[0]["params"][0], before)


def test_alig_takes_each_loss_once():
    optimizer = alig_with_gradient()
    optimizer.set_loss(0.5)
    optimizer.step()
    with pytest.raises(RuntimeError, match="set_loss"):
        optimizer.step()


LOSSES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: torch.ones(3), ValueError, "(3,)"),
    (lambda: torch.ones(1, 1, 2), ValueError, "(1, 1, 2)"),
    (lambda: "1.0", TypeError, "1.0"),
    (lambda: {"loss": 1.0}, TypeError, "dict"),
    (lambda: [1.0], TypeError, "list"),
    (lambda: None, RuntimeError, "set_loss"),
]


@pytest.mark.parametrize(("closure", "error", "named"), LOSSES, ids=[named for *_, named in LOSSES])
def test_alig_needs_one_number(closure: Callable[[], Any], error: type[Exception], named: str):
    optimizer = alig_with_gradient()
    with pytest.raises(error, match=re.escape(named)):
        optimizer.step(closure)


@pytest.mark.parametrize("loss", [torch.ones(3), "1.0", None])
def test_set_loss_needs_one_number(loss: Tensor | str | None):
    with pytest.raises((TypeError, ValueError)):
        alig_with_gradient().set_loss(loss)


def test_a_one_element_loss_counts_as_its_number():
    optimizer = alig_with_gradient()
    optimizer.step(lambda: torch.ones(1))
    assert optimizer.step_size.ndim == 0
