"""The networks for small images: as the papers describe them, and as timm expects a model to behave."""

import re

import pytest
import timm
import torch
from timm.models import group_parameters
from torch import nn
from torch.nn import functional as F

import hf_geo.models  # noqa: F401  (registers the architectures)

CIFAR = timm.list_models("cifar_*")
SMALL = ["cifar_resnet20", "cifar_preact_resnet18", "cifar_wrn_16_4", "cifar_vgg13_bn", "cifar_densenet_40_40"]


def on_meta(name: str, **kwargs) -> nn.Module:
    """A network without memory or time: its shapes."""
    with torch.device("meta"):
        return timm.create_model(name, **kwargs)


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def with_statistics(name: str, size: int = 32, **kwargs) -> nn.Module:
    """A network in double precision and evaluation mode, with running statistics other than 0 and 1."""
    model = timm.create_model(name, **kwargs).double()
    for _ in range(2):
        model(torch.randn(4, 3, size, size, dtype=torch.float64))
    return model.eval()


# What the networks have more or less than the published ones: 1x1 projections where the paper pads with zeros (and their
# norms); or, for a VGG, one linear layer in place of three and no biases, which the norms have.
PROJECTIONS = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
VGG_HEAD = (25_088 * 4096 + 4096) + (4096 * 4096 + 4096) + (4096 * 1000 + 1000)


def vgg_difference(convolutions: int) -> int:
    return 5130 - VGG_HEAD + convolutions


PUBLISHED = [  # name, millions of parameters for 10 classes as printed, parameters that ours has on top of those
    ("cifar_resnet20", "0.27", PROJECTIONS),  # He et al. 2016, table 6
    ("cifar_resnet32", "0.46", PROJECTIONS),
    ("cifar_resnet56", "0.85", PROJECTIONS),
    ("cifar_wrn_16_4", "2.7", 0),  # Zagoruyko and Komodakis 2016
    ("cifar_wrn_22_8", "17.2", 0),
    ("cifar_wrn_28_10", "36.5", 0),
    ("cifar_wrn_40_4", "8.9", 0),
    ("cifar_wrn_40_10", "55.8", 0),
    ("cifar_vgg13_bn", "133", vgg_difference(2944)),  # Simonyan and Zisserman 2015, table 2
    ("cifar_vgg16_bn", "138", vgg_difference(4224)),
    ("cifar_vgg19_bn", "144", vgg_difference(5504)),
    ("cifar_densenet_40_40", "1.9", 0),  # Berrada et al. 2019 (arXiv 1811.07591), section 5
]


@pytest.mark.parametrize(("name", "published", "more"), PUBLISHED, ids=[row[0] for row in PUBLISHED])
def test_has_the_published_number_of_parameters(name, published, more):
    decimals = len(published.partition(".")[2])
    assert f"{(count(on_meta(name)) - more) / 1e6:.{decimals}f}" == published


def test_settings_of_the_papers():
    """Cho and Lee 2017: VGG with two hidden layers, batch norms without gains and a momentum of 0.01, He's fan-in."""
    model = timm.create_model(
        "cifar_vgg13_bn", hidden_sizes=(512, 512), norm_gain=False, norm_momentum=0.01, init="fan_in"
    )
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert {m.momentum for m in norms} == {0.01} and len(norms) == 12
    assert not any(m.weight.requires_grad for m in norms) and all(m.bias.requires_grad for m in norms)
    assert count(model) == count(on_meta("cifar_vgg13_bn")) + 2 * (512 * 512 + 512 + 2 * 512)
    for weight, fan in ((model.layer5[2].conv.weight, 512 * 9), (model.fc.weight, 512)):
        assert weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.05)
    assert model.forward_head(torch.randn(2, 512, 1, 1), pre_logits=True).shape == (2, model.head_hidden_size)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)

    plain = timm.create_model("cifar_densenet_40_40", init="torch", head_bias=False)
    assert plain.fc.bias is None
    fan = plain.layer1[0].denselayer1.conv1.weight[0].numel()
    assert plain.layer1[0].denselayer1.conv1.weight.abs().max() <= fan**-0.5  # torch's: uniform
    assert not timm.create_model("cifar_wrn_16_4", head_bias="zero").fc.bias.any()
    with pytest.raises(ValueError, match="init is fan_out, fan_in, torch, not 'xavier'"):
        timm.create_model("cifar_resnet20", init="xavier")


