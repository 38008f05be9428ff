"""The base of the networks for small images: timm's interface around a sequence of modules."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import create_classifier
from timm.models import checkpoint
from torch import nn

INITIALISATIONS = ("fan_out", "fan_in", "torch")


class CifarNet(nn.Module):
    """A network for small images: a body of child modules applied in order, global pooling and a linear classifier.

    A subclass's `__init__` adds the body's modules with `add_stage` and `add_module`, then calls `add_head`. Takes images
    (B, in_chans, H, W) and returns logits (B, num_classes).

    Args:
        num_classes: Number of outputs; with 0 these are the pooled features.
        in_chans: Channels of the image.
        global_pool: Pooling before the classifier, as in timm.
        drop_rate: Dropout before the classifier.
        init: Initialisation: "fan_out" and "fan_in" are the normal one of He et al. 2015 for convolutions, "fan_in" for the
            classifier too; "torch" is torch's own for all.
        norm_momentum: Share of a batch's statistics in the running ones of batch norms.
        norm_gain: Whether batch norms learn gains; without, they stay 1.
        head_bias: Whether the classifier has a bias: True, False, or "zero" for one that starts at 0.
        hidden_sizes: Widths of linear layers, each with batch norm and ReLU, before the classifier.

    Raises:
        ValueError: An unknown `init`.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        init: str = "fan_out",
        norm_momentum: float = 0.1,
        norm_gain: bool = True,
        head_bias: bool | str = True,
        hidden_sizes: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if init not in INITIALISATIONS:
            raise ValueError(f"init is {', '.join(INITIALISATIONS)}, not {init!r}")
        self.init, self.norm_momentum, self.norm_gain = init, norm_momentum, norm_gain
        self.head_bias, self.hidden_sizes = head_bias, tuple(hidden_sizes)
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self._pool_type = global_pool
        self._widths: tuple[int, ...] = ()  # of what the head's layers take, from the pooled features to the classifier
        self.grad_checkpointing = False
        self.feature_info: list[dict[str, Any]] = []

    def add_stage(self, stage: nn.Module, channels: int, reduction: int) -> None:
        """Adds `layer1`, `layer2`, ..., whose features have `channels` and 1 / `reduction` of the image's size."""
        name = f"layer{len(self.feature_info) + 1}"
        self.add_module(name, stage)
        self.feature_info.append({"num_chs": channels, "reduction": reduction, "module": name})

    def add_head(self, num_features: int) -> None:
        """Adds pooling, hidden layers and classifier, and initialises all modules."""
        self.num_features = num_features
        self.reset_classifier(self.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and self.init != "torch":
                nn.init.kaiming_normal_(module.weight, mode=self.init, nonlinearity="relu")
            self._set_norm(module)

    def _set_norm(self, module: nn.Module) -> None:
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = self.norm_momentum
            module.weight.requires_grad_(self.norm_gain)

    @property
    def body(self) -> dict[str, nn.Module]:
        """The modules before the pooling by name, in the order they are applied."""
        return {name: module for name, module in self.named_children() if name not in ("global_pool", "hidden", "fc")}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        layers = r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"
        return {"stem": r"^conv1|bn1", "blocks": [(layers, None), (r"^norm", (99999,))]}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Rebuilds the classifier.

        Rebuilds the hidden layers too when pooling changes the feature size; without pooling there are none.
        """
        self.num_classes = num_classes
        self._pool_type = self._pool_type if global_pool is None else global_pool
        pool, _ = create_classifier(self.num_features, 0, pool_type=self._pool_type)
        sizes = (self.num_features * pool.feat_mult(), *(self.hidden_sizes if self._pool_type else ()))
        if sizes != self._widths:
            layers = [(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()) for a, b in itertools.pairwise(sizes)]
            self.hidden = nn.Sequential(*itertools.chain(*layers)).to(next(self.parameters())).train(self.training)
            self._widths = sizes
            for module in self.hidden:
                self._set_norm(module)
        self.global_pool, self.fc = create_classifier(self.num_features, num_classes, pool_type=self._pool_type)
        self.head_hidden_size = sizes[-1]
        if self.hidden_sizes and num_classes:
            self.fc = nn.Linear(self.head_hidden_size, num_classes)
        self.fc.to(next(self.parameters()))
        if num_classes and self.init == "fan_in":
            nn.init.kaiming_normal_(self.fc.weight, mode="fan_in", nonlinearity="relu")
        if num_classes and self.head_bias == "zero":
            nn.init.zeros_(self.fc.bias)
        elif num_classes and not self.head_bias:
            self.fc.bias = None

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_chans, H, W) -> (B, num_features, H', W')."""
        for name, module in self.body.items():
            x = checkpoint(module, x) if self.grad_checkpointing and name.startswith("layer") else module(x)
        return x

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """(B, num_features, H', W') -> logits (B, num_classes), or what the classifier takes."""
        x = nn.functional.dropout(self.hidden(self.global_pool(x)), self.drop_rate, self.training)
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
