"""How generated images are compared with real ones: in the features of a network, which the result names."""

import importlib.util
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor
from transformers import EvalPrediction

from .frechet import frechet_distance

logger = logging.getLogger(__name__)
NEIGHBOURS = 3  # of a sample, whose ball counts as covered: as published
AT_ONCE = 1000  # samples whose distances to all others are in memory


class FeatureNetwork(Protocol):
    """A network of features.

    Attributes:
        name: For people.
        dim: Number of features.
        is_inception: Whether a Fréchet distance in them may be called FID.
        compute: From images (N, 3, H, W), uint8, to features (N, dim).
    """

    name: str
    dim: int
    is_inception: bool
    compute: Callable[[Tensor], Tensor]


class ImageComparison:
    """The Fréchet distance of generated images from real ones, and with torch-fidelity their precision and recall.

    Only in Inception's features is the distance also called `fid`. Precision is the share of generated images that are near a
    real one, recall that of real ones near a generated one (Kynkäänniemi et al. 2019, arXiv 1904.06991), nearness being
    that of a sample's third neighbour.

    Args:
        network: Of the features.
        stretch: Stretch each generated image to the whole range from black to white first, as Fromage's paper did.
    """

    def __init__(self, network: FeatureNetwork, *, stretch: bool = False) -> None:
        self.network, self.stretch = network, stretch

    def check(self, samples: Mapping[str, int]) -> None:
        """Checks the numbers of images, and warns of a singular covariance.

        Args:
            samples: Number of images by split.

        Raises:
            ValueError: A single image, which has no covariance.
        """
        for split, count in samples.items():
            if count < 2:
                raise ValueError(
                    f"The {split} split has one image, and a distance needs a covariance: give it more images."
                )
            if count <= self.network.dim:
                logger.warning(
                    "The %d images of the %s split are no more than the %d features of %s: their covariance is singular, and "
                    "the distance says little; evaluate more images.",
                    count, split, self.network.dim, self.network.name,
                )  # fmt: skip

    def features_of(self, images: tuple[Tensor, Tensor], labels: object = None) -> tuple[Tensor, Tensor]:
        """The features of generated and of real images with values from -1 to 1, for `preprocess_logits_for_metrics`."""
        fake, real = ((x.float() + 1) / 2 for x in images)
        if self.stretch:
            low, high = fake.amin((1, 2, 3), keepdim=True), fake.amax((1, 2, 3), keepdim=True)
            fake = (fake - low) / (high - low).clamp(min=1e-12)
        return tuple(self.network.compute(to_bytes(x)) for x in (fake, real))

    def metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        """`frechet_distance`, `fid` in Inception's features, with torch-fidelity `precision` and `recall`, and `samples`."""
        fake, real = prediction.predictions
        distance = frechet_distance(fake, real)
        found = {"frechet_distance": distance}
        if self.network.is_inception:
            found["fid"] = distance
        if importlib.util.find_spec("torch_fidelity") and len(real) > NEIGHBOURS + 1:
            from torch_fidelity.metric_prc import calculate_precision_recall_part

            sets = [torch.from_numpy(x).float() for x in (fake, real)]
            found["precision"], found["recall"] = calculate_precision_recall_part(*sets, NEIGHBOURS, AT_ONCE)
        return {**found, "samples": len(real)}

    @property
    def description(self) -> str:
        """What is measured, and how, in one sentence."""
        kind = "FID" if self.network.is_inception else "Fréchet distance"
        how = (
            "each stretched to the whole range from black to white, as in Fromage's paper"
            if self.stretch
            else "as they are"
        )
        return (
            f"{kind} in the features of {self.network.name}: as many generated images as real ones and of the same classes, "
            f"{how}, rounded to 8 bits"
        )


def to_bytes(images: Tensor) -> Tensor:
    """Rounds images with values from 0 to 1 to the 8 bits that an image file keeps."""
    return (images.clamp(0, 1) * 255).round().byte()