class Weights(dict):
    """A state dict that computes with itself, in evaluation mode."""

    def conv(self, x, name, stride=1):
        weight = self[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def norm(self, x, name):
        gain, shift, mean, var = (
            self[f"{name}.{k}"].view(1, -1, 1, 1) for k in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / (var + 1e-5).sqrt() * gain + shift

    def logits(self, x):
        return x.mean((2, 3)) @ self["fc.weight"].T + self["fc.bias"]


def resnet_logits(weights: Weights, x: torch.Tensor, depth: int, stages: int) -> torch.Tensor:
    """He et al. 2016, arXiv 1512.03385, section 4.2."""
    x = weights.norm(weights.conv(x, "conv1"), "bn1").relu()
    for stage in range(1, stages + 1):
        for block in range(depth):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = weights.norm(weights.conv(x, f"{name}.conv1", stride), f"{name}.bn1").relu()
            y = weights.norm(weights.conv(y, f"{name}.conv2"), f"{name}.bn2")
            if stride == 2:
                x = weights.norm(weights.conv(x, f"{name}.downsample.0", 2), f"{name}.downsample.1")
            x = (x + y).relu()
    return weights.logits(x)


def preact_logits(weights: Weights, x: torch.Tensor, depth: int, stages: int) -> torch.Tensor:
    """He et al. 2016, arXiv 1603.05027, and Zagoruyko and Komodakis 2016: norm, ReLU, convolution, twice a block."""
    x = weights.conv(x, "conv1")
    for stage in range(1, stages + 1):
        for block in range(depth):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            activated = weights.norm(x, f"{name}.norm1").relu()
            y = weights.conv(activated, f"{name}.conv1", stride)
            y = weights.conv(weights.norm(y, f"{name}.norm2").relu(), f"{name}.conv2")
            projects = f"{name}.downsample.conv.weight" in weights
            x = y + (weights.conv(activated, f"{name}.downsample.conv", stride) if projects else x)
    return weights.logits(weights.norm(x, "norm").relu())


@pytest.mark.parametrize(
    ("name", "paper", "depth", "stages"),
    [
        ("cifar_resnet20", resnet_logits, 3, 3),
        ("cifar_resnet18", resnet_logits, 2, 4),
        ("cifar_preact_resnet18", preact_logits, 2, 4),
        ("cifar_wrn_16_4", preact_logits, 2, 3),
    ],
)
def test_logits_are_those_of_the_paper(name, paper, depth, stages):
    model = with_statistics(name)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected = paper(Weights(model.state_dict()), x, depth, stages)
    torch.testing.assert_close(model(x), expected, rtol=1e-10, atol=1e-10)


def vgg_names(key: str) -> str | None:
    """timm's `features.N` as `layerK.I.conv` or `.bn`: five stages, a pooling before all but the first."""
    layers = timm.models.vgg.cfgs["vgg16"]
    place, stage, index, names = 0, 1, 0, {}
    for v in layers:
        if v == "M":
            place, stage, index = place + 1, stage + 1, 1
            continue
        names[f"features.{place}"] = f"layer{stage}.{index}.conv"
        names[f"features.{place + 1}"] = f"layer{stage}.{index}.bn"
        place, index = place + 3, index + 1
    module, _, tensor = key.rpartition(".")
    return f"{names[module]}.{tensor}" if module in names else None


def densenet_names(key: str) -> str | None:
    key = key.replace("features.conv0.", "conv1.").replace("features.norm5.", "norm.").replace("classifier.", "fc.")
    key = re.sub(r"features\.denseblock(\d)\.", lambda m: f"layer{m[1]}.{0 if m[1] == '1' else 1}.", key)
    return re.sub(r"features\.transition(\d)\.", lambda m: f"layer{int(m[1]) + 1}.0.", key)


def timms_vgg16():
    network = timm.create_model("vgg16_bn", num_classes=0)
    network.pre_logits = nn.Identity()
    return network, vgg_names


def timms_densenet():
    network = timm.create_model("densenet121", num_classes=10, block_config=(6, 6, 6), growth_rate=40)
    network.features.conv0 = nn.Conv2d(3, 80, 3, padding=1, bias=False)
    network.features.norm0, network.features.pool0 = nn.Identity(), nn.Identity()
    return network, densenet_names


@pytest.mark.parametrize(
    ("name", "theirs"), [("cifar_vgg16_bn", timms_vgg16), ("cifar_densenet_40_40", timms_densenet)]
)
def test_is_timms_own_with_another_stem_and_head(name, theirs):
    """timm's network for ImageNet, its stem or head replaced, computes the same with the same weights."""
    network, rename = theirs()
    ours = with_statistics(name)
    mine = ours.state_dict()
    taken = {key: rename(key) for key in network.state_dict()}
    weights = {
        key: mine[new] if new in mine else torch.zeros_like(network.state_dict()[key])  # a VGG's redundant biases
        for key, new in taken.items()
        if new is not None
    }
    network.double().load_state_dict(weights, strict=False)
    used = {new for new in taken.values() if new in mine}
    assert used >= {key for key in mine if not (name == "cifar_vgg16_bn" and key.startswith("fc."))}
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(network.eval().forward_features(x), ours.forward_features(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_vgg13_bn", "cifar_densenet_40_40"])
def test_convolutions_start_with_he_initialisation(name):
    for module in timm.create_model(name).modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 5000:
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)


class TestTimmInterface:
    @pytest.mark.parametrize("name", CIFAR)
    def test_shapes_and_registry(self, name):
        config = timm.get_pretrained_cfg(name)
        assert (config.input_size, config.num_classes) == ((3, 32, 32), 10) and not config.has_weights
        model, x = on_meta(name).eval(), torch.empty(2, 3, 32, 32, device="meta")
        assert isinstance(model.get_submodule(config.first_conv), nn.Conv2d)
        assert model.get_submodule(config.classifier) is model.get_classifier()
        features = model.forward_features(x)
        assert features.shape == (2, model.num_features, *config.pool_size)
        assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)
        bare = on_meta(name, num_classes=0, global_pool="", in_chans=1)
        assert bare(x[:, :1]).shape == features.shape

        staged = on_meta(name, features_only=True)
        channels, reductions = staged.feature_info.channels(), staged.feature_info.reduction()
        assert reductions == [1, 2, 4, 8, 16][: len(channels)] and len(channels) >= 3
        shapes = [(c, 32 // r, 32 // r) for c, r in zip(channels, reductions, strict=True)]
        assert [tuple(y.shape[1:]) for y in staged(x)] == shapes

        groups = group_parameters(model, model.group_matcher(), reverse=True)
        assert set(groups) == {key for key, _ in model.named_parameters()}
        numbers = [next(n for key, n in groups.items() if key.startswith(f"layer{i + 1}.")) for i in range(len(shapes))]
        assert numbers == sorted(set(numbers)) and groups["fc.weight"] > numbers[-1]

    @pytest.mark.parametrize("name", SMALL)
    def test_classifier_can_be_replaced_and_checkpointing_changes_no_gradient(self, name):
        x, gradients = torch.randn(2, 3, 32, 32), []
        model = timm.create_model(name).eval()
        for enable in (False, True):
            model.set_grad_checkpointing(enable)
            model.zero_grad()
            model(x).square().sum().backward()
            gradients.append([p.grad.clone() for p in model.parameters()])
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b)
        model.double().reset_classifier(5, "catavgmax")
        assert model.get_classifier().weight.shape == (5, 2 * model.num_features) and model(x.double()).shape == (2, 5)
        assert model.head_hidden_size == 2 * model.num_features

    def test_hidden_layers_follow_the_pooling(self):
        x, settings = torch.randn(2, 3, 32, 32), {"hidden_sizes": (16, 8), "norm_gain": False, "norm_momentum": 0.01}
        model = timm.create_model("cifar_vgg13_bn", **settings).double().eval()
        hidden = model.hidden[0].weight
        model.reset_classifier(5, "max")
        assert model.hidden[0].weight is hidden and model(x.double()).shape == (2, 5)
        model.reset_classifier(5, "catavgmax")
        assert model.hidden[0].weight.shape == (16, 2 * model.num_features) and model(x.double()).shape == (2, 5)
        norm = model.hidden[1]
        assert (norm.momentum, norm.weight.requires_grad, norm.training) == (0.01, False, False)
        model.reset_classifier(0, "")
        assert model(x.double()).shape == (2, model.head_hidden_size, 1, 1)
        model.reset_classifier(3, "avg")
        assert model(x.double()).shape == (2, 3) and model.head_hidden_size == 8

    @pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_wrn_16_4", "cifar_densenet_40_40"])
    def test_dropout_acts_in_training_only(self, name):
        rate = {"drop_rate" if name == "cifar_resnet20" else "proj_drop_rate": 0.5}
        model, x = timm.create_model(name, **rate), torch.randn(2, 3, 32, 32)
        model.load_state_dict(timm.create_model(name).state_dict())  # it leaves the names
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.training = False  # so that nothing but dropout differs
        assert not torch.equal(model(x), model(x))
        assert torch.equal(model.eval()(x), model(x))
