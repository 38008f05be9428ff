"""The word-level Transformer language model: post-norm encoder layers under a causal mask."""

# ruff: noqa: RUF012 (transformers reads these off the class, and some of them only as lists)

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.output_capturing import capture_outputs

from .linear_cross_entropy import linear_cross_entropy
from .word_transformer_config import WordTransformerConfig


def sinusoids(positions: Tensor, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Sines (even columns) and cosines (odd) of the positions, wavelengths growing from 2 pi to 10,000 x 2 pi.

    Args:
        positions: Whole numbers of any shape.
        width: Even.
        dtype: To return; float32 at least is computed in.

    Returns:
        Shape (*positions.shape, width).
    """
    wide = torch.promote_types(dtype, torch.float32)
    rates = torch.exp(torch.arange(0, width, 2, device=positions.device, dtype=wide) * (-math.log(10_000.0) / width))
    angles = positions[..., None] * rates
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2).to(dtype)


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
        heads = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None and x.shape[1] > 1,
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

    Differs from the example: every layer has its own initial weights (there, all start as copies of one), and there is
    no longest sequence.

    Papers: Vaswani et al. 2017, arXiv 1706.03762; Bernstein et al. 2020, arXiv 2002.03432.
    """

    config: WordTransformerConfig
    config_class = WordTransformerConfig
    main_input_name = "input_ids"
    _tied_weights_keys = {"decoder.weight": "embedding.weight"}
    _can_record_outputs = {"hidden_states": EncoderLayer}
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
            init.uniform_(module.weight, -0.1, 0.1)
        elif module in into:
            init.xavier_uniform_(module.weight)
        elif isinstance(module, (nn.Linear, nn.LayerNorm)):
            module.reset_parameters()
        if module in (self.decoder, *into, *out_of):
            init.zeros_(module.bias)

    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: int | Tensor | None = None,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """Logits of the next words, and the loss where labels are given.

        Args:
            input_ids: Words, shape (batch, length); or `inputs_embeds`, not yet scaled, (batch, length, d_model).
            attention_mask: 1 for words, 0 for padding, shape (batch, words seen so far).
            position_ids: Positions, shape (1 or batch, length); after those in the cache by default.
            past_key_values: Keys and values of earlier words.
            labels: The words themselves, shape (batch, length), -100 where there is nothing to predict: position i is
                scored on label i + 1.
            use_cache: Whether to return keys and values in `past_key_values`.
            logits_to_keep: Logits of that many last positions only; all with 0.
            num_items_in_batch: Divisor of the summed loss; the number of scored labels by default.

        Returns:
            `loss` (scalar), `logits` (batch, length, vocab_size) and `past_key_values`. While a model in training mode
            is given labels and gradients are on, `logits` is None: they are never all computed.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give either input_ids or inputs_embeds, and not both.")
        embedded = self.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            seen = 0 if past_key_values is None else past_key_values.get_seq_length()
            position_ids = torch.arange(seen, seen + embedded.shape[1], device=embedded.device)[None]
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=embedded,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )

        width = self.config.d_model
        x = self.dropout(embedded * math.sqrt(width) + sinusoids(position_ids, width, embedded.dtype))
        for layer in self.layers:
            x = layer(x, mask, past_key_values)

        if labels is not None and self.training and torch.is_grad_enabled():
            loss = linear_cross_entropy(
                x[:, :-1].flatten(0, 1),
                self.decoder.weight,
                self.decoder.bias,
                labels[:, 1:].flatten(),
                num_items_in_batch,
            )
            return CausalLMOutputWithPast(loss=loss)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.decoder(x[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config.vocab_size, num_items_in_batch=num_items_in_batch)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values)
