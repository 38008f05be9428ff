"""Networks of transformers with few, random weights, and a tokenizer of bytes."""

from collections.abc import Iterable

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
VIT = {**SIZES, "image_size": 16, "patch_size": 8}
RESNET = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1]}


def vit(**settings) -> transformers.ViTForImageClassification:
    return transformers.ViTForImageClassification(transformers.ViTConfig(**{**VIT, **settings}))


def resnet(**settings) -> transformers.ResNetForImageClassification:
    return transformers.ResNetForImageClassification(transformers.ResNetConfig(**{**RESNET, **settings}))


def bert(**settings) -> transformers.BertForSequenceClassification:
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(**{**SIZES, "max_position_embeddings": 64, "pad_token_id": 0, **settings})
    )


def gpt2(**settings) -> transformers.GPT2LMHeadModel:
    """Of a vocabulary as large as `byte_tokenizer` makes it without texts."""
    sizes = {"vocab_size": 257, "n_positions": 32, "n_embd": 8, "n_layer": 1, "n_head": 2}
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**{**sizes, "bos_token_id": 0, "eos_token_id": 0, **settings})
    )


def byte_tokenizer(texts: Iterable[str] = (), **settings) -> transformers.PreTrainedTokenizerFast:
    """A byte-level tokenizer with the byte pairs of some texts."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|end|>", **settings)
