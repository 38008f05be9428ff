"""The CIFAR networks: as the paper describes them, and as timm expects a model to behave."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

import hf_geo.models  # noqa: F401  (registers the architectures)


def paper_logits(weights: dict[str, torch.Tensor], x: torch.Tensor, depth: int) -> torch.Tensor:
    """He et al. 2016, section 4.2, written out over a state dict, in evaluation mode."""

    def conv_bn(x, conv, bn, stride, padding):
        x = F.conv2d(x, weights[f"{conv}.weight"], stride=stride, padding=padding)
        gain, shift, mean, var = (weights[f"{bn}.{k}"] for k in ("weight", "bias", "running_mean", "running_var"))
        shape = (1, -1, 1, 1)
        return (x - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt() * gain.view(shape) + shift.view(shape)

    x = conv_bn(x, "conv1", "bn1", 1, 1).relu()
    for stage in (1, 2, 3):
        for block in range(depth):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = conv_bn(x, f"{name}.conv1", f"{name}.bn1", stride, 1).relu()
            y = conv_bn(y, f"{name}.conv2", f"{name}.bn2", 1, 1)
            if stride == 2:
                x = conv_bn(x, f"{name}.downsample.0", f"{name}.downsample.1", 2, 0)
            x = (x + y).relu()
    return x.mean((2, 3)) @ weights["fc.weight"].T + weights["fc.bias"]


@pytest.mark.parametrize(
    ("name", "num_classes", "parameters"),
    [("cifar_resnet20", 10, 272_474), ("cifar_resnet20", 100, 278_324)],
)
def test_parameter_count(name, num_classes, parameters):
    model = timm.create_model(name, num_classes=num_classes)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(("name", "layers"), [("cifar_resnet20", 20)])
def test_has_the_layers_its_name_says(name, layers):
    modules = timm.create_model(name).modules()
    weighted = [
        m for m in modules if isinstance(m, nn.Linear) or (isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3))
    ]
    assert len(weighted) == layers


def test_logits_are_those_of_the_paper():
    model = timm.create_model("cifar_resnet20").double()
    for _ in range(3):  # running statistics other than 0 and 1
        model(torch.randn(8, 3, 32, 32, dtype=torch.float64))
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    model.eval()
    torch.testing.assert_close(model(x), paper_logits(model.state_dict(), x, depth=3), rtol=1e-10, atol=1e-10)


def test_convolutions_start_with_he_initialisation():
    model = timm.create_model("cifar_resnet20")
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 5000:
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)


class TestTimmInterface:
    @pytest.mark.parametrize("size", [28, 32, 64])
    @pytest.mark.parametrize("in_chans", [1, 3])
    def test_any_image_size_and_channels(self, size, in_chans):
        model = timm.create_model("cifar_resnet20", num_classes=7, in_chans=in_chans)
        assert model(torch.randn(2, in_chans, size, size)).shape == (2, 7)

    def test_is_in_the_registry_with_its_configuration(self):
        assert "cifar_resnet20" in timm.list_models("cifar_*")
        config = timm.get_pretrained_cfg("cifar_resnet20")
        assert (config.input_size, config.num_classes, config.first_conv, config.classifier) == (
            (3, 32, 32),
            10,
            "conv1",
            "fc",
        )
        assert not config.has_weights

    def test_head_is_applied_to_features(self):
        model, x = timm.create_model("cifar_resnet20").eval(), torch.randn(2, 3, 32, 32)
        features = model.forward_features(x)
        assert features.shape == (2, model.num_features, 8, 8)
        assert model.forward_head(features, pre_logits=True).shape == (2, 64)
        torch.testing.assert_close(model.forward_head(features), model(x))

    def test_classifier_can_be_replaced(self):
        model = timm.create_model("cifar_resnet20").double()
        model.reset_classifier(5, "catavgmax")
        assert model.get_classifier().weight.shape == (5, 128)
        assert model(torch.randn(2, 3, 32, 32, dtype=torch.float64)).shape == (2, 5)
        assert model.head_hidden_size == 128
        model.reset_classifier(0, "avg")
        assert model(torch.randn(2, 3, 32, 32, dtype=torch.float64)).shape == (2, 64)

    def test_without_pooling_and_classes_features_come_out(self):
        model = timm.create_model("cifar_resnet20", num_classes=0, global_pool="")
        assert model(torch.randn(1, 3, 32, 32)).shape == (1, 64, 8, 8)

    def test_features_only(self):
        model = timm.create_model("cifar_resnet20", features_only=True)
        assert [tuple(x.shape[1:]) for x in model(torch.randn(1, 3, 32, 32))] == [
            (16, 32, 32),
            (32, 16, 16),
            (64, 8, 8),
        ]
        assert model.feature_info.reduction() == [1, 2, 4]

    def test_dropout_acts_in_training_only(self):
        model, x = timm.create_model("cifar_resnet20", drop_rate=0.5), torch.randn(2, 3, 32, 32)
        features = model.forward_features(x)
        assert (model.forward_head(features, pre_logits=True) == 0).any()
        assert (model.eval().forward_head(features, pre_logits=True) != 0).all()

    def test_gradient_checkpointing_changes_no_gradient(self):
        x, gradients = torch.randn(2, 3, 32, 32), []
        for enable in (False, True):
            torch.manual_seed(1)
            model = timm.create_model("cifar_resnet20").eval()
            model.set_grad_checkpointing(enable)
            model(x).square().sum().backward()
            gradients.append([p.grad for p in model.parameters()])
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b)

    def test_every_parameter_belongs_to_a_group(self):
        from timm.models import group_parameters

        model = timm.create_model("cifar_resnet20")
        groups = group_parameters(model, model.group_matcher(), reverse=True)
        assert set(groups) == {name for name, _ in model.named_parameters()}
        assert len({groups[f"layer{i}.0.conv1.weight"] for i in (1, 2, 3)} | {groups["conv1.weight"]}) == 4
