"""Wrong input is refused in one sentence that names the value."""

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
        ({"penalize_bend": True}, "penalize_bend is for the bend of a curve; a line has none"),
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


def _attach(model: nn.Module | None = None, config: SubspaceConfig = LINE, **arguments: object) -> Subspace:
    return Subspace.attach(model or GoldenNetwork(), config, **arguments)


def _same_network() -> nn.Module:
    torch.manual_seed(0)
    return GoldenNetwork()


LAYERWISE = SubspaceConfig(layerwise=True)
CALLS = {
    "rows": (lambda: _attach(config=LAYERWISE).set_position([0.1] * 4), r"each of the 5 layers; got a value of shape \(4,\)"),
    "sum": (lambda: _attach().set_coefficients([0.5, 0.6]), r"sum to one; got \[0.5, 0.6\]"),
    "nan": (lambda: _attach().set_coefficients([float("nan"), 1.0]), "sum to one"),
    "one weight": (lambda: _attach().set_coefficients([1.0]), r"shape \(2,\); got \(1,\)"),
    "rows of weights": (lambda: _attach().set_coefficients([[0.5, 0.5]] * 5), r"shape \(2,\); got \(5, 2\)"),
    "twice": (lambda: _attach(_attach().model), "has a subspace already"),
    "parameters": (lambda: _attach(config=SubspaceConfig(parameters="attention")), "No parameter .* parameters='attention'"),
    "frozen": (lambda: _attach(GoldenNetwork().requires_grad_(False)), "No parameter of the model requires a gradient"),
    "nothing to regularize": (lambda: _attach(nn.BatchNorm1d(3)), "nothing to regularize: set beta to 0"),
    "shape of model_init": (lambda: _attach(model_init=lambda: GoldenNetwork(channels=3)), "'conv1.weight' has shape .* model_init"),
    "names of model_init": (lambda: _attach(model_init=lambda: nn.Linear(2, 2)), "model_init's control point 1 have no 'conv1.weight'"),
    "index": (lambda: _attach(points={2: {}}), "A line of 2 points has no control point 2"),
    "empty state": (lambda: _attach(points={1: {}}), "control point 1 have no 'conv1.weight'"),
    "shape": (lambda: _attach(points={1: GoldenNetwork(classes=3).state_dict()}),
              r"'fc.weight' has shape \(3, 8, 1, 1\) in control point 1 and \(5, 8, 1, 1\) in the model"),
    "path": (lambda: _attach(points={1: "nowhere"}), "There are no weights for a control point at nowhere"),
    "equal": (lambda: _attach(_same_network(), points={1: _same_network().state_dict()}), "0 and 1 are equal.*give different weights"),
    "equal by seed": (lambda: _attach(_same_network(), model_init=_same_network), "0 and 1 are equal.*must not seed"),
    "point": (lambda: _attach().point_state_dict(2), "no control point 2"),
    "pair": (lambda: _attach().regularizer(pair=(0, 2)), "no control point 2"),
    "plain": (lambda: Subspace(GoldenNetwork(), LINE), "call Subspace.attach"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_calls(name: str) -> None:
    call, message = CALLS[name]
    with pytest.raises(ValueError, match=message):
        call()


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
