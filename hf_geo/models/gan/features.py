"""Networks in whose features sets of images are compared: Inception, a trained classifier, or coarse pixels."""

import importlib.util
import io
import os
import pickle
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub.errors import EntryNotFoundError
from torch import Tensor
from torch.nn import functional as F

from hf_geo.hub.downloads import download

from ..build import build_image_classifier, input_config
from ..sources import find_model

COARSE = 4  # pixels a side
INCEPTION = "Inception"


@dataclass(frozen=True)
class Features:
    """Features of images.

    Args:
        name: Of the network, for people.
        compute: From images (N, 3, H, W), uint8, to their features (N, dim).
        dim: Number of features.
        is_inception: Whether a Fréchet distance in them may be called FID.
    """

    name: str
    compute: Callable[[Tensor], Tensor]
    dim: int
    is_inception: bool = False


def open_features(name: str | None) -> Features:
    """Opens a network of features.

    Args:
        name: A folder or Hub id of an image classifier of timm's, whose features are those before its classifier. Or a file
            with torch-fidelity's Inception weights: a path that ends in .pth, or ORGANISATION/REPOSITORY/FILE.pth on the Hub.
            None for the colours of 4 x 4 fields, which need no network.

    Raises:
        ValueError: There is no such model or file, it is damaged or of another network, or its pickle holds more than weights.
    """
    if name is None:
        return Features(f"colours of {COARSE} x {COARSE} fields", coarse_pixels, 3 * COARSE**2)
    if name.endswith(".pth"):
        return _open_inception(name)
    return _open_classifier(name)


def coarse_pixels(images: Tensor) -> Tensor:
    """The mean colours of 4 x 4 fields, from 0 to 1."""
    return F.adaptive_avg_pool2d(images.float() / 255, COARSE).flatten(1)


def _open_classifier(name: str) -> Features:
    source = find_model(name)
    if source.architecture is None or source.kind == "timm":
        raise ValueError(
            f"--fid_model {name!r} is no trained classifier of timm's: give the folder or id of one, such as this package "
            "exports, or a .pth file of Inception weights."
        )
    # Without a classifier, as DINOv2 is stored, any will do: the features are those before it.
    model = build_image_classifier(name, num_classes=source.config.get("num_classes") or 1)
    network, config = model.timm_model.eval().requires_grad_(False), input_config(model)
    channels, *size = config["input_size"]
    if channels != 3:
        raise ValueError(
            f"--fid_model {name!r} takes images of {channels} channels: give a classifier of colour images."
        )
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))

    def compute(images: Tensor) -> Tensor:
        network.to(images.device)
        x = images.float() / 255
        if list(x.shape[2:]) != size:
            x = F.interpolate(x, size, mode="bilinear", antialias=True)
        x = (x - mean.to(x)) / std.to(x)
        return network.forward_head(network.forward_features(x), pre_logits=True).float()

    return Features(
        Path(source.name).name if source.kind == "folder" else source.name,
        compute,
        getattr(network, "head_hidden_size", network.num_features),
    )


def _open_inception(name: str) -> Features:
    if importlib.util.find_spec("torch_fidelity") is None:
        raise ImportError(f"--fid_model {name} needs torch-fidelity: pip install 'hf_geo[fid]'.")
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = _find_file(name)
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise ValueError(
            f"--fid_model {name!r} is damaged, or holds more than weights, which could run code "
            f"({textwrap.shorten(str(error), 120)}): download it again from where torch-fidelity does."
        ) from error
    checked = io.BytesIO()  # torch-fidelity unpickles whatever a file holds, so it gets what was checked
    torch.save(weights, checked)
    checked.seek(0)
    try:
        network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=checked)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(
            f"--fid_model {name!r} holds the weights of another network than torch-fidelity's Inception "
            f"({textwrap.shorten(str(error), 120)}): give its weights-inception-2015-12-05-6726825d.pth."
        ) from error
    return Features(INCEPTION, lambda images: network.to(images.device)(images)[0], 2048, is_inception=True)


def _find_file(name: str) -> str:
    if os.path.isfile(name):
        return name
    repository, _, file = name.rpartition("/")
    if repository.count("/") != 1 or repository.startswith((".", "/", "~")):
        raise ValueError(
            f"There is no file {name!r} (--fid_model): download torch-fidelity's weights-inception-2015-12-05-6726825d.pth and "
            "give its path."
        )
    try:
        return download(repository, file)
    except EntryNotFoundError as error:
        raise ValueError(
            f"The Hub's {repository!r} has no file {file!r} (--fid_model): look how it is called."
        ) from error
