"""Word-level tokenizers: ids, unknown words, and what comes back from a folder."""

import pytest
from transformers import AutoTokenizer

from hf_geo.data.text import build_word_tokenizer, is_word_level

TEXTS = [" the cat sees the dog \n", "a dog 's <unk> , the end", "<eos> the\tdog"]


def test_words_by_frequency() -> None:
    tokenizer = build_word_tokenizer(TEXTS)
    ordered = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    assert ordered == ["<unk>", "<eos>", "the", "dog", "'s", ",", "a", "cat", "end", "sees"]
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))


def test_encoding_and_decoding() -> None:
    tokenizer = build_word_tokenizer(TEXTS)
    encoded = tokenizer(" the  zebra sees <unk> ,\ndog \n")
    assert set(encoded) == {"input_ids", "attention_mask"}
    assert tokenizer.convert_ids_to_tokens(encoded["input_ids"]) == ["the", "<unk>", "sees", "<unk>", ",", "dog"]
    assert tokenizer.decode(encoded["input_ids"]) == " the <unk> sees <unk> , dog"
    assert (tokenizer.unk_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id) == (
        0,
        1,
        1,
        1,
    )
    batch = tokenizer(["dog", "the dog"], padding=True)
    assert batch["attention_mask"] == [[0, 1], [1, 1]]  # text goes on at the right end


@pytest.mark.parametrize(
    "text", ["a\x1cb c", "foo<unk>bar baz", "end <eos>. now", "a\u2028b\x85c\xa0d\u3000e", "x\r\ny\x0bz"]
)
def test_the_words_that_are_counted_are_those_that_are_read(text: str, tmp_path) -> None:
    build_word_tokenizer([text]).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    words = tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])
    assert set(words) == set(tokenizer.get_vocab()) - {"<unk>", "<eos>"}


def test_rare_words_are_unknown() -> None:
    tokenizer = build_word_tokenizer(TEXTS, min_frequency=2)
    assert set(tokenizer.get_vocab()) == {"<unk>", "<eos>", "the", "dog"}


def test_auto_tokenizer_opens_it(tmp_path) -> None:
    tokenizer = build_word_tokenizer(TEXTS)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab() and is_word_level(again)
    assert again("the zebra").input_ids == tokenizer("the zebra").input_ids
    assert (again.eos_token, again.unk_token, again.padding_side) == ("<eos>", "<unk>", "left")


@pytest.mark.parametrize(("texts", "frequency"), [([], 1), (["", " \n"], 1), (["<unk> <eos>"], 1), (["a b c"], 2)])
def test_no_words(texts: list[str], frequency: int) -> None:
    with pytest.raises(ValueError, match=f"no word that occurs {frequency} times or more"):
        build_word_tokenizer(texts, min_frequency=frequency)
