"""The plain multilayer perceptron whose depth Fromage's paper varied, in timm's registry and with timm's interface."""

import itertools
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from .cifar_net import cfg


class MlpDepth(nn.Module):
    """`depth` hidden layers of `width` ReLUs and a linear classifier, with biases and torch's own initialisation.

    Differs from the other networks here: it is built for one image size, and has neither norms nor, unless asked, skip
    connections, so that a deep one does not train under most optimizers. Takes images (B, in_chans, H, W) of that size and
    returns logits (B, num_classes).

    Args:
        depth: Hidden layers, at least 1.
        width: Units of each; 784 in Bernstein et al. 2020 (arXiv 2002.03432), which varied the depth from 1 to 50.
        num_classes: Outputs; 0 leaves the features.
        in_chans: Channels of the image.
        img_size: Height and width of the image in pixels.
        global_pool: "" or "avg": there is nothing to pool.
        drop_rate: Dropout before the classifier.
        residual: Whether every hidden layer as wide as its input is x + ReLU(Wx + b), as in the same paper's figure 1.

    Raises:
        ValueError: A depth or width below 1.
    """

    def __init__(
        self,
        depth: int = 5,
        width: int = 784,
        num_classes: int = 10,
        in_chans: int = 1,
        img_size: int | tuple[int, int] = 28,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        residual: bool = False,
    ) -> None:
        super().__init__()
        if depth < 1 or width < 1:
            raise ValueError(f"mlp_depth has at least one layer of one unit, not depth={depth} and width={width}.")
        height, across = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.num_features = self.head_hidden_size = width
        sizes = [in_chans * height * across, *[width] * depth]
        layers = [(_Residual if residual and a == b else nn.Sequential, a, b) for a, b in itertools.pairwise(sizes)]
        self.layers = nn.Sequential(*(layer(nn.Linear(a, b), nn.ReLU()) for layer, a, b in layers))
        self.reset_classifier(num_classes)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        return {"blocks": r"^layers\.(\d+)"}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        if enable:
            raise ValueError("mlp_depth has no gradient checkpointing: its activations are small beside its weights.")

    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.fc.to(next(self.parameters()))

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_chans, H, W) -> (B, width)."""
        return self.layers(x.flatten(1))

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """(B, width) -> logits (B, num_classes), or the features."""
        x = nn.functional.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(x))


class _Residual(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + super().forward(x)


default_cfgs = generate_default_cfgs(
    {
        "mlp_depth": cfg(
            input_size=(1, 28, 28),
            fixed_input_size=True,
            mean=(0.1307,),  # MNIST's
            std=(0.3081,),
            first_conv=None,  # linear: timm has no way to adapt it to other channels
            paper_ids="arXiv:2002.03432",
        )
    }
)


@register_model
def mlp_depth(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The perceptron of the depth experiment: 3,085,050 parameters with 5 hidden layers and 10 classes."""
    return build_model_with_cfg(MlpDepth, "mlp_depth", pretrained, **kwargs)
