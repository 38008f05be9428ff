"""The word-level Transformer language model: post-norm encoder layers under a causal mask."""

# ruff: noqa: RUF012 (transformers reads these off the class, and some of them only as lists)

import dataclasses
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .linear_cross_entropy import IGNORED, linear_cross_entropy
from .word_transformer_config import WordTransformerConfig

# This file travels with exported weights, so it has to run under any release of transformers that opens them. 5.17 names
# a model's cache `past_key_values` and 5.24 names it `cache`, among the arguments and the outputs.
CACHE = ({"cache", "past_key_values"} & {field.name for field in dataclasses.fields(CausalLMOutputWithPast)}).pop()


def sinusoids(positions: Tensor, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Sines (even columns) and cosines (odd) of positions, with wavelengths from 2 pi to 10,000 x 2 pi.

    Args:
        positions: Integers of any shape.
        width: An even number of columns.
        dtype: Of the result; computed in float32 at least.

    Returns:
        Shape (*positions.shape, width).
    """
    wide = torch.promote_types(dtype, torch.float32)
    rates = torch.exp(torch.arange(0, width, 2, device=positions.device, dtype=wide) * (-math.log(10_000.0) / width))
    angles = positions[..., None] * rates
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2).to(dtype)


def causal_mask(position_ids: Tensor, attention_mask: Tensor | None, seen: int) -> Tensor:
    """The mask by which each new word attends to itself and the earlier words of its text, but to no padding.

    Args:
        position_ids: Positions of the new words, shape (1 or batch, length). Without an attention mask and earlier words, a
            position that does not follow its predecessor starts another text in the same row.
        attention_mask: 1 for words, 0 for padding, shape (batch, seen + length); or the four-dimensional mask that
            `generate()` makes for a cache of fixed size.
        seen: Number of words in the cache.

    Returns:
        True where a new word attends, shape (1 or batch, 1, length, seen + length).
    """
    if attention_mask is not None and attention_mask.ndim == 4:
        return attention_mask
    length = position_ids.shape[1]
    words = int(seen) + length if attention_mask is None else attention_mask.shape[1]
    places = torch.arange(words, device=position_ids.device)
    new = places[-length:, None]
    visible = (places <= new)[None, None]
    if attention_mask is not None:
        # Padding attends to itself, because a softmax over nothing would be NaN.
        visible = visible & (attention_mask[:, None, None].bool() | (places == new))
    elif words == length:
        text = (position_ids.diff(prepend=position_ids[:, :1]) != 1).cumsum(1)
        visible = visible & (text[:, None, :, None] == text[:, None, None])
    return visible


class CausalSelfAttention(nn.Module):
    """Multi-head attention to the words so far."""

    def __init__(self, config: WordTransformerConfig, layer: int):
        super().__init__()
        self.layer, self.nhead, self.dropout = layer, config.nhead, config.dropout
        self.in_proj = nn.Linear(config.d_model, 3 * config.d_model)
        self.out_proj = nn.Linear(config.d_model, config.d_model)

    def forward(self, x: Tensor, mask: Tensor | None, cache: Cache | None) -> Tensor:
        query, key, value = self.in_proj(x).unflatten(-1, (3, self.nhead, -1)).permute(2, 0, 3, 1, 4)
        if cache is not None:
            key, value = cache.update(key, value, self.layer)
        if mask is not None:  # a cache of fixed size is longer than the words so far
            key, value = key[:, :, : mask.shape[-1]], value[:, :, : mask.shape[-1]]
        heads = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None,
        )
        return self.out_proj(heads.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Attention, then a ReLU network, each added to its input and normalized after the sum."""

    def __init__(self, config: WordTransformerConfig, layer: int):
        super().__init__()
        self.self_attn = CausalSelfAttention(config, layer)
        self.linear1 = nn.Linear(config.d_model, config.d_hid)
        self.linear2 = nn.Linear(config.d_hid, config.d_model)
        self.norm1 = nn.LayerNorm(config.d_model)
        self.norm2 = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None, cache: Cache | None) -> Tensor:
        x = self.norm1(x + self.dropout(self.self_attn(x, mask, cache)))
        return self.norm2(x + self.dropout(self.linear2(self.dropout(F.relu(self.linear1(x))))))


