"""Networks for 32-pixel images that the papers used and timm lacks, in timm's registry and with timm's interface."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import create_classifier
from timm.models import build_model_with_cfg, checkpoint_seq, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, downsample_conv
from torch import nn


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


class CifarResNet(nn.Module):
    """The residual network for small images of He et al. 2016 (section 4.2), with projection shortcuts.

    A 3x3 convolution at full resolution and three stages of basic blocks at strides 1, 2 and 4. Takes images of any
    size (B, in_chans, H, W) and returns logits (B, num_classes).

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
    ):
        super().__init__()
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.grad_checkpointing = False

        self.conv1 = nn.Conv2d(in_chans, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.act1 = nn.ReLU(inplace=True)
        self.feature_info = []
        in_channels = widths[0]
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
            self.add_module(f"layer{i}", residual_stage(in_channels, width, depth, stride=1 if i == 1 else 2))
            self.feature_info.append({"num_chs": width, "reduction": 2 ** (i - 1), "module": f"layer{i}"})
            in_channels = width
        self.num_features = self.head_hidden_size = in_channels
        self.global_pool, self.fc = create_classifier(in_channels, num_classes, pool_type=global_pool)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        return {"stem": r"^conv1|bn1", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        pool = global_pool or self.global_pool.pool_type
        self.global_pool, self.fc = create_classifier(self.num_features, num_classes, pool_type=pool)
        self.fc.to(self.conv1.weight)
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_chans, H, W) -> (B, num_features, H/4, W/4)."""
        x = self.act1(self.bn1(self.conv1(x)))
        stages = [getattr(self, info["module"]) for info in self.feature_info]
        if self.grad_checkpointing and not torch.jit.is_scripting():
            return checkpoint_seq(stages, x, flatten=True)
        for stage in stages:
            x = stage(x)
        return x

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """(B, num_features, H', W') -> logits (B, num_classes), or the pooled features."""
        x = nn.functional.dropout(self.global_pool(x), self.drop_rate, self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(x))


# No weights are published, so mean and std are only a starting point: a data set brings its own.
_cfg = partial(
    dict,
    input_size=(3, 32, 32),
    num_classes=10,
    interpolation="bicubic",
    crop_pct=1.0,
    mean=IMAGENET_DEFAULT_MEAN,
    std=IMAGENET_DEFAULT_STD,
    first_conv="conv1",
    classifier="fc",
    paper_ids="arXiv:1512.03385",
)

default_cfgs = generate_default_cfgs({"cifar_resnet20": _cfg(pool_size=(8, 8))})


def _create(variant: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    return build_model_with_cfg(CifarResNet, variant, pretrained, feature_cfg={"out_indices": (0, 1, 2)}, **kwargs)


@register_model
def cifar_resnet20(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-20 with projection shortcuts: 272,474 parameters for 10 classes."""
    return _create("cifar_resnet20", pretrained, **{"depths": (3, 3, 3), **kwargs})
