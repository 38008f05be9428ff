"""Networks for 32-pixel images that the papers used and timm lacks, in timm's registry and with timm's interface."""

from collections.abc import Sequence
from functools import partial
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
    """`depth` basic blocks; the first changes width and resolution, with a 1x1 projection on its shortcut if it does."""
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
        block.norm2.drop = nn.Dropout(drop_rate)  # before its ReLU, which is the same as after it
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
        num_classes: Outputs; 0 leaves the pooled features.
        in_chans: Channels of the image.
        global_pool: Pooling before the classifier, as in timm.
        drop_rate: Dropout before the classifier.
    """

    def __init__(
        self,
        depths: Sequence[int] = (3, 3, 3),
        widths: Sequence[int] = (16, 32, 64),
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(in_chans, drop_rate)
        channels = widths[0]
        self.conv1 = nn.Conv2d(in_chans, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU(inplace=True)
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            self.add_stage(residual_stage(channels, width, depth, stride=2 if i else 1), width, 2**i)
            channels = width
        self.add_head(channels, num_classes, global_pool)


class CifarPreActResNet(CifarNet):
    """The residual network with pre-activation of He et al. 2016 (arXiv 1603.05027), for small images.

    With a stem narrower than the first stage and dropout in its blocks it is the wide residual network of Zagoruyko and
    Komodakis 2016 (arXiv 1605.07146): WRN-d-k has (d - 4) / 6 blocks a stage and widths 16 k, 32 k and 64 k.

    Args:
        depths: Blocks in each stage.
        widths: Channels in each stage.
        stem_width: Channels of the first convolution.
        proj_drop_rate: Dropout between the two convolutions of each block.
        num_classes, in_chans, global_pool, drop_rate: As `CifarResNet`.
    """

    def __init__(
        self,
        depths: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        stem_width: int = 64,
        proj_drop_rate: float = 0.0,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(in_chans, drop_rate)
        channels = stem_width
        self.conv1 = nn.Conv2d(in_chans, channels, 3, padding=1, bias=False)
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            stage = preact_stage(channels, width, depth, stride=2 if i else 1, drop_rate=proj_drop_rate)
            self.add_stage(stage, width, 2**i)
            channels = width
        self.norm = BatchNormAct2d(channels)
        self.add_head(channels, num_classes, global_pool)


class CifarVgg(CifarNet):
    """The convolutions of a VGG (Simonyan and Zisserman 2015, arXiv 1409.1556) with batch norm, for small images.

    Its five poolings make one pixel of 32, so a single linear layer takes the place of the three of the original, and
    the convolutions, whose batch norms shift anyway, have no biases. Takes images of 32 pixels or more.

    Args:
        layers: "vgg13", "vgg16" or "vgg19".
        num_classes, in_chans, global_pool, drop_rate: As `CifarResNet`.
    """

    def __init__(
        self,
        layers: str = "vgg16",
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(in_chans, drop_rate)
        channels, stage = in_chans, []
        for width in vgg_layers[layers]:
            if width == "M":
                self.add_stage(nn.Sequential(*stage), channels, 2 ** len(self.feature_info))
                stage = [nn.MaxPool2d(2)]
            else:
                stage.append(ConvNormAct(channels, width, 3))
                channels = width
        self.pool = stage[0]
        self.add_head(channels, num_classes, global_pool)


class CifarDenseNet(CifarNet):
    """DenseNet-BC of Huang et al. 2017 (arXiv 1608.06993, section 3) for small images: bottlenecks, halving transitions.

    Args:
        depths: Layers (of two convolutions each) in each of the dense blocks.
        growth_rate: Channels each layer adds.
        proj_drop_rate: Dropout after each layer.
        num_classes, in_chans, global_pool, drop_rate: As `CifarResNet`.
    """

    def __init__(
        self,
        depths: Sequence[int] = (6, 6, 6),
        growth_rate: int = 40,
        proj_drop_rate: float = 0.0,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(in_chans, drop_rate)
        channels = 2 * growth_rate
        self.conv1 = nn.Conv2d(in_chans, channels, 3, padding=1, bias=False)
        for i, depth in enumerate(depths):
            stage = [DenseTransition(channels, channels // 2)] if i else []
            channels = channels // 2 if i else channels
            stage.append(DenseBlock(depth, channels, bn_size=4, growth_rate=growth_rate, drop_rate=proj_drop_rate))
            channels += depth * growth_rate
            self.add_stage(nn.Sequential(*stage), channels, 2**i)
        self.norm = BatchNormAct2d(channels)
        self.add_head(channels, num_classes, global_pool)


_resnet = partial(cfg, paper_ids="arXiv:1512.03385", pool_size=(8, 8))
_wrn = partial(cfg, paper_ids="arXiv:1605.07146", pool_size=(8, 8))
_vgg = partial(cfg, paper_ids="arXiv:1409.1556", pool_size=(1, 1), first_conv="layer1.0.conv")

default_cfgs = generate_default_cfgs(
    {
        "cifar_resnet20": _resnet(),
        "cifar_resnet32": _resnet(),
        "cifar_resnet56": _resnet(),
        "cifar_resnet18": _resnet(pool_size=(4, 4)),
        "cifar_preact_resnet18": _resnet(paper_ids="arXiv:1603.05027", pool_size=(4, 4)),
        "cifar_wrn_16_4": _wrn(),
        "cifar_wrn_22_8": _wrn(),
        "cifar_wrn_28_10": _wrn(),
        "cifar_wrn_40_4": _wrn(),
        "cifar_wrn_40_10": _wrn(),
        "cifar_vgg13_bn": _vgg(),
        "cifar_vgg16_bn": _vgg(),
        "cifar_vgg19_bn": _vgg(),
        "cifar_densenet_40_40": cfg(paper_ids="arXiv:1608.06993", pool_size=(8, 8)),
    }
)


def _create(network: type[CifarNet], variant: str, pretrained: bool, stages: int, **kwargs: Any) -> nn.Module:
    indices = {"out_indices": tuple(range(stages))}
    return build_model_with_cfg(network, variant, pretrained, feature_cfg=indices, **kwargs)


def _resnet_of(variant: str, depths: tuple[int, ...], pretrained: bool, kwargs: dict[str, Any]) -> nn.Module:
    widths = (16, 32, 64) if len(depths) == 3 else (64, 128, 256, 512)
    return _create(CifarResNet, variant, pretrained, len(depths), **{"depths": depths, "widths": widths, **kwargs})


def _wrn_of(depth: int, width: int, pretrained: bool, kwargs: dict[str, Any]) -> nn.Module:
    args = {"depths": ((depth - 4) // 6,) * 3, "widths": (16 * width, 32 * width, 64 * width), "stem_width": 16}
    return _create(CifarPreActResNet, f"cifar_wrn_{depth}_{width}", pretrained, 3, **{**args, **kwargs})


@register_model
def cifar_resnet20(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-20 with projection shortcuts: 272,474 parameters for 10 classes."""
    return _resnet_of("cifar_resnet20", (3, 3, 3), pretrained, kwargs)


