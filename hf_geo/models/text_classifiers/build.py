"""Builds text classifiers by name, and registers the BiLSTM with transformers' Auto classes."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from ..config import build_from_args
from ..language import check_vocabulary
from ..sources import opening
from .bilstm_nli import BiLstmNliForSequenceClassification
from .bilstm_nli_config import BiLstmNliConfig

AutoConfig.register(BiLstmNliConfig.model_type, BiLstmNliConfig)
AutoModelForSequenceClassification.register(BiLstmNliConfig, BiLstmNliForSequenceClassification)
# `save_pretrained` then writes the code beside the weights, for those who open them without this package.
BiLstmNliConfig.register_for_auto_class()
BiLstmNliForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")

_SIZES = ("word_size", "hidden_size", "classifier_size", "pool_padding")


def build_bilstm(
    tokenizer: PreTrainedTokenizerBase,
    label_names: tuple[str, ...],
    *,
    sentences: int,
    vectors: torch.Tensor | None = None,
    drop_unknown: bool = False,
    model_args: Mapping[str, Any] | None = None,
) -> PreTrainedModel:
    """Builds a `bilstm_nli` with random weights.

    Args:
        tokenizer: Determines the size of the vocabulary and the special ids.
        label_names: Names of the classes.
        sentences: 2 for pairs, 1 for single sentences.
        vectors: Fixed vectors of the vocabulary's last words, shape (words, width).
        drop_unknown: Leave words out that are not in the vocabulary.
        model_args: `word_size`, `hidden_size`, `classifier_size`, `pool_padding`.

    Raises:
        ValueError: An unknown argument, or one that does not fit.
    """
    args = dict(model_args or {})
    if vectors is not None and args.setdefault("word_size", vectors.shape[1]) != vectors.shape[1]:
        raise ValueError(
            f"The word vectors have {vectors.shape[1]} numbers each, and --model_args asks for word_size={args['word_size']}: "
            "leave it out."
        )
    special = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}

    def make(**given: Any) -> BiLstmNliForSequenceClassification:
        config = BiLstmNliConfig(
            vocab_size=len(tokenizer),
            frozen_words=0 if vectors is None else len(vectors),
            sentences=sentences,
            drop_token_id=tokenizer.unk_token_id if drop_unknown else None,
            **special,
            **given,
            **label_config(label_names),
        )
        return BiLstmNliForSequenceClassification(config)

    model = build_from_args(BiLstmNliConfig.model_type, _SIZES, args, make)
    if vectors is not None:
        model.vectors.copy_(vectors)
    return model


def open_text_classifier(
    name: str, tokenizer: PreTrainedTokenizerBase, label_names: tuple[str, ...], *, trust_remote_code: bool = False
) -> PreTrainedModel:
    """Opens a text classifier or an encoder with its weights; its classifier is made anew for another number of classes.

    Args:
        name: A folder or Hub id.
        tokenizer: The model's.
        label_names: Names of the classes.
        trust_remote_code: Run Python code that the folder or repository brings along.

    Raises:
        ValueError: It cannot be opened, or its vocabulary or padding does not fit the tokenizer's.
    """
    with opening("text classifier", name):
        model = AutoModelForSequenceClassification.from_pretrained(
            name,
            dtype=torch.float32,  # whatever the weights were stored in
            ignore_mismatched_sizes=True,
            trust_remote_code=trust_remote_code,
            problem_type="single_label_classification",
            **label_config(label_names),
        )
    check_vocabulary(model, tokenizer)
    if model.config.pad_token_id is None:  # as of GPT-2, which was trained without padding
        model.config.pad_token_id = tokenizer.pad_token_id
    return model


def label_config(names: tuple[str, ...]) -> dict[str, Any]:
    """The entries of a configuration that name the classes."""
    labels = dict(enumerate(names))
    return {"num_labels": len(names), "id2label": labels, "label2id": {name: i for i, name in labels.items()}}
