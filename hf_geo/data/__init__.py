"""Data: a data set's name to what the Trainer takes."""

from .config import DataArguments
from .vision import ImageData, load_image_data

__all__ = ["DataArguments", "ImageData", "load_image_data"]
