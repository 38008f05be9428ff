"""The perceptron of the depth experiment: what it computes, and timm's interface."""

import pytest
import timm
import torch
from timm.models import group_parameters

import hf_geo.models  # noqa: F401  (registers the architectures)


@pytest.mark.parametrize(("in_chans", "img_size", "residual"), [(1, 8, False), (3, (8, 12), True)])
def test_it_is_a_chain_of_relus(in_chans, img_size, residual):
    settings = {"width": 20, "in_chans": in_chans, "img_size": img_size, "num_classes": 4, "residual": residual}
    model = timm.create_model("mlp_depth", depth=3, **settings).double()
    weights = model.state_dict()
    x = torch.randn(5, in_chans, 8, 8 if in_chans == 1 else 12, dtype=torch.float64)
    y = x.flatten(1)
    for i in range(3):
        hidden = (y @ weights[f"layers.{i}.0.weight"].T + weights[f"layers.{i}.0.bias"]).relu()
        y = y + hidden if residual and i else hidden
    torch.testing.assert_close(model(x), y @ weights["fc.weight"].T + weights["fc.bias"])
    assert len(weights) == 2 * 4


@pytest.mark.parametrize("depth", [1, 50])
def test_at_mnists_size_every_layer_is_square(depth):
    config = timm.get_pretrained_cfg("mlp_depth")
    assert (config.input_size, config.fixed_input_size, config.first_conv) == ((1, 28, 28), True, None)
    with torch.device("meta"):
        model = timm.create_model("mlp_depth", depth=depth)
    assert sum(p.numel() for p in model.parameters()) == depth * (784 * 784 + 784) + 784 * 10 + 10


def test_timms_interface():
    model, x = timm.create_model("mlp_depth", depth=2, width=8, drop_rate=0.5), torch.randn(64, 1, 28, 28)
    features = model.forward_features(x)
    assert model.forward_head(features, pre_logits=True).shape == (64, 8)
    assert not torch.equal(model(x), model(x))
    torch.testing.assert_close(model.eval().forward_head(features), model(x))
    model.double().reset_classifier(3)
    assert model.get_classifier().weight.shape == (3, 8) and model.fc.weight.dtype == torch.float64
    model.reset_classifier(0)
    assert model(x.double()).shape == (64, 8)
    groups = group_parameters(model, model.group_matcher(), reverse=True)
    assert set(groups) == {key for key, _ in model.named_parameters()}
    assert groups["layers.0.0.weight"] < groups["layers.1.0.weight"]


@pytest.mark.parametrize("wrong", [{"depth": 0}, {"width": 0}])
def test_a_network_of_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="at least one layer of one unit"):
        timm.create_model("mlp_depth", **wrong)
    with pytest.raises(ValueError, match="no gradient checkpointing"):
        timm.create_model("mlp_depth").set_grad_checkpointing()
