"""From a model to parameter groups: which weights get the geometry, which get weight decay, and what is refused."""

import logging
import re

import pytest
import torch
from torch import nn

from hf_geo.optim import create_optimizer, get_method, list_optimizers, param_groups

GEOMETRIC = [name for name in list_optimizers() if get_method(name).geometry]
DECAYING = [name for name in list_optimizers() if "weight_decay" in get_method(name).arguments]
BOUNDED = [name for name in list_optimizers() if "weight_decay" not in get_method(name).arguments]


class Block(nn.Module):
    """A residual block as in ResNets; `shortcut` has its norm behind an identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.Identity(), nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn2(self.conv2(self.act(self.bn1(self.conv1(x))))) + self.shortcut(x)


def network() -> nn.Module:
    """Weights of every kind: fed to a norm or not, with fewer rows than columns or not, decayed or not."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        Block(8),
        nn.Conv2d(8, 8, 1),
        nn.ReLU(),
        nn.BatchNorm2d(8),
        nn.Flatten(),
        nn.Linear(8 * 16, 6),
        nn.BatchNorm1d(6),
        nn.Linear(6, 12),
        nn.BatchNorm1d(12),
        nn.LayerNorm(12),
        nn.Linear(12, 4),
    )


FED_TO_A_NORM = {"0.weight", "2.conv1.weight", "2.conv2.weight", "2.shortcut.0.weight", "7.weight", "9.weight"}
# Eight filters of eight weights, and twelve rows of six: not fewer rows than the space has dimensions.
NOT_UNDERCOMPLETE = {"2.shortcut.0.weight", "9.weight"}
OTHER_WEIGHTS = {"3.weight", "12.weight"}
GEOMETRY = {
    "adamsrt": FED_TO_A_NORM,
    "adams": FED_TO_A_NORM,
    "sgdmrt": FED_TO_A_NORM,
    "sgdg": FED_TO_A_NORM - NOT_UNDERCOMPLETE,
    "adamg": FED_TO_A_NORM - NOT_UNDERCOMPLETE,
}


def names_in(groups: list[dict], label: str, model: nn.Module) -> set[str]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)] for group in groups if group["name"] == label for p in group["params"]}


@pytest.mark.parametrize("name", GEOMETRIC)
def test_weights_that_feed_a_norm_get_the_geometry(name: str):
    model = network()
    groups = param_groups(model, name, lr=0.1)
    assert names_in(groups, "geometry", model) == GEOMETRY[name]
    assert names_in(groups, "rest", model) == FED_TO_A_NORM - GEOMETRY[name] | OTHER_WEIGHTS
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    method = get_method(name)
    for group in groups:
        if group["name"] == "geometry":
            assert group["lr"] == pytest.approx(0.1 * method.geometry_lr)
            assert group.get("grassmann") or group["channel_dims"] == (0,)
            assert all(group[key] == value for key, value in method.geometry_settings.items())
        else:
            assert group["lr"] == 0.1
            assert not {"grassmann", "channel_dims", *method.geometry_settings} & set(group)


@pytest.mark.parametrize("name", DECAYING)
def test_norm_gains_and_biases_are_not_decayed(name: str):
    model = network()
    groups = param_groups(model, name, weight_decay=0.3)
    undecayed = {key for key, p in model.named_parameters() if p.ndim == 1}
    assert names_in(groups, "no_decay", model) == undecayed
    assert {group["name"]: group["weight_decay"] for group in groups} == {"geometry": 0.3, "rest": 0.3, "no_decay": 0.0}


@pytest.mark.parametrize("name", list_optimizers())
def test_one_line_makes_an_optimizer_that_trains(name: str):
    torch.manual_seed(0)
    model = network()
    inputs, labels = torch.randn(16, 3, 4, 4), torch.arange(16) % 4
    optimizer = create_optimizer(name, model)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step(lambda loss=loss: loss)
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", list_optimizers())
def test_settings_reach_the_groups(name: str):
    optimizer = create_optimizer(name, network(), lr=0.25, group_settings={"rest": {"lr": 0.125}})
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates["rest"] == 0.125
    others = {"geometry": 0.25 * get_method(name).geometry_lr, "no_decay": 0.25}
    assert rates == {"rest": 0.125, **{label: others[label] for label in rates if label != "rest"}}
    for group in optimizer.param_groups:
        for key, value in get_method(name).settings.items():
            assert group[key] == value


