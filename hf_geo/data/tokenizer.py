"""Word-level tokenizers, made from the words of a text."""

from collections import Counter
from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Replace
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import PreTokenizer, Whitespace, WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

UNKNOWN, END_OF_LINE = "<unk>", "<eos>"
BEGIN, END, PADDING = "<s>", "</s>", "<pad>"  # of a sentence, besides UNKNOWN


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
    splitter = WhitespaceSplit()
    words = rank_words(texts, splitter, min_frequency, special=(UNKNOWN, END_OF_LINE))
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


def rank_words(
    texts: Iterable[str], splitter: PreTokenizer, min_frequency: int, *, special: Sequence[str], lowercase: bool = False
) -> list[str]:
    """Lists the words of texts from the most frequent to the least, words of equal frequency by their letters.

    Args:
        texts: The training split.
        splitter: Divides a text into words as the tokenizer will.
        min_frequency: Words that occur less often are left out.
        special: Words that are left out because they mean something else.
        lowercase: Ignore case.

    Raises:
        ValueError: There is no word in the texts.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        text = Lowercase().normalize_str(text) if lowercase else text
        counts.update(word for word, _ in splitter.pre_tokenize_str(text))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    words = [word for word, count in ranked if count >= min_frequency and word not in special]
    if not words:
        raise ValueError(
            f"The text to build a vocabulary from has no word that occurs {min_frequency} times or more: "
            "give more text, or a smaller --min_frequency."
        )
    return words


def rank_sentence_words(texts: Iterable[str], *, min_frequency: int = 1, lowercase: bool = False) -> list[str]:
    """Lists the words and marks of sentences as `rank_words`, for `build_sentence_tokenizer`."""
    special = (UNKNOWN, BEGIN, END, PADDING)
    return rank_words(texts, Whitespace(), min_frequency, special=special, lowercase=lowercase)


def build_sentence_tokenizer(words: Sequence[str], *, lowercase: bool = False) -> PreTrainedTokenizerFast:
    """Builds a tokenizer of sentences and pairs of sentences whose tokens are words, and marks between them.

    Every sentence is put between `<s>` and `</s>`; `token_type_ids` tell the second sentence of a pair from the first. The
    ids are 0 for `<unk>`, 1 to 3 for `<s>`, `</s>` and `<pad>`, then those of `words` in their order.

    Args:
        words: The vocabulary.
        lowercase: Ignore case; `words` are then in lower case.
    """
    special = (UNKNOWN, BEGIN, END, PADDING)
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate((*special, *words))}, unk_token=UNKNOWN))
    if lowercase:
        tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single=f"{BEGIN} $A {END}",
        pair=f"{BEGIN} $A {END} {BEGIN}:1 $B:1 {END}:1",
        special_tokens=[(BEGIN, special.index(BEGIN)), (END, special.index(END))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PADDING,
        padding_side="right",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,  # "<s>" within a sentence is text
    )


def is_word_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokens are whole words; a corpus then has a word for the end of a line."""
    return tokenizer.is_fast and isinstance(tokenizer.backend_tokenizer.model, WordLevel)
