"""Data: from the name of a dataset to the samples that a Trainer takes."""

from .config import DataArguments
from .language import LanguageData
from .text import TextData, load_text_data
from .tokenizer import build_word_tokenizer
from .vision import ImageData, load_image_data

__all__ = [
    "DataArguments",
    "ImageData",
    "LanguageData",
    "TextData",
    "build_word_tokenizer",
    "load_image_data",
    "load_text_data",
]