class WordTransformerForCausalLM(PreTrainedModel, GenerationMixin):
    """The language model of PyTorch's word-language-model example, which Fromage's paper trained on WikiText-2.

    Embeddings scaled by sqrt(d_model), sinusoidal positions, post-norm encoder layers with ReLU under a causal mask, a
    linear decoder with bias. Embeddings and decoder start uniform in (-0.1, 0.1), the decoder's bias at zero, the
    layers as `torch.nn.TransformerEncoderLayer` starts.

    Differs from the example: every layer has its own initial weights (there, all start as copies of one), and sequences
    may have any length.

    Papers: Vaswani et al. 2017, arXiv 1706.03762; Bernstein et al. 2020, arXiv 2002.03432.
    """

    config: WordTransformerConfig
    config_class = WordTransformerConfig
    main_input_name = "input_ids"
    _tied_weights_keys = {"decoder.weight": "embedding.weight"}
    _no_split_modules = ["EncoderLayer"]
    _supports_sdpa = True
    # The loss divides by `num_items_in_batch`, so the Trainer must not divide by its accumulation steps.
    accepts_loss_kwargs = True

    def __init__(self, config: WordTransformerConfig):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(EncoderLayer(config, i) for i in range(config.nlayers))
        self.decoder = nn.Linear(config.d_model, config.vocab_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embedding = value

    def get_output_embeddings(self) -> nn.Linear:
        return self.decoder

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.decoder = value

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        into = [layer.self_attn.in_proj for layer in self.layers]
        out_of = [layer.self_attn.out_proj for layer in self.layers]
        if module in (self.embedding, self.decoder):
            nn.init.uniform_(module.weight, -0.1, 0.1)
        elif module in into:
            nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, (nn.Linear, nn.LayerNorm)):
            module.reset_parameters()
        if module in (self.decoder, *into, *out_of):
            nn.init.zeros_(module.bias)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: int | Tensor | None = None,
        past_key_values: Cache | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> CausalLMOutputWithPast | tuple:
        """Logits of the next words, and the loss where labels are given.

        Args:
            input_ids: Words, shape (batch, length); or `inputs_embeds`, not yet scaled, (batch, length, d_model).
            attention_mask: 1 for words, 0 for padding, shape (batch, words seen so far).
            position_ids: Positions, shape (1 or batch, length); after those in the cache by default.
            cache: Keys and values of earlier words.
            labels: The words themselves, shape (batch, length), -100 where there is nothing to predict: position i is
                scored on label i + 1.
            use_cache: Whether to return keys and values.
            logits_to_keep: Number of last positions to compute logits for; 0 for all.
            num_items_in_batch: Divisor of the summed loss; the number of scored labels by default.
            past_key_values: Older name of `cache`.
            output_hidden_states: Whether to return `hidden_states`; default: the configuration's.
            return_dict: False returns a tuple; default: the configuration's.

        Returns:
            `loss` (scalar), `logits` (batch, length, vocab_size), the cache under the name of the installed transformers,
            and `hidden_states` before the layers and after each. In training mode, with labels and gradients, `logits` is
            None, because they are never all computed.

        Raises:
            ValueError: Not exactly one of `input_ids` and `inputs_embeds` is given.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give either input_ids or inputs_embeds, and not both.")
        embedded = self.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        cache = past_key_values if cache is None else cache
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        seen = 0 if cache is None else cache.get_seq_length()
        plain = attention_mask is None and position_ids is None and seen == 0
        if position_ids is None:
            position_ids = torch.arange(embedded.shape[1], device=embedded.device)[None] + seen
        mask = None if plain else causal_mask(position_ids, attention_mask, seen)

        width = self.config.d_model
        x = self.dropout(embedded * math.sqrt(width) + sinusoids(position_ids, width, embedded.dtype))
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        hidden_states = (x,) if wanted else None
        for layer in self.layers:
            x = layer(x, mask, cache)
            hidden_states = (*hidden_states, x) if wanted else None

        loss = logits = None
        targets = None if labels is None else labels[:, 1:].flatten()
        if labels is not None and self.training and torch.is_grad_enabled():
            weight, bias = self.decoder.weight, self.decoder.bias
            loss = linear_cross_entropy(x[:, :-1].flatten(0, 1), weight, bias, targets, num_items_in_batch)
        else:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.decoder(x[:, kept])
            if labels is not None:
                scored = logits[:, :-1].flatten(0, 1).to(torch.promote_types(logits.dtype, torch.float32))
                divisor = (targets != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
                loss = F.cross_entropy(scored, targets, ignore_index=IGNORED, reduction="sum") / divisor
        output = CausalLMOutputWithPast(loss=loss, logits=logits, hidden_states=hidden_states, **{CACHE: cache})
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()
