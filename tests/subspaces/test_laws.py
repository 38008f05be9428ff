"""What holds for every shape around every network."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hf_geo.subspaces import Subspace
from tests.subspaces.cases import (
    CASES,
    NETWORKS,
    Case,
    GoldenNetwork,
    Network,
    TiedLanguageModel,
    each_network_and_shape,
)

case_rows = pytest.mark.parametrize("case", CASES, ids=str)
network_rows = pytest.mark.parametrize("network", NETWORKS, ids=str)


def attach(case: Case, network: Network, **settings: object) -> tuple[nn.Module, nn.Module, Subspace]:
    """A plain copy of the network, and the network in eval mode with a subspace."""
    model = network.make().eval()
    plain = copy.deepcopy(model)
    return plain, model, Subspace.attach(model, case.config(**settings), model_init=network.make)


@case_rows
@given(t=st.floats(0, 1))
def test_coefficients_follow_the_definition_and_sum_to_one(case: Case, t: float) -> None:
    position, expected = case.coefficients(t)
    computed = case.config().shape.coefficients(torch.tensor(position, dtype=torch.float64))
    torch.testing.assert_close(computed, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-15)
    assert abs(computed.sum().item() - 1) < 1e-14


@case_rows
def test_drawn_positions_are_valid_and_uniform(case: Case) -> None:
    shape, n = case.config().shape, case.num_points
    drawn = shape.draw((20000,), n, torch.Generator().manual_seed(0))
    torch.testing.assert_close(shape.coefficients(drawn).sum(-1), torch.ones(20000, dtype=torch.float64))
    # Uniform on [0, 1]: P(t > 0.9) = 0.1. Uniform on the simplex: the share of a point where its weight is above 0.9 is
    # 0.1^(n - 1), so of mean 1/n.
    above = ((drawn if shape.is_path else drawn[:, 0]) > 0.5).double().mean().item()
    assert above == pytest.approx(0.5 if shape.is_path else 0.5 ** (n - 1), abs=0.01)
    assert drawn.mean(0).tolist() == pytest.approx(shape.centre(n).tolist(), abs=0.01)


@each_network_and_shape
def test_forward_is_the_plain_network_at_the_folded_weights(case: Case, network: Network) -> None:
    plain, model, subspace = attach(case, network)
    x = network.inputs()
    assert set(subspace.folded_state_dict()) == set(plain.state_dict())
    position, _ = case.coefficients(0.3)
    for move in (lambda: subspace.set_position(position), subspace.set_centre, lambda: subspace.sample()):
        move()
        plain.load_state_dict(subspace.folded_state_dict())
        assert torch.equal(model(x), plain(x))
    subspace.set_position(position)
    folded = subspace.folded_state_dict()
    subspace.set_centre()
    assert all(torch.equal(folded[name], value) for name, value in subspace.folded_state_dict(position).items())


@each_network_and_shape
def test_ends_are_the_plain_control_points(case: Case, network: Network) -> None:
    plain, model, subspace = attach(case, network)
    x, original = network.inputs(), plain(network.inputs())
    outputs = []
    for index, position in case.ends.items():
        subspace.set_position(position)
        plain.load_state_dict(subspace.point_state_dict(index))
        assert torch.equal(model(x), plain(x))
        outputs.append(plain(x))
    torch.testing.assert_close(outputs[0].shape, original.shape)
    assert not torch.allclose(outputs[0], outputs[1])


@each_network_and_shape
def test_a_control_points_gradient_is_its_coefficient_times_the_plain_gradient(case: Case, network: Network) -> None:
    plain, model, subspace = attach(case, network)
    x = network.inputs()
    position, coefficients = case.coefficients(0.3)
    subspace.set_position(position)
    plain.load_state_dict(subspace.folded_state_dict())
    model(x).square().sum().backward()
    plain(x).square().sum().backward()
    trainable = {name: p for name, p in plain.named_parameters() if p.requires_grad}
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(parameters) == case.num_points * len(trainable)
    for name, parameter in trainable.items():
        prefix, _, tensor = name.rpartition(".")
        for index, coefficient in enumerate(coefficients):
            point = parameters[f"{prefix}.parametrizations.{tensor}.original{index}".lstrip(".")]
            torch.testing.assert_close(point.grad, coefficient * parameter.grad, rtol=1e-4, atol=1e-5)


@network_rows
def test_frozen_parameters_buffers_and_class_stay(network: Network) -> None:
    model = network.make()
    cls, buffers = type(model), dict(model.named_buffers())
    frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    assert set(frozen) == network.frozen
    Subspace.attach(model, CASES[0].config())
    assert isinstance(model, cls)
    assert type(model).forward is cls.forward
    assert all(model.get_parameter(name) is p for name, p in frozen.items())
    assert {name: id(b) for name, b in model.named_buffers()} == {name: id(b) for name, b in buffers.items()}


@case_rows
def test_layerwise_rows_move_one_layer_each_weight_and_bias_together(case: Case) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    subspace = Subspace.attach(
        model, case.config(layerwise=True), model_init=lambda: copy.deepcopy(model).apply(_redraw)
    )
    assert subspace.layer_names == ["0", "1", "2"]
    a, b, c = (case.coefficients(t) for t in (0.2, 0.6, 0.9))
    subspace.set_position([a[0], b[0], c[0]])
    torch.testing.assert_close(
        subspace.coefficients, torch.tensor([a[1], b[1], c[1]], dtype=torch.float32), rtol=0, atol=1e-7
    )
    for layer, (position, _) in zip(model, (a, b, c), strict=True):
        name = subspace.layer_names[list(model).index(layer)]
        whole = subspace.folded_state_dict(position)
        assert torch.equal(layer.weight, whole[f"{name}.weight"])
        assert torch.equal(layer.bias, whole[f"{name}.bias"])
    subspace.set_position(a[0])
    assert subspace.coefficients.shape == (3, case.num_points)
    drawn = subspace.sample()
    assert len({tuple(row) for row in subspace.coefficients.tolist()}) == 3
    subspace.set_position(drawn)


def _redraw(module: nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        nn.init.normal_(parameter)


@case_rows
def test_tied_weights_are_one_tensor_at_every_position(case: Case) -> None:
    model = TiedLanguageModel()
    parameters = len(list(model.parameters()))
    subspace = Subspace.attach(model, case.config(layerwise=True), model_init=TiedLanguageModel)
    assert subspace.layer_names == ["embedding", "norm", "decoder"]
    assert len(list(model.parameters())) == case.num_points * parameters
    assert not any(name.startswith("decoder.parametrizations.weight.original") for name in model.state_dict())
    for _ in range(3):
        subspace.sample()
        assert torch.equal(model.decoder.weight, model.embedding.weight)
        folded = subspace.folded_state_dict()
        assert folded["decoder.weight"] is folded["embedding.weight"]
    embeddings = [p for name, p in model.named_parameters() if name.startswith("embedding")]
    first, second = embeddings[0], embeddings[1]
    expected = torch.cosine_similarity(first.flatten(), second.flatten(), dim=0).square()
    torch.testing.assert_close(subspace.regularizer(pair=(0, 1)), expected)


def test_two_positions_may_share_a_backward() -> None:
    model = GoldenNetwork().eval()
    subspace = Subspace.attach(model, CASES[0].config(), model_init=GoldenNetwork)
    x = torch.randn(2, 3, 8, 8)
    separate = []
    for position in (0.1, 0.8):
        subspace.set_position(position)
        model(x).sum().backward()
        separate.append({name: p.grad for name, p in model.named_parameters()})
        model.zero_grad()
    total = 0
    for position in (0.1, 0.8):
        subspace.set_position(position)
        total = total + model(x).sum()
    total.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, separate[0][name] + separate[1][name])


def test_the_position_does_not_follow_a_tensor_it_was_given_as() -> None:
    model = nn.Linear(3, 2).double()
    subspace = Subspace.attach(model, CASES[0].config())
    weights = torch.tensor([0.25, 0.75], dtype=torch.float64)
    subspace.set_coefficients(weights)
    weights.fill_(0.5)
    assert subspace.coefficients.tolist() == [0.25, 0.75]
