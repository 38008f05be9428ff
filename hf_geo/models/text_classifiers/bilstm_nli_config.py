"""Settings of the BiLSTM classifier of sentences and pairs of sentences."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class BiLstmNliConfig(PreTrainedConfig):
    """The sentence-pair classifier that ALI-G's paper trained on SNLI: 47.2 M parameters besides the word vectors.

    Args:
        vocab_size: Words of the vocabulary, special ones included.
        frozen_words: How many of them, the last ones, have a fixed vector; the others' vectors are trained.
        word_size: Width of a word's vector.
        hidden_size: Width of the LSTM in each direction.
        classifier_size: Width of the classifier's two inner layers.
        sentences: 2 for pairs, 1 for single sentences.
        pool_padding: Whether the maximum over a sentence that is not its batch's longest includes zero, as in the authors'
            code; a prediction then depends on the other sentences of its batch.
        drop_token_id: Id of the token that is left out of every sentence: the unknown word, or None for no token.
        bos_token_id, eos_token_id, pad_token_id: Ids of the tokens that begin, end and pad a sentence.

    Raises:
        ValueError: A size below 1; `sentences` other than 1 or 2; no trained word, of which the special ones are some.
    """

    model_type = "bilstm_nli"

    vocab_size: int = 40_000
    frozen_words: int = 0
    word_size: int = 300
    hidden_size: int = 2048
    classifier_size: int = 512
    sentences: int = 2
    pool_padding: bool = False
    drop_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    def __post_init__(self, **kwargs):
        for name in ("vocab_size", "word_size", "hidden_size", "classifier_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, not {getattr(self, name)}.")
        if self.sentences not in (1, 2):
            raise ValueError(f"sentences is 1, or 2 for pairs, not {self.sentences}.")
        if not 0 <= self.frozen_words < self.vocab_size:
            raise ValueError(f"frozen_words={self.frozen_words} must leave a trained one of {self.vocab_size} words.")
        super().__post_init__(**kwargs)
