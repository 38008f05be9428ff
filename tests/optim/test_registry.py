"""The registry: frozen rows, checked when they are made, open to third parties."""

import dataclasses
import re
import sys

import pytest
import torch
from torch import Tensor, nn

from hf_geo.optim import (
    Method,
    Paper,
    create_optimizer,
    get_method,
    list_optimizers,
    param_groups,
    register_optimizer,
    registry,
)

PAPER = Paper("doe2026halving", "Halving", ("Doe, Jane",), "Journal of Tests", 2026, "2601.00001")


class Halving(torch.optim.Optimizer):
    """A third party's optimizer: divides weights with gradients by two."""

    def __init__(self, params, lr: float = 0.5, strength: float = 1.0) -> None:
        super().__init__(params, {"lr": lr, "strength": strength})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for param in group["params"]:
                param.mul_(group["lr"] * group["strength"])


@pytest.fixture
def halving(monkeypatch) -> Method:
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    method = Method("halving", Halving, PAPER, lr=0.25, settings={"strength": 2.0})
    register_optimizer(method)
    return method


def test_the_built_in_names_in_order():
    assert list_optimizers() == ["fromage", "alig", "adamsrt", "adams", "sgdmrt", "sgdg", "adamg"]


@pytest.mark.parametrize("name", list_optimizers())
def test_rows_are_frozen_and_complete(name: str):
    method, paper = get_method(name), get_method(name).paper
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.lr = 1.0
    with pytest.raises(TypeError):
        method.settings["lr"] = 1.0
    assert re.fullmatch(r"https://arxiv.org/abs/\d{4}\.\d{5}", paper.url)
    assert paper.arxiv in sys.modules[method.cls.__module__].__doc__ and method.cls.__doc__
    for part in (paper.key, paper.title, str(paper.year), paper.arxiv, *paper.authors):
        assert part in paper.bibtex
    assert paper.bibtex.count("{") == paper.bibtex.count("}")


def test_a_third_party_row_works_like_ours(halving: Method):
    assert list_optimizers()[-1] == "halving"
    assert get_method("halving") is halving
    model = nn.Sequential(nn.Linear(3, 2))
    before = model[0].weight.detach().clone()
    optimizer = create_optimizer("halving", model)
    optimizer.step()
    assert isinstance(optimizer, Halving)
    torch.testing.assert_close(model[0].weight.detach(), before / 2)
    assert create_optimizer("halving", model, lr=0.125, strength=1.0).param_groups[0]["lr"] == 0.125
    assert [group["name"] for group in param_groups(model, "halving")] == ["rest"]


def test_a_row_without_a_learning_rate_asks_for_one(halving: Method):
    register_optimizer(dataclasses.replace(halving, name="rateless", lr=None))
    model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="rateless has no learning rate of its own"):
        create_optimizer("rateless", model)
    assert create_optimizer("rateless", model, lr=0.5).param_groups[0]["lr"] == 0.5


def test_a_name_is_taken_once(halving: Method):
    with pytest.raises(ValueError, match="halving"):
        register_optimizer(halving)
    with pytest.raises(ValueError, match="fromage"):
        register_optimizer(Method("fromage", Halving, PAPER, lr=0.1))
    assert get_method("fromage").cls is not Halving
    with pytest.raises(TypeError, match="Halving"):
        register_optimizer(Halving)


def step_without_loss(cls: type) -> Tensor:
    return cls


MALFORMED = {
    "underscore": ({"name": "halving_fast"}, ValueError, "halving_fast"),
    "empty": ({"name": ""}, ValueError, "''"),
    "function": ({"cls": step_without_loss}, TypeError, "step_without_loss"),
    "unknown setting": ({"settings": {"speed": 1.0}}, ValueError, "speed"),
    "unknown geometry setting": ({"geometry_settings": {"speed": 1.0}}, ValueError, "speed"),
    "cannot take the loss": ({"needs_loss": True}, TypeError, "set_loss"),
}


@pytest.mark.parametrize("mistake", MALFORMED)
def test_malformed_rows_raise(mistake: str):
    change, error, named = MALFORMED[mistake]
    with pytest.raises(error, match=re.escape(named)):
        Method(**{"name": "halving", "cls": Halving, "paper": PAPER, "lr": 0.1, **change})


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"'fromag'.*'fromage'.*alig"):
        get_method("fromag")
    with pytest.raises(ValueError, match=r"Unknown optimizer None"):
        get_method(None)
