"""Tiny language models, and the network of PyTorch's word-language-model example built from PyTorch's own layers."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from hf_geo.models import WordTransformerConfig, WordTransformerForCausalLM

WORDS = 23


def make_model(**settings) -> WordTransformerForCausalLM:
    settings = {"vocab_size": WORDS, "d_model": 12, "nhead": 2, "d_hid": 10, "nlayers": 2, "dropout": 0.0} | settings
    return WordTransformerForCausalLM(WordTransformerConfig(**settings))


def make_words(rows: int = 3, length: int = 7, seed: int = 1) -> Tensor:
    return torch.randint(WORDS, (rows, length), generator=torch.Generator().manual_seed(seed))


class ReferenceTransformer(nn.Module):
    """Logits of shape (length, batch, vocabulary) from words of shape (length, batch), with the weights of a model of ours."""

    def __init__(self, model: WordTransformerForCausalLM):
        super().__init__()
        config = model.config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        layer = nn.TransformerEncoderLayer(config.d_model, config.nhead, config.d_hid, config.dropout)
        self.encoder = nn.TransformerEncoder(layer, config.nlayers, enable_nested_tensor=False)
        self.decoder = nn.Linear(config.d_model, config.vocab_size)
        self.to(next(model.parameters()).dtype)
        self.load_state_dict({pytorch_name(name): tensor for name, tensor in model.state_dict().items()})

    def forward(self, words: Tensor) -> Tensor:
        length, width = len(words), self.embedding.embedding_dim
        positions = np.zeros((length, width))
        for place in range(length):
            for pair in range(width // 2):
                angle = place / 10_000 ** (2 * pair / width)
                positions[place, 2 * pair : 2 * pair + 2] = math.sin(angle), math.cos(angle)
        embedded = self.embedding(words) * math.sqrt(width)
        embedded = embedded + torch.from_numpy(positions)[:, None].to(embedded.dtype)
        mask = nn.Transformer.generate_square_subsequent_mask(length, dtype=embedded.dtype)
        return self.decoder(self.encoder(embedded, mask=mask))


def pytorch_name(name: str) -> str:
    """PyTorch's name for a parameter of ours."""
    return name.replace("layers.", "encoder.layers.").replace("in_proj.", "in_proj_")