@register_model
def cifar_resnet32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-32 with projection shortcuts: 466,906 parameters for 10 classes."""
    return _resnet_of("cifar_resnet32", (5, 5, 5), pretrained, kwargs)


@register_model
def cifar_resnet56(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-56 with projection shortcuts: 855,770 parameters for 10 classes."""
    return _resnet_of("cifar_resnet56", (9, 9, 9), pretrained, kwargs)


@register_model
def cifar_resnet18(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ImageNet's ResNet-18 with the stem of the networks for CIFAR: 11,173,962 parameters for 10 classes."""
    return _resnet_of("cifar_resnet18", (2, 2, 2, 2), pretrained, kwargs)


@register_model
def cifar_preact_resnet18(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-18 with pre-activation and the stem of the networks for CIFAR: 11,172,170 parameters for 10 classes."""
    return _create(CifarPreActResNet, "cifar_preact_resnet18", pretrained, 4, **kwargs)


@register_model
def cifar_wrn_16_4(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """WRN-16-4: 2,748,890 parameters for 10 classes."""
    return _wrn_of(16, 4, pretrained, kwargs)


@register_model
def cifar_wrn_22_8(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """WRN-22-8: 17,158,106 parameters for 10 classes."""
    return _wrn_of(22, 8, pretrained, kwargs)


@register_model
def cifar_wrn_28_10(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """WRN-28-10: 36,479,194 parameters for 10 classes."""
    return _wrn_of(28, 10, pretrained, kwargs)


@register_model
def cifar_wrn_40_4(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """WRN-40-4: 8,949,210 parameters for 10 classes."""
    return _wrn_of(40, 4, pretrained, kwargs)


@register_model
def cifar_wrn_40_10(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """WRN-40-10: 55,841,754 parameters for 10 classes."""
    return _wrn_of(40, 10, pretrained, kwargs)


@register_model
def cifar_vgg13_bn(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """VGG-13 with batch norm: 9,413,066 parameters for 10 classes."""
    return _create(CifarVgg, "cifar_vgg13_bn", pretrained, 5, **{"layers": "vgg13", **kwargs})


@register_model
def cifar_vgg16_bn(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """VGG-16 with batch norm: 14,724,042 parameters for 10 classes."""
    return _create(CifarVgg, "cifar_vgg16_bn", pretrained, 5, **{"layers": "vgg16", **kwargs})


@register_model
def cifar_vgg19_bn(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """VGG-19 with batch norm: 20,035,018 parameters for 10 classes."""
    return _create(CifarVgg, "cifar_vgg19_bn", pretrained, 5, **{"layers": "vgg19", **kwargs})


@register_model
def cifar_densenet_40_40(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """DenseNet-BC of depth 40 and growth rate 40: 1,901,930 parameters for 10 classes."""
    return _create(CifarDenseNet, "cifar_densenet_40_40", pretrained, 3, **kwargs)
