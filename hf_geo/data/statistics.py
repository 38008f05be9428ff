"""Means and standard deviations of colours, on a scale of 0 to 1."""

import numpy as np
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
FIXED_STATISTICS: dict[str, Statistics] = {
    "imagenet": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    "none": ((0.0,) * 3, (1.0,) * 3),
}
_KNOWN: dict[str, Statistics] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "mnist": ((0.1307,) * 3, (0.3081,) * 3),
}


def known_statistics(name: str) -> Statistics:
    """Mean and standard deviation of a dataset's colours, by its Hub id or folder; ImageNet's if it is not known."""
    return _KNOWN.get(name.rsplit("/", 1)[-1], (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))


def colour_statistics(pixels: np.ndarray) -> Statistics:
    """Mean and standard deviation of each colour of (N, H, W, C) uint8 images.

    Greyscale images (C = 1) count as colour images with three equal channels.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in torch.from_numpy(pixels).unbind(-1):
        share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        means.append(float((share * levels).sum()))
        variance = (share * (levels - means[-1]) ** 2).sum()
        stds.append(float(variance.sqrt()) or 1.0)  # images of a single shade need no scaling
    times = 3 // len(means)
    return tuple(means) * times, tuple(stds) * times
