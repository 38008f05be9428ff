"""Geometry against timm's own transforms, augmentation against torchvision, and its distribution."""

from itertools import product

import numpy as np
import PIL.Image
import pytest
import torch
from timm.data import create_transform
from torchvision.transforms import functional as tv

from hf_geo.data.image_datasets import sample_seeds
from hf_geo.data.transforms import PixelTransform, TimmImages, TimmTransform, crop_and_flip, make_transform, to_channels
from tests.data.images import photo

CONFIG = {
    "input_size": (3, 32, 32),
    "interpolation": "bicubic",
    "mean": (0.4, 0.5, 0.6),
    "std": (0.2, 0.25, 0.3),
    "crop_pct": 1.0,
    "crop_mode": "center",
}


@pytest.mark.parametrize(("size", "crop_pct"), [((32, 32), 1.0), ((28, 36), 0.875)])
@pytest.mark.parametrize(("width", "height"), [(8, 8), (32, 32), (30, 90)])
def test_evaluation_is_timms(size, crop_pct, width, height):
    config = {**CONFIG, "input_size": (3, *size), "crop_pct": crop_pct}
    image = photo(height, width)
    ours = make_transform(config, "none", mirror=True)(image, np.uint64(7))
    torch.testing.assert_close(ours, create_transform(**config, is_training=False)(image))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
@pytest.mark.parametrize("channels", [1, 3])
def test_modes_become_the_networks_channels(mode, channels):
    config = {**CONFIG, "input_size": (channels, 32, 32), "mean": (0.5,) * channels, "std": (0.5,) * channels}
    image = photo(32, 32, mode)
    assert PixelTransform(TimmImages(config))(image, np.uint64(0)).shape == (channels, 32, 32)
    assert TimmTransform(TimmImages(config))(image, np.uint64(0)).shape == (channels, 32, 32)
    if mode == "L" and channels == 3:
        assert np.array_equal(np.asarray(to_channels(image, 3)), np.stack([np.asarray(image)] * 3, -1))


def placements(images: torch.Tensor, padding: int, flip: bool, border: str) -> list[torch.Tensor]:
    """All the results that random cropping and flipping may have, by torchvision."""
    size, mode = images.shape[-2:], {"black": "constant"}.get(border, border)
    padded = tv.pad(images, padding, padding_mode=mode)
    crops = [tv.crop(padded, y, x, *size) for y, x in product(range(2 * padding + 1), repeat=2)]
    return crops + [tv.hflip(x) for x in crops] if flip else crops


@pytest.mark.parametrize(
    ("padding", "flip", "height", "width", "border"),
    [(0, True, 6, 5, "black"), (2, False, 6, 6, "black"), (2, True, 5, 7, "black"), (2, True, 5, 7, "reflect")],
)
def test_crops_and_flips_are_torchvisions_and_all_occur_alike(padding, flip, height, width, border):
    image = torch.randint(1, 256, (3, height, width), dtype=torch.uint8)
    n = 20_000
    results = crop_and_flip(image.expand(n, -1, -1, -1), sample_seeds(0, 0, np.arange(n)), padding, flip, border)
    possible = placements(image, padding, flip, border)
    counts = torch.stack([(results == x).flatten(1).all(1) for x in possible]).sum(1)
    assert counts.sum() == n, "something else came out"
    expected = n / len(possible)
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    freedom = len(possible) - 1
    assert chi2 < freedom + 5 * (2 * freedom) ** 0.5, "some shifts are likelier than others"


def test_seeds_stay_the_same_over_releases():
    # SplitMix64's finaliser in plain Python integers.
    def mix(z):
        z = (z + 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    for seed, epoch, index in product((0, 42), (0, 7), (0, 1, 50_000)):
        assert int(sample_seeds(seed, epoch, np.array([index]))[0]) == mix(mix(mix(seed) ^ epoch) ^ index)
    assert sample_seeds(-1, 0, np.array([-1, 2**62])).dtype == np.uint64


@pytest.mark.parametrize(
    ("augmentation", "size", "mirror", "kind", "padding", "flip"),
    [
        ("auto", 32, True, PixelTransform, 4, True),
        ("auto", 32, False, PixelTransform, 4, False),
        ("auto", 64, True, PixelTransform, 8, True),
        ("auto", 224, True, TimmTransform, None, None),
        ("crop", 224, True, PixelTransform, 28, False),
        ("crop-flip", 28, False, PixelTransform, 3, True),
        ("none", 224, True, PixelTransform, 0, False),
        ("timm", 32, True, TimmTransform, None, None),
    ],
)
def test_choice_of_augmentation(augmentation, size, mirror, kind, padding, flip):
    transform = make_transform({**CONFIG, "input_size": (3, size, size)}, augmentation, mirror)
    assert type(transform) is kind
    if kind is PixelTransform:
        assert (transform.padding, transform.flip) == (padding, flip)


def test_shift_border_and_colours_are_chosen():
    small = {**CONFIG, "input_size": (3, 64, 64)}
    transform = make_transform(small, "crop-flip", True, shift=4, border="reflect")
    assert (transform.padding, transform.border) == (4, "reflect")
    with pytest.raises(ValueError, match="--crop_shift 64 leaves nothing to reflect of images of 64 pixels"):
        make_transform(small, "crop", True, shift=64, border="reflect")

    image = photo(64, 64)
    grey = PIL.Image.new("RGB", (64, 64), (90, 140, 200))
    plain = make_transform(small, "timm", True, color_jitter=[0.0])
    assert plain(grey, np.uint64(1)).flatten(1).std(1).max() < 1e-6
    assert torch.equal(plain(grey, np.uint64(1)), plain(grey, np.uint64(2)))
    hue = make_transform(small, "timm", True, color_jitter=[0.0, 0.0, 0.0, 0.2])
    assert not torch.allclose(hue(grey, np.uint64(1)), plain(grey, np.uint64(1)))
    assert hue(image, np.uint64(3)).shape == (3, 64, 64)


def test_timm_does_not_mirror_digits():
    gradient = PIL.Image.fromarray(np.tile(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], (64, 1, 3)))
    config = {**CONFIG, "input_size": (3, 48, 48)}

    def mirrored(mirror: bool) -> int:
        transform = make_transform(config, "timm", mirror)
        images = [transform(gradient, np.uint64(i)) for i in range(40)]
        return sum(bool(x[..., 0].mean() > x[..., -1].mean()) for x in images)

    assert mirrored(False) == 0
    assert 8 < mirrored(True) < 32


def test_a_network_of_two_channels_is_refused():
    config = {**CONFIG, "input_size": (2, 32, 32), "mean": (0.5,) * 2, "std": (0.5,) * 2}
    with pytest.raises(ValueError, match=r"takes 2 channels, but images have 1 \(grey\) or 3"):
        make_transform(config, "none", mirror=True)
