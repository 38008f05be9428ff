"""Networks for 32-pixel images that the papers used and timm lacks, in timm's registry and with timm's interface."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from timm.layers import BatchNormAct2d, ConvNormAct, create_conv2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.densenet import DenseBlock, DenseTransition
from timm.models.resnet import BasicBlock, downsample_conv
from timm.models.resnetv2 import DownsampleConv, PreActBasic
from timm.models.vgg import cfgs as vgg_layers
from torch import nn

from .cifar_net import CifarNet, cfg


def residual_stage(in_channels: int, channels: int, depth: int, stride: int) -> nn.Sequential:
    """`depth` basic blocks; if the first changes width or resolution, its shortcut has a 1x1 projection."""
    blocks = []
    for i in range(depth):
        stride = stride if i == 0 else 1
        changes = stride != 1 or in_channels != channels
        shortcut = downsample_conv(in_channels, channels, kernel_size=1, stride=stride) if changes else None
        blocks.append(BasicBlock(in_channels, channels, stride=stride, downsample=shortcut))
        in_channels = channels
    return nn.Sequential(*blocks)


def preact_stage(in_channels: int, channels: int, depth: int, stride: int, drop_rate: float) -> nn.Sequential:
    """`depth` basic blocks whose norms and ReLUs come before their convolutions, with dropout between the two."""
    blocks = []
    for i in range(depth):
        block = PreActBasic(
            in_channels,
            channels,
            stride=stride if i == 0 else 1,
            conv_layer=create_conv2d,
            norm_layer=BatchNormAct2d,
            proj_layer=DownsampleConv,
        )
        block.norm2.drop = nn.Dropout(drop_rate)  # before the ReLU, with the same effect as after it
        blocks.append(block)
        in_channels = channels
    return nn.Sequential(*blocks)


class CifarResNet(CifarNet):
    """The residual network for small images of He et al. 2016 (arXiv 1512.03385, section 4.2), with projection shortcuts.

    A 3x3 convolution at full resolution, then stages of basic blocks, each but the first at half the resolution. Takes
    images of any size.

    Args:
        depths: Blocks in each stage.
        widths: Channels in each stage.
        head: As `CifarNet`.
    """

    def __init__(self, depths: Sequence[int] = (3, 3, 3), widths: Sequence[int] = (16, 32, 64), **head: Any) -> None:
        super().__init__(**head)
        channels = widths[0]
        self.conv1 = nn.Conv2d(self.in_chans, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU(inplace=True)
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            self.add_stage(residual_stage(channels, width, depth, stride=2 if i else 1), width, 2**i)
            channels = width
        self.add_head(channels)


class CifarPreActResNet(CifarNet):
    """The residual network with pre-activation of He et al. 2016 (arXiv 1603.05027), for small images.

    With a stem narrower than the first stage and dropout in its blocks it is the wide residual network of Zagoruyko and
    Komodakis 2016 (arXiv 1605.07146): WRN-d-k has (d - 4) / 6 blocks a stage and widths 16 k, 32 k and 64 k.

    Args:
        depths: Blocks in each stage.
        widths: Channels in each stage.
        stem_width: Channels of the first convolution.
        proj_drop_rate: Dropout between the two convolutions of each block.
        head: As `CifarNet`.
    """

    def __init__(
        self,
        depths: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        stem_width: int = 64,
        proj_drop_rate: float = 0.0,
        **head: Any,
    ) -> None:
        super().__init__(**head)
        channels = stem_width
        self.conv1 = nn.Conv2d(self.in_chans, channels, 3, padding=1, bias=False)
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            stage = preact_stage(channels, width, depth, stride=2 if i else 1, drop_rate=proj_drop_rate)
            self.add_stage(stage, width, 2**i)
            channels = width
        self.norm = BatchNormAct2d(channels)
        self.add_head(channels)


class CifarVgg(CifarNet):
    """The convolutions of a VGG (Simonyan and Zisserman 2015, arXiv 1409.1556) with batch norm, for small images.

    Its five poolings make one pixel of 32, so a single linear layer takes the place of the three of the original, and
    the convolutions, whose batch norms shift anyway, have no biases. Takes images of 32 pixels or more.

    Args:
        layers: "vgg13", "vgg16" or "vgg19".
        head: As `CifarNet`.
    """

    def __init__(self, layers: str = "vgg16", **head: Any) -> None:
        super().__init__(**head)
        channels, stage = self.in_chans, []
        for width in vgg_layers[layers]:
            if width == "M":
                self.add_stage(nn.Sequential(*stage), channels, 2 ** len(self.feature_info))
                stage = [nn.MaxPool2d(2)]
            else:
                stage.append(ConvNormAct(channels, width, 3))
                channels = width
        self.pool = stage[0]
        self.add_head(channels)


class CifarDenseNet(CifarNet):
    """DenseNet-BC of Huang et al. 2017 (arXiv 1608.06993, section 3) for small images: bottlenecks, halving transitions.

    Args:
        depths: Layers (of two convolutions each) in each of the dense blocks.
        growth_rate: Channels each layer adds.
        proj_drop_rate: Dropout after each layer.
        head: As `CifarNet`.
    """

    def __init__(
        self, depths: Sequence[int] = (6, 6, 6), growth_rate: int = 40, proj_drop_rate: float = 0.0, **head: Any
    ) -> None:
        super().__init__(**head)
        channels = 2 * growth_rate
        self.conv1 = nn.Conv2d(self.in_chans, channels, 3, padding=1, bias=False)
        for i, depth in enumerate(depths):
            stage = [DenseTransition(channels, channels // 2)] if i else []
            channels = channels // 2 if i else channels
            stage.append(DenseBlock(depth, channels, bn_size=4, growth_rate=growth_rate, drop_rate=proj_drop_rate))
            channels += depth * growth_rate
            self.add_stage(nn.Sequential(*stage), channels, 2**i)
        self.norm = BatchNormAct2d(channels)
        self.add_head(channels)


@dataclass(frozen=True)
class Variant:
    """An architecture of timm's registry: a network with some arguments.

    Args:
        network: Its class.
        paper: The paper's arXiv number.
        stages: Number of its stages.
        about: What it is, and how many parameters it has for 10 classes.
        args: The arguments that differ from the defaults of the class.
    """

    network: type[CifarNet]
    paper: str
    stages: int
    about: str
    args: Mapping[str, Any] = field(default_factory=dict)


def _resnet(about: str, *depths: int) -> Variant:
    widths = (16, 32, 64) if len(depths) == 3 else (64, 128, 256, 512)
    return Variant(CifarResNet, "1512.03385", len(depths), about, {"depths": depths, "widths": widths})


def _wide_resnet(about: str, depth: int, width: int) -> Variant:
    args = {"depths": ((depth - 4) // 6,) * 3, "widths": (16 * width, 32 * width, 64 * width), "stem_width": 16}
    return Variant(CifarPreActResNet, "1605.07146", 3, about, args)


def _vgg(about: str, layers: str) -> Variant:
    return Variant(CifarVgg, "1409.1556", 5, about, {"layers": layers})


_PREACT = "ResNet-18 with pre-activation and the stem of the networks for CIFAR: 11,172,170 parameters"
_DENSENET = "DenseNet-BC of depth 40 and growth rate 40: 1,901,930 parameters"
VARIANTS = {
    "cifar_resnet20": _resnet("ResNet-20 with projection shortcuts: 272,474 parameters", 3, 3, 3),
    "cifar_resnet32": _resnet("ResNet-32 with projection shortcuts: 466,906 parameters", 5, 5, 5),
    "cifar_resnet56": _resnet("ResNet-56 with projection shortcuts: 855,770 parameters", 9, 9, 9),
    "cifar_resnet18": _resnet("ImageNet's ResNet-18 with the stem for CIFAR: 11,173,962 parameters", 2, 2, 2, 2),
    "cifar_preact_resnet18": Variant(CifarPreActResNet, "1603.05027", 4, _PREACT),
    "cifar_wrn_16_4": _wide_resnet("WRN-16-4: 2,748,890 parameters", 16, 4),
    "cifar_wrn_22_8": _wide_resnet("WRN-22-8: 17,158,106 parameters", 22, 8),
    "cifar_wrn_28_10": _wide_resnet("WRN-28-10: 36,479,194 parameters", 28, 10),
    "cifar_wrn_40_4": _wide_resnet("WRN-40-4: 8,949,210 parameters", 40, 4),
    "cifar_wrn_40_10": _wide_resnet("WRN-40-10: 55,841,754 parameters", 40, 10),
    "cifar_vgg13_bn": _vgg("VGG-13 with batch norm: 9,413,066 parameters", "vgg13"),
    "cifar_vgg16_bn": _vgg("VGG-16 with batch norm: 14,724,042 parameters", "vgg16"),
    "cifar_vgg19_bn": _vgg("VGG-19 with batch norm: 20,035,018 parameters", "vgg19"),
    "cifar_densenet_40_40": Variant(CifarDenseNet, "1608.06993", 3, _DENSENET),
}


def _record(variant: Variant) -> dict[str, Any]:
    size = {3: 8, 4: 4, 5: 1}[variant.stages]  # of the last feature map; a VGG pools once more
    first_conv = "layer1.0.conv" if variant.network is CifarVgg else "conv1"
    return cfg(paper_ids=f"arXiv:{variant.paper}", pool_size=(size, size), first_conv=first_conv)


default_cfgs = generate_default_cfgs({name: _record(variant) for name, variant in VARIANTS.items()})


def _register(name: str, variant: Variant) -> None:
    """Makes and registers the function that builds an architecture."""

    def build(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        features = {"out_indices": tuple(range(variant.stages))}
        args = {**variant.args, **kwargs}
        return build_model_with_cfg(variant.network, name, pretrained, feature_cfg=features, **args)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"{variant.about} for 10 classes."
    register_model(build)


for _name, _variant in VARIANTS.items():
    _register(_name, _variant)
