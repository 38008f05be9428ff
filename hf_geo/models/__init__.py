"""Models: importing this package adds its architectures to timm's registry."""

from . import cifar as cifar
from .build import build_image_classifier, input_config
from .config import ModelArguments, parse_model_args

__all__ = ["ModelArguments", "build_image_classifier", "input_config", "parse_model_args"]
