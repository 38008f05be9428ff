"""Word-level tokenizers, made from the words of a text."""

from collections import Counter
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Replace
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

UNKNOWN, END_OF_LINE = "<unk>", "<eos>"


def build_word_tokenizer(texts: Iterable[str], *, min_frequency: int = 1) -> PreTrainedTokenizerFast:
    """Builds a tokenizer whose tokens are the words of `texts`, separated by whitespace.

    The ids are 0 for `<unk>`, 1 for `<eos>`, then the words from the most frequent to the least. `<eos>` ends the lines of
    a corpus, and so also begins and pads texts; the tokenizer itself adds none.

    Args:
        texts: The training split.
        min_frequency: Words that occur less often become `<unk>`.

    Raises:
        ValueError: There is no word in the texts.
    """
    splitter = WhitespaceSplit()  # not `str.split`, which splits at other characters than the tokenizer will
    counts = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(text))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    words = [word for word, count in ranked if count >= min_frequency and word not in (UNKNOWN, END_OF_LINE)]
    if not words:
        raise ValueError(
            f"The text to build a vocabulary from has no word that occurs {min_frequency} times or more: "
            "give more text, or a smaller --min_frequency."
        )
    vocabulary = {word: i for i, word in enumerate((UNKNOWN, END_OF_LINE, *words))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = splitter
    # Text starts with a space, so that a continuation decoded by itself can be appended to its prompt.
    tokenizer.decoder = Replace(Regex("^"), " ")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        eos_token=END_OF_LINE,
        bos_token=END_OF_LINE,
        pad_token=END_OF_LINE,
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,  # "<unk>" within a longer word is a part of that word
    )


def is_word_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokens are whole words; a corpus then has a word for the end of a line."""
    return tokenizer.is_fast and isinstance(tokenizer.backend_tokenizer.model, WordLevel)
