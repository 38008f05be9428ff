"""Wrong input is refused in one sentence that names the value."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from hf_geo.subspaces import Subspace, SubspaceConfig
from tests.subspaces.cases import GoldenNetwork


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "circle"}, "line, a curve, a simplex; there is no kind 'circle'"),
        ({"kind": "line", "num_points": 3}, "A line has exactly 2 control points, not 3"),
        ({"kind": "curve", "num_points": 2}, "A curve has exactly 3 .* control points, not 2"),
        ({"kind": "simplex", "num_points": 1}, "A simplex has 2 or more control points, not 1"),
        ({"beta": -1.0}, "beta is a finite number, zero or more; got -1.0"),
        ({"beta": float("nan")}, "beta .* got nan"),
        ({"jitter": 0.0}, "jitter is a finite number above zero; got 0.0"),
        ({"num_samples": 0}, "num_samples is one or more; got 0"),
        ({"fixed_ends": True}, "fixed_ends leaves the bend of a curve to train; a line has none"),
        ({"parameters": "layer("}, r"regular expression; 'layer\(' is none"),
    ],
    ids=lambda value: ",".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SubspaceConfig(**settings)


LINE, SIMPLEX = SubspaceConfig("line"), SubspaceConfig("simplex", 3)


@pytest.mark.parametrize(
    ("config", "position", "message"),
    [
        *((LINE, position, "lies in") for position in (-0.1, 1.5, float("nan"))),
        *((LINE, position, "a number in .* shape") for position in ([0.5, 0.5], [[0.1]])),
        (SIMPLEX, [0.5] * 3, "sum to one"),
        (SIMPLEX, [1.5, -0.5, 0.0], "not negative"),
        (SIMPLEX, [float("nan")] * 3, "not negative"),
        *((SIMPLEX, position, "3 weights that sum to one; .* shape") for position in (0.5, [1.0])),
    ],
    ids=lambda value: getattr(value, "kind", str(value)),
)
def test_positions(config: SubspaceConfig, position: object, message: str) -> None:
    subspace = Subspace.attach(GoldenNetwork(), config, model_init=GoldenNetwork)
    before = subspace.coefficients
    with pytest.raises(ValueError, match=message):
        subspace.set_position(position)
    with pytest.raises(ValueError, match=message):
        subspace.folded_state_dict(position)
    assert torch.equal(subspace.coefficients, before)


def test_a_layerwise_position_needs_a_row_for_every_layer() -> None:
    subspace = Subspace.attach(GoldenNetwork(), SubspaceConfig(layerwise=True), model_init=GoldenNetwork)
    with pytest.raises(ValueError, match=r"for each of the 5 layers; got a value of shape \(4,\)"):
        subspace.set_position([0.1] * 4)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5, 0.6], r"sum to one; got \[0.5, 0.6\]"),
        ([float("nan"), 1.0], "sum to one"),
        ([1.0], r"shape \(2,\); got \(1,\)"),
        ([[0.5, 0.5]] * 5, r"shape \(2,\); got \(5, 2\)"),
    ],
    ids=["sum", "nan", "short", "rows"],
)
def test_coefficients(weights: list, message: str) -> None:
    subspace = Subspace.attach(GoldenNetwork(), SubspaceConfig(), model_init=GoldenNetwork)
    with pytest.raises(ValueError, match=message):
        subspace.set_coefficients(weights)


def _attach(model: nn.Module | None = None, config: SubspaceConfig | None = None, **arguments: object) -> Subspace:
    return Subspace.attach(model or GoldenNetwork(), config or SubspaceConfig(), **arguments)


def _attach_twice() -> None:
    model = GoldenNetwork()
    _attach(model)
    _attach(model)


def _same_network() -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return GoldenNetwork()

    return make


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (_attach_twice, "has a subspace already"),
        (lambda: _attach(config=SubspaceConfig(parameters="attention")), "No parameter .* parameters='attention'"),
        (lambda: _attach(GoldenNetwork().requires_grad_(False)), "No parameter of the model requires a gradient"),
        (lambda: _attach(nn.BatchNorm1d(3)), "nothing to regularize: set beta to 0"),
        (lambda: _attach(model_init=lambda: GoldenNetwork(channels=3)), "'conv1.weight' has shape .* model_init"),
        (lambda: _attach(model_init=lambda: nn.Linear(2, 2)), "model_init's control point 1 have no 'conv1.weight'"),
        (lambda: _attach(points={2: {}}), "A line of 2 points has no control point 2"),
        (lambda: _attach(points={1: {}}), "control point 1 have no 'conv1.weight'"),
        (
            lambda: _attach(points={1: GoldenNetwork(classes=3).state_dict()}),
            r"'fc.weight' has shape \(3, 8, 1, 1\) in control point 1 and \(5, 8, 1, 1\) in the model",
        ),
        (lambda: _attach(points={1: "nowhere"}), "There are no weights for a control point at nowhere"),
        (lambda: _attach().point_state_dict(2), "no control point 2"),
        (lambda: _attach().regularizer(pair=(0, 2)), "no control point 2"),
        (lambda: Subspace(GoldenNetwork(), SubspaceConfig()), "call Subspace.attach"),
    ],
    ids=[
        "twice",
        "parameters",
        "frozen",
        "nothing_to_regularize",
        "model_init_shape",
        "model_init_names",
        "index",
        "empty_state",
        "shape",
        "path",
        "point",
        "pair",
        "plain",
    ],
)
def test_calls(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_equal_points_are_refused() -> None:
    model = GoldenNetwork()
    with pytest.raises(ValueError, match=r"Control points 0 and 1 are equal.*give different weights"):
        Subspace.attach(model, SubspaceConfig(), points={1: model.state_dict()})
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"Control points 0 and 1 are equal.*must not seed"):
        Subspace.attach(GoldenNetwork(), SubspaceConfig(), model_init=_same_network())


def test_a_cut_checkpoint_is_refused(tmp_path: object) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    with pytest.raises(ValueError, match="no complete safetensors file"):
        _attach(points={1: path})


def test_assigning_to_a_spanned_weight_is_refused() -> None:
    model = GoldenNetwork()
    Subspace.attach(model, SubspaceConfig())
    with pytest.raises(RuntimeError, match="no single value that could be assigned"):
        model.fc.weight = torch.zeros(5, 8, 1, 1)
