"""Builds language models by name, registers them with transformers' Auto classes, and generates text."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BatchEncoding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from .config import build_from_args
from .sources import ModelSource, opening
from .word_transformer import WordTransformerForCausalLM
from .word_transformer_config import WordTransformerConfig

AutoConfig.register(WordTransformerConfig.model_type, WordTransformerConfig)
AutoModelForCausalLM.register(WordTransformerConfig, WordTransformerForCausalLM)
# `save_pretrained` then writes the code beside the weights, for those who open them without this package.
WordTransformerConfig.register_for_auto_class()
WordTransformerForCausalLM.register_for_auto_class("AutoModelForCausalLM")


def build_language_model(
    name: str | None,
    tokenizer: PreTrainedTokenizerBase,
    *,
    model_args: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Builds a causal language model for a tokenizer.

    Args:
        name: "word_transformer", built from scratch; or a folder or Hub id, opened with its weights.
        tokenizer: Determines the size of the vocabulary and the ids that start, end and pad a text.
        model_args: For "word_transformer", fields of its configuration (`d_model=400,tie_word_embeddings=true`).
        trust_remote_code: Run Python code that the folder or repository brings along.

    Raises:
        ValueError: An unknown model or argument, or a vocabulary of another size than the tokenizer's.
    """
    args = dict(model_args or {})
    if name != WordTransformerConfig.model_type:
        if args:
            raise ValueError(
                f"--model_args are for {WordTransformerConfig.model_type!r}: {name!r} brings its own configuration."
            )
        with opening("language model", name):
            model = AutoModelForCausalLM.from_pretrained(
                name,
                dtype=torch.float32,  # whatever the weights were stored in
                trust_remote_code=trust_remote_code,
            )
        check_vocabulary(model, tokenizer)
        return model

    known = {k for k in WordTransformerConfig.__annotations__ if not k.endswith("token_id")}
    special = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}

    def make(**given: Any) -> WordTransformerForCausalLM:
        return WordTransformerForCausalLM(WordTransformerConfig(**{"vocab_size": len(tokenizer), **special, **given}))

    model = build_from_args(name, known, args, make)
    check_vocabulary(model, tokenizer)
    return model


def open_tokenizer(source: ModelSource, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Opens the tokenizer that lies beside a model.

    Raises:
        ValueError: There is none, or it cannot be opened.
    """
    with opening("tokenizer", source.name):
        return AutoTokenizer.from_pretrained(source.name, trust_remote_code=trust_remote_code)


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises `ValueError` if the vocabularies of a model and a tokenizer differ in size.

    A model may have more ids than its tokenizer uses, because many vocabularies are padded; a word-level model may not.
    """
    words, size = len(tokenizer), model.config.get_text_config().vocab_size
    if words > size or (words != size and model.config.model_type == WordTransformerConfig.model_type):
        raise ValueError(
            f"The tokenizer has {words:,} tokens and the model {size:,}: they do not belong together. "
            "Use the tokenizer saved with the model, or train a model for this one."
        )


def max_positions(*models: PreTrainedModel) -> int | None:
    """The number of tokens of the longest text that all models have positions for; None if there is no limit."""
    return min(filter(None, map(_positions, models)), default=None)


def _positions(model: PreTrainedModel) -> int | None:
    rows = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if rows is None or rows < 1:
        return None
    # RoBERTa and its kin give padding a row of their table, and texts the rows behind it.
    tables = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
    padding = next((table.padding_idx for table in tables if getattr(table, "padding_idx", None) is not None), -1)
    return rows - padding - 1


def room_for_tokens(model: PreTrainedModel, length: int, most: int = 60) -> int:
    """The number of tokens, at most `most`, that the model's positions leave for the continuation of `length` tokens."""
    positions = max_positions(model)
    return most if positions is None else max(0, min(most, positions - length))


def encode_prompt(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str) -> BatchEncoding:
    """Encodes a prompt as a batch of one, on the model's device.

    Raises:
        ValueError: The prompt has no word of the vocabulary, or it fills all positions.
    """
    encoded = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False).to(model.device)
    ids = encoded["input_ids"]
    if ids.numel() == 0 or (tokenizer.unk_token_id is not None and bool((ids == tokenizer.unk_token_id).all())):
        raise ValueError(
            f"The prompt {prompt!r} has no word that is among the {len(tokenizer):,} of the vocabulary: "
            "use words of the training text."
        )
    if room_for_tokens(model, ids.shape[1]) == 0:
        raise ValueError(f"The prompt {prompt!r} leaves none of the model's positions for more: use a shorter one.")
    return encoded


@torch.no_grad()
def generate_text(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, *, max_new_tokens: int = 60, seed: int = 0
) -> str:
    """Continues a prompt by words drawn from the model's distribution; the same seed gives the same words.

    Args:
        model: A causal language model.
        tokenizer: The model's.
        prompt: Text with at least one word that the tokenizer knows.
        max_new_tokens: Number of tokens to add at most; the text may end earlier, as may the model's positions.
        seed: Seed of the draws. The states of torch's generators stay unchanged.

    Returns:
        The prompt and its continuation.

    Raises:
        ValueError: The prompt has no word of the vocabulary, or it fills all positions.
    """
    encoded = encode_prompt(model, tokenizer, prompt)
    room = room_for_tokens(model, encoded["input_ids"].shape[1], max_new_tokens)
    was_training = model.training
    model.eval()
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        longer = model.generate(**encoded, max_new_tokens=room, do_sample=True)
    model.train(was_training)
    return tokenizer.decode(longer[0], skip_special_tokens=False).removesuffix(tokenizer.eos_token or "").strip()
