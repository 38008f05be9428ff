"""A small text and models for it."""

import datasets
import numpy as np
import torch

from hf_geo.data import DataArguments, TextData
from hf_geo.models import build_language_model

COLUMNS, EVAL_COLUMNS, BPTT, LEARNING_RATE = 4, 3, 7, 0.5


def make_text(train: int = 60, evaluation: int = 25) -> TextData:
    """Lines of two to nine words out of twelve."""
    generator = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(12)])

    def lines(count: int) -> datasets.Dataset:
        rows = [" ".join(generator.choice(words, size=generator.integers(2, 10))) for _ in range(count)]
        return datasets.Dataset.from_dict({"text": rows})

    return TextData("lines", None, {"train": lines(train), "eval": lines(evaluation)}, "made for a test")


def arguments(**settings) -> DataArguments:
    return DataArguments(**{"eval_columns": EVAL_COLUMNS, "bptt": BPTT} | settings)


def make_model(tokenizer):
    torch.manual_seed(0)
    args = {"d_model": 8, "d_hid": 8, "nlayers": 1, "nhead": 2, "dropout": 0.0}
    return build_language_model("word_transformer", tokenizer, model_args=args).double()
