"""Corrupted images: the library's own, at the network's size, the same for every network and run."""

import sys

import numpy as np
import PIL.Image
import pytest
import torch
from imagecorruptions import corrupt, get_corruption_names

from hf_geo.data.shifted.corruptions import CorruptedTransform
from hf_geo.data.transforms import TimmImages, seeded

IMAGES = {"mean": (0.5,), "std": (0.25,), "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "center"}


def prepared(channels: int, size: int = 32) -> TimmImages:
    config = {**IMAGES, "mean": IMAGES["mean"] * channels, "std": IMAGES["std"] * channels}
    return TimmImages({**config, "input_size": (channels, size, size)})


KINDS = [
    pytest.param(kind, marks=pytest.mark.slow) if kind == "glass_blur" else kind  # 10 s to compile
    for kind in get_corruption_names("all")
]


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_the_librarys(kind: str) -> None:
    array = np.random.default_rng(0).integers(256, size=(32, 32, 3), dtype=np.uint8)
    image, images = PIL.Image.fromarray(array), prepared(3)
    found = CorruptedTransform(images, kind, 3)(image, np.uint64(7))
    own = {"seed": 7} if kind in ("glass_blur", "impulse_noise") else {}  # these have a generator of their own
    with seeded(7):
        expected = corrupt(array, corruption_name=kind, severity=3, **own)
    torch.testing.assert_close(found, (torch.tensor(expected).permute(2, 0, 1) / 255 - 0.5) / 0.25)


def test_grey_images_stay_grey_and_small_ones_are_enlarged_first() -> None:
    image = PIL.Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    transform = CorruptedTransform(prepared(1), "gaussian_noise", 1)
    first, again, other = (transform(image, np.uint64(seed)) for seed in (1, 1, 2))
    assert first.shape == (1, 32, 32) and torch.equal(first, again) and not torch.equal(first, other)


def test_what_cannot_be_corrupted_is_refused(monkeypatch) -> None:
    with pytest.raises(ValueError, match="images of 32 pixels or more; the network takes 28"):
        CorruptedTransform(prepared(1, 28), "fog", 1)
    images = prepared(3)
    images.divisible = False
    with pytest.raises(ValueError, match="prepares images in one step"):
        CorruptedTransform(images, "fog", 1)
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(ValueError, match=r"pip install 'hf_geo\[robustness\]'"):
        CorruptedTransform(prepared(3), "fog", 1)
