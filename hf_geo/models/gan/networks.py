"""The generator and the discriminator."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from .config import ResNetGanConfig

OUTPUT_SCALE = 10.0  # of the discriminator, as published


def normalized(layer: nn.Module) -> nn.Module:
    """Initialises a layer, then has its weight divided by its largest singular value (Miyato et al. 2018, arXiv 1802.05957).

    The weight starts orthogonal and the bias from N(0, 0.01^2). Spectral normalization comes second, because it starts with
    the singular vectors of the weight that it finds.
    """
    nn.init.orthogonal_(layer.weight)
    if getattr(layer, "bias", None) is not None:
        nn.init.normal_(layer.bias, std=0.01)
    return spectral_norm(layer)


def convolution(inputs: int, outputs: int, kernel: int) -> nn.Module:
    return normalized(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2))


class SelfAttention(nn.Module):
    """Non-local attention to a map at half the resolution, added with a learned gain (Zhang et al. 2018, arXiv 1805.08318).

    Differs from that paper: the gain starts at 1, as in Fromage's experiment, and not at 0.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = convolution(channels, max(channels // 8, 1), 1)
        self.key = convolution(channels, max(channels // 8, 1), 1)
        self.value = convolution(channels, channels // 2, 1)
        self.out = convolution(channels // 2, channels, 1)
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        key, value = F.max_pool2d(self.key(x), 2), F.max_pool2d(self.value(x), 2)
        query, key, value = (t.flatten(2).transpose(1, 2) for t in (self.query(x), key, value))
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return x + self.gain * self.out(attended.transpose(1, 2).unflatten(2, x.shape[2:]))


class ConditionalBatchNorm(nn.Module):
    """Batch normalization whose gain, 1 + gamma(c), and shift, beta(c), depend on a condition c."""

    def __init__(self, channels: int, condition: int, momentum: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, momentum=momentum, affine=False)
        self.gamma = normalized(nn.Linear(condition, channels))
        self.beta = normalized(nn.Linear(condition, channels))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gamma, beta = (layer(condition)[:, :, None, None] for layer in (self.gamma, self.beta))
        return self.norm(x) * (1 + gamma) + beta


class UpBlock(nn.Module):
    """A residual block that doubles the resolution."""

    def __init__(self, inputs: int, outputs: int, condition: int, momentum: float) -> None:
        super().__init__()
        self.norm1 = ConditionalBatchNorm(inputs, condition, momentum)
        self.conv1 = convolution(inputs, outputs, 3)
        self.norm2 = ConditionalBatchNorm(outputs, condition, momentum)
        self.conv2 = convolution(outputs, outputs, 3)
        self.shortcut = convolution(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.conv1(double(F.relu(self.norm1(x, condition))))
        h = self.conv2(F.relu(self.norm2(h, condition)))
        return h + self.shortcut(double(x))


def double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class DownBlock(nn.Module):
    """A residual block that may halve the resolution."""

    def __init__(self, inputs: int, outputs: int, halve: bool) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, outputs, 3)
        self.conv2 = convolution(outputs, outputs, 3)
        self.shortcut = convolution(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.pool = nn.AvgPool2d(2) if halve else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(F.relu(x))))
        return self.pool(h + self.shortcut(x))


class Generator(nn.Module):
    """From latent variables and a class to an image with values from -1 to 1.

    Each resolution gets its own chunk of the latent variables: the first makes the map of 4 x 4 pixels, and each of the
    others, together with the class's embedding, is the condition of a block's norms.
    """

    def __init__(self, config: ResNetGanConfig) -> None:
        super().__init__()
        widths, condition = config.generator_widths, config.class_dim + config.chunk_dim
        self.chunk_dim = config.chunk_dim
        self.embedding = normalized(nn.Linear(config.table_rows, config.class_dim))
        self.first = normalized(nn.Linear(config.chunk_dim, widths[0] * 16))
        self.blocks = nn.ModuleList(
            UpBlock(inputs, outputs, condition, config.norm_momentum) for inputs, outputs in pairwise(widths)
        )
        self.attention = SelfAttention(widths[-2])
        self.norm = nn.BatchNorm2d(widths[-1], momentum=config.norm_momentum)
        self.last = convolution(widths[-1], config.channels, 3)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        first, *chunks = latents.split(self.chunk_dim, dim=1)
        rows = F.one_hot(labels, self.embedding.in_features)
        embedded = self.embedding(rows.to(latents.dtype))
        x = self.first(first).unflatten(1, (-1, 4, 4))
        for i, (block, chunk) in enumerate(zip(self.blocks, chunks, strict=True)):
            if i == len(self.blocks) - 1:
                x = self.attention(x)
            x = block(x, torch.cat([embedded, chunk], dim=1))
        return self.last(F.relu(self.norm(x))).tanh()


class Discriminator(nn.Module):
    """Scores images, above 0 for real ones; the class enters as a projection (Miyato & Koyama 2018, arXiv 1802.05637)."""

    def __init__(self, config: ResNetGanConfig) -> None:
        super().__init__()
        widths, channels = config.discriminator_widths, config.channels
        self.conv1 = convolution(channels, widths[0], 3)
        self.conv2 = convolution(widths[0], widths[0], 3)
        self.shortcut = convolution(channels, widths[0], 1)
        self.blocks = nn.ModuleList(
            [
                *(DownBlock(inputs, outputs, halve=True) for inputs, outputs in pairwise(widths)),
                DownBlock(widths[-1], widths[-1], halve=False),
            ]
        )
        self.attention = SelfAttention(widths[1])
        self.score = normalized(nn.Linear(widths[-1], 1))
        self.embedding = normalized(nn.Embedding(config.table_rows, widths[-1]))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        stem = F.avg_pool2d(self.conv2(F.relu(self.conv1(images))), 2)
        x = stem + self.shortcut(F.avg_pool2d(images, 2))
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i == 0:
                x = self.attention(x)
        h = F.relu(x).mean((2, 3))
        return OUTPUT_SCALE * (self.score(h)[:, 0] + (self.embedding(labels) * h).sum(1))
