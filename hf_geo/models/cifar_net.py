"""The base of the networks for small images: timm's interface around a sequence of modules."""

from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import create_classifier
from timm.models import checkpoint
from torch import nn


class CifarNet(nn.Module):
    """A network for small images: a body of child modules applied in order, global pooling and a linear classifier.

    A subclass's `__init__` adds the body's modules with `add_stage` and `add_module`, then calls `add_head`. Takes images
    (B, in_chans, H, W) and returns logits (B, num_classes).

    Args:
        num_classes: Number of outputs; with 0 these are the pooled features.
        in_chans: Channels of the image.
        global_pool: Pooling before the classifier, as in timm.
        drop_rate: Dropout before the classifier.
    """

    def __init__(
        self, num_classes: int = 10, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self._pool_type = global_pool
        self.grad_checkpointing = False
        self.feature_info: list[dict[str, Any]] = []

    def add_stage(self, stage: nn.Module, channels: int, reduction: int) -> None:
        """Adds `layer1`, `layer2`, ..., whose features have `channels` and 1 / `reduction` of the image's size."""
        name = f"layer{len(self.feature_info) + 1}"
        self.add_module(name, stage)
        self.feature_info.append({"num_chs": channels, "reduction": reduction, "module": name})

    def add_head(self, num_features: int) -> None:
        """Adds pooling and classifier, and gives all convolutions the initialisation of He et al. 2015."""
        self.num_features = num_features
        self.reset_classifier(self.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def body(self) -> dict[str, nn.Module]:
        """The modules before the pooling by name, in the order they are applied."""
        return {name: module for name, module in self.named_children() if name not in ("global_pool", "fc")}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        layers = r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"
        return {"stem": r"^conv1|bn1", "blocks": [(layers, None), (r"^norm", (99999,))]}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        self._pool_type = self._pool_type if global_pool is None else global_pool
        self.global_pool, self.fc = create_classifier(self.num_features, num_classes, pool_type=self._pool_type)
        self.fc.to(next(self.parameters()))
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_chans, H, W) -> (B, num_features, H', W')."""
        for name, module in self.body.items():
            x = checkpoint(module, x) if self.grad_checkpointing and name.startswith("layer") else module(x)
        return x

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """(B, num_features, H', W') -> logits (B, num_classes), or the pooled features."""
        x = nn.functional.dropout(self.global_pool(x), self.drop_rate, self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(x))


def cfg(**changes: Any) -> dict[str, Any]:
    """Makes timm's record of a network. No weights are published, so the mean and std of the dataset replace these."""
    return {
        "input_size": (3, 32, 32),
        "num_classes": 10,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "conv1",
        "classifier": "fc",
        **changes,
    }
