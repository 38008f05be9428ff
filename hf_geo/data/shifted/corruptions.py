"""The corruptions of ImageNet-C (Hendrycks and Dietterich 2019, arXiv 1903.12261), made as the images are read."""

from collections.abc import Callable

import numpy as np
import PIL.Image
import torch

from hf_geo.data.transforms import MODES, Preparation, seeded, to_channels

SMALLEST = 32  # pixels
OWN_GENERATORS = ("glass_blur", "impulse_noise")  # of the library, which take a seed


class CorruptedTransform:
    """Prepares images as for evaluation and corrupts them at the network's size, as ImageNet-C is made.

    What is random about a corruption depends on the sample alone, so that all networks see the same images.

    Args:
        images: How images are prepared.
        kind: One of the library's 19 corruptions, such as "gaussian_noise".
        severity: 1 to 5.

    Raises:
        ValueError: There is no such corruption, the library is not installed, or the network's images do not allow it.
    """

    def __init__(self, images: Preparation, kind: str, severity: int) -> None:
        self.images, self.kind, self.severity = images, kind, severity
        self._corrupt = find_corruption(kind)
        if not images.divisible:
            raise ValueError(
                "The image processor of this model prepares images in one step, which leaves no place for a corruption."
            )
        if min(images.size[1:]) < SMALLEST:
            raise ValueError(
                f"Corruptions are of images of {SMALLEST} pixels or more; the network takes {min(images.size[1:])}."
            )

    def __call__(self, image: PIL.Image.Image, seed: np.uint64) -> torch.Tensor:
        channels = self.images.size[0]
        pixels = self.images.pixels(to_channels(image, channels))
        colours = np.ascontiguousarray(pixels.expand(3, -1, -1).permute(1, 2, 0).numpy())
        own = {"seed": int(seed) % 2**32} if self.kind in OWN_GENERATORS else {}
        with seeded(int(seed)):
            corrupted = self._corrupt(colours, corruption_name=self.kind, severity=self.severity, **own)
        back = np.array(PIL.Image.fromarray(corrupted).convert(MODES[channels]))
        return self.images.values(torch.from_numpy(back).view(*back.shape[:2], channels).permute(2, 0, 1)[None])[0]


def find_corruption(kind: str) -> Callable[..., np.ndarray]:
    """Returns the library's function.

    Raises:
        ValueError: It has no corruption of this name, or is not installed.
    """
    try:
        from imagecorruptions import corrupt, get_corruption_names
    except ImportError as error:
        raise ValueError(
            f"--corruption {kind} needs a library ({error}): pip install 'hf_geo[robustness]', or imagecorruptions-imaug."
        ) from error
    known = get_corruption_names("all")
    if kind not in known:
        raise ValueError(f"There is no corruption {kind!r}: --corruption is one of {', '.join(known)}.")
    return corrupt