@pytest.mark.parametrize("name", list_optimizers())
def test_a_caller_s_groups_say_what_is_trained_and_how(name: str):
    """Groups by a library's own rule keep their settings, and the method's geometry within them."""
    model = network()
    first, last = model[0], model[12]
    stranger = nn.Parameter(torch.ones(3))  # such as the weights of a loss
    theirs = [{"params": [first.weight, last.weight], "name": "theirs"}, {"params": [last.bias, stranger], "lr": 0.5}]
    if name in DECAYING:
        theirs[1]["weight_decay"] = 0.25
    groups = param_groups(model, name, lr=0.1, caller_groups=theirs, group_settings={"rest": {"lr": 0.125}})
    found = {p: (group["name"], group["lr"], group.get("weight_decay")) for group in groups for p in group["params"]}
    plain, decay = (None, None) if name in BOUNDED else (0.0, 0.25)
    expected = {first.weight: ("rest", 0.125, plain), last.weight: ("rest", 0.125, plain)}
    if name in GEOMETRIC:
        expected[first.weight] = ("geometry", 0.1 * get_method(name).geometry_lr, plain)
    bias = ("no_decay", 0.5, decay) if name in DECAYING else ("rest", 0.125, decay)
    assert found == {**expected, last.bias: bias, stranger: ("rest", 0.125, decay)}


def test_a_caller_s_rate_is_multiplied_for_the_geometry():
    model = network()
    for given in ([model[0].weight], model[0].weight):
        (group,) = param_groups(model, "sgdg", caller_groups=[{"params": given, "lr": 0.5}])
        assert group["params"] == [model[0].weight]
        assert (group["name"], group["lr"]) == ("geometry", 0.5 * get_method("sgdg").geometry_lr)


def test_settings_of_the_call_win_over_the_method_s():
    optimizer = create_optimizer(
        "sgdg", network(), momentum=0.5, group_settings={"geometry": {"omega": 0.0, "lr": 0.3}}
    )
    assert {group["momentum"] for group in optimizer.param_groups} == {0.5}
    geometry = [group for group in optimizer.param_groups if group["name"] == "geometry"]
    assert [(group["omega"], group["lr"], group["grad_clip"]) for group in geometry] == [(0.0, 0.3, 0.1)]
    assert optimizer.param_groups[-1]["lr"] == get_method("sgdg").lr


def test_frozen_parameters_are_left_out():
    model = network()
    model[0].requires_grad_(False)
    grouped = {id(p) for group in param_groups(model, "adamsrt") for p in group["params"]}
    assert grouped == {id(p) for p in model.parameters() if p.requires_grad}


def test_transposed_and_mismatched_layers_get_no_geometry():
    model = nn.Sequential(
        nn.ConvTranspose2d(4, 4, 3),
        nn.BatchNorm2d(4),
        nn.Linear(4, 8),
        nn.BatchNorm2d(4),
        nn.Linear(8, 8),
        nn.LayerNorm(8),
        nn.Linear(8, 8),
        nn.InstanceNorm1d(8),
        nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)),
        nn.BatchNorm1d(8),
    )
    assert "geometry" not in {group["name"] for group in param_groups(model, "adamsrt")}


def test_counts_are_logged(caplog):
    model = network()
    with caplog.at_level(logging.INFO, logger="hf_geo"):
        groups = param_groups(model, "adamsrt", weight_decay=0.1)
    for group in groups:
        count = sum(p.numel() for p in group["params"])
        pattern = rf"adamsrt.*{group['name']}.*\b{len(group['params'])} tensors.*\b{count} parameters"
        assert any(re.search(pattern, message) for message in caplog.messages)


def test_errors():
    model = network()
    with pytest.raises(ValueError, match=r"'adam_srt'.*'adamsrt'"):
        param_groups(model, "adam_srt")
    with pytest.raises(ValueError, match=r"'middle'.*geometry.*no_decay.*rest"):
        param_groups(model, "adamsrt", group_settings={"middle": {"lr": 1.0}})
    with pytest.raises(ValueError, match=r"'chanel_wise'.*'channel_wise'"):
        param_groups(model, "adamsrt", group_settings={"geometry": {"chanel_wise": True}})
    with pytest.raises(ValueError, match=r"'omga'.*'omega'"):
        create_optimizer("sgdg", model, omga=0.1)
    with pytest.raises(ValueError, match=r"-0\.1"):
        create_optimizer("adamsrt", model, lr=-0.1)
    with pytest.raises(ValueError, match="requires a gradient"):
        param_groups(model.requires_grad_(False), "adamsrt")


@pytest.mark.parametrize("name", BOUNDED)
def test_decay_is_refused_where_there_is_none(name: str):
    with pytest.raises(ValueError, match=rf"{name}.*weight_decay=0.1.*{get_method(name).instead_of_decay}"):
        param_groups(network(), name, weight_decay=0.1)
    with pytest.raises(ValueError, match=rf"{name}.*weight_decay=0.1"):
        model = network()
        param_groups(model, name, caller_groups=[{"params": model.parameters(), "weight_decay": 0.1}])
