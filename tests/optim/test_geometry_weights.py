"""How parameter groups find the weights a geometry is for: measured, given, by structure, by name, or not at all."""

import logging

import pytest
import torch
from torch import nn

from hf_geo.optim import (
    create_optimizer,
    geometry_weights,
    get_method,
    list_optimizers,
    param_groups,
    scale_invariant_parameters,
)

PLAIN = [name for name in list_optimizers() if not get_method(name).geometry]


class Network(nn.Module):
    """Structure is wrong about it twice: a norm registered after a layer it does not follow, and one that does."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(10, 6, bias=False)
        self.other = nn.Linear(6, 6)
        self.norm = nn.BatchNorm1d(6, eps=1e-12)
        self.layer_norm = nn.LayerNorm(5, eps=1e-12)
        self.mixed = nn.Linear(6, 5, bias=False)
        self.out = nn.Linear(5, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.hidden(x)))
        return self.out(self.layer_norm(self.mixed(torch.tanh(self.other(x)))))


MEASURED = {"hidden.weight": (0,), "mixed.weight": ()}
STRUCTURE = {"other.weight": (0,)}


def batch() -> torch.Tensor:
    return torch.randn(8, 10)


def grouped(model: nn.Module, name: str, **arguments) -> dict[str, tuple[int, ...]]:
    names = {id(p): key for key, p in model.named_parameters()}
    groups = [group for group in param_groups(model, name, **arguments) if group["name"] == "geometry"]
    return {names[id(p)]: tuple(group.get("channel_dims", (0,))) for group in groups for p in group["params"]}


@pytest.mark.parametrize("name", ["adamsrt", "sgdg"])
@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"example_inputs": True}, MEASURED),
        ({"example_inputs": True, "geometry": "structure"}, STRUCTURE),
        ({}, STRUCTURE),
        ({"geometry": "none"}, {}),
        ({"geometry": "hidden|mixed"}, {"hidden.weight": (0,), "mixed.weight": (0,)}),
        ({"geometry": "hidden|mixed", "invariant": MEASURED}, MEASURED),
        ({"geometry": r"^out\."}, {"out.weight": (0,)}),
        ({"invariant": {}}, {}),
        ({"invariant": {"out.weight": [0]}, "example_inputs": True}, {"out.weight": (0,)}),
    ],
    ids=str,
)
def test_how_weights_are_found(name: str, how: dict, expected: dict):
    model = Network()
    if how.get("example_inputs"):
        how = {**how, "example_inputs": batch()}
    # The Grassmann methods want single filters, fewer of them than the space has dimensions.
    on_grassmann = get_method(name).geometry(torch.Size([2, 5]), (0,)).get("grassmann")
    if on_grassmann:
        shapes = {key: p.shape for key, p in model.named_parameters()}
        expected = {k: d for k, d in expected.items() if d == (0,) and shapes[k][0] < shapes[k][1]}
    assert grouped(model, name, **how) == expected


@pytest.mark.parametrize("name", PLAIN)
def test_nothing_is_measured_for_a_method_without_geometry(name: str):
    model = Network()
    model.register_forward_hook(lambda *_: pytest.fail("the model was run"))
    assert grouped(model, name, example_inputs=batch()) == {}


def test_what_was_measured_can_be_handed_on():
    model = Network()
    invariant = scale_invariant_parameters(model, batch())
    assert invariant == MEASURED
    model.register_forward_hook(lambda *_: pytest.fail("the model was run"))
    optimizer = create_optimizer("adamsrt", model, invariant=invariant)
    dims = {tuple(g["channel_dims"]) for g in optimizer.param_groups if g["name"] == "geometry"}
    assert dims == {(0,), ()}


def test_it_says_how_and_how_many(caplog: pytest.LogCaptureFixture):
    model = Network()
    for arguments, words in (
        ({"example_inputs": batch()}, "measured"),
        ({"geometry": "structure"}, "structure"),
        ({"geometry": "hidden"}, "hidden"),
        ({"invariant": MEASURED}, "given"),
    ):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="hf_geo"):
            found = geometry_weights(model, **arguments)
        weights = sum(model.get_parameter(key).numel() for key in found)
        assert f"{len(found)} of 10 tensors" in caplog.text and f"{weights} parameters" in caplog.text
        assert words in caplog.text
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_it_says_when_it_has_to_go_by_structure(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, logger="hf_geo"):
        assert geometry_weights(Network()) == STRUCTURE
    assert "structure" in caplog.text and "example_inputs" in caplog.text


def test_it_says_when_the_geometry_is_for_no_weight(caplog: pytest.LogCaptureFixture):
    model = nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 3))
    for arguments, warned in (({"example_inputs": batch()}, True), ({"geometry": "none"}, False)):
        caplog.clear()
        param_groups(model, "adamsrt", **arguments)
        assert ("no weight of this model" in caplog.text) == warned


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"geometry": "structur"}, r"'structur' is neither auto, structure nor none.*matches no"),
        ({"geometry": "norm"}, r"'norm'.*two or more axes"),
        ({"geometry": "(conv"}, r"'\(conv' is not a regular expression"),
        ({"invariant": {"module.hidden.weight": (0,)}}, r"no parameter 'module.hidden.weight'"),
    ],
)
def test_errors(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        create_optimizer("adamsrt", Network(), **arguments)
