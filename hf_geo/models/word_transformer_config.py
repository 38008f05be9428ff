"""Settings of the word-level Transformer."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class WordTransformerConfig(PreTrainedConfig):
    """The word-level Transformer of PyTorch's word-language-model example, as Fromage's paper trained it on WikiText-2.

    Args:
        vocab_size: Words of the vocabulary.
        d_model: Width of the embeddings and of every layer; even, and a multiple of `nhead`.
        nhead: Attention heads.
        d_hid: Width of the feed-forward networks.
        nlayers: Encoder layers.
        dropout: Probability of dropping a unit: after the positions, in the attention, around the feed-forward network.
        tie_word_embeddings: Whether the decoder's weight is the embedding itself.
        use_cache: Whether `generate()` keeps the keys and values of the words it has seen.
        bos_token_id, eos_token_id, pad_token_id: Ids `generate()` starts, ends and pads with.

    Raises:
        ValueError: A `d_model` that is odd or no multiple of `nhead`; a `dropout` outside [0, 1).
    """

    model_type = "word_transformer"
    keys_to_ignore_at_inference = ["cache", "past_key_values"]  # noqa: RUF012
    attribute_map = {  # noqa: RUF012
        "hidden_size": "d_model",
        "intermediate_size": "d_hid",
        "num_attention_heads": "nhead",
        "num_hidden_layers": "nlayers",
    }

    vocab_size: int = 33_278
    d_model: int = 200
    nhead: int = 2
    d_hid: int = 200
    nlayers: int = 2
    dropout: float | int = 0.2
    tie_word_embeddings: bool = False
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    def __post_init__(self, **kwargs):
        if self.d_model % 2 or self.d_model % self.nhead:
            raise ValueError(
                f"d_model={self.d_model} must be even and a multiple of nhead={self.nhead}: "
                "every position has as many sines as cosines, and every head the same width."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is a probability in [0, 1), not {self.dropout}.")
        super().__post_init__(**kwargs)
