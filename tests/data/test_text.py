"""Text data sets and word-level tokenizers: WikiText-2's counts, columns, splits, streams, and what is refused."""

import json

import datasets
import pytest
import torch
from tokenizers.processors import TemplateProcessing
from torch.utils.data import DataLoader
from transformers import AutoTokenizer

from hf_geo.data import DataArguments, TextData, build_word_tokenizer, load_text_data
from hf_geo.data.text import EncodedRows, find_text_column
from hf_geo.data.tokenizer import is_word_level
from tests.models.tiny import byte_tokenizer
from tests.paths import SHARED

WIKITEXT = SHARED / "hub" / "datasets" / "Salesforce" / "wikitext"


def save(folder, columns: str = "text", **splits: list[str]) -> str:
    for split, rows in splits.items():
        datasets.Dataset.from_dict({columns: rows}).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return str(folder)


def words(first: int, last: int) -> list[str]:
    return [f"w{i} and\n" for i in range(first, last)]


def test_wikitext2_has_the_published_counts() -> None:
    wikitext = load_text_data(DataArguments(dataset=str(WIKITEXT), dataset_config="wikitext-2-v1"))
    tokenizer = wikitext.word_tokenizer()
    assert len(tokenizer) == 33_278
    counts = {}
    vocabulary = tokenizer.get_vocab()
    for split in ("eval", "test"):
        tokens = wikitext.tokens(split, tokenizer)
        counts[split] = len(tokens)
        # The example's own reading: words between whitespace, <eos> after each line.
        expected = [word for text in wikitext.splits[split]["text"] for word in (*text.split(), "<eos>")]
        assert tokens.tolist() == [vocabulary[word] for word in expected] and tokens.dtype == torch.int32
    assert counts == {"eval": 217_646, "test": 245_569}


def test_docs() -> None:
    data = load_text_data(DataArguments(dataset="docs"))
    tokenizer = data.word_tokenizer()
    counts = {split: len(data.tokens(split, tokenizer)) for split in data.splits}
    assert sum(counts.values()) > 50_000 and min(counts.values()) > 0.05 * sum(counts.values())
    rows = {split: set(part["text"]) for split, part in data.splits.items()}
    assert not rows["train"] & rows["eval"] and not rows["train"] & rows["test"] and not rows["eval"] & rows["test"]
    assert all(row.endswith("\n") and row.count("\n") == 1 for part in rows.values() for row in part)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_folder_and_its_stream_give_the_same_tokens(tmp_path, streaming: bool) -> None:
    folder = save(tmp_path, "prose", train=words(0, 30), validation=words(5, 10), test=words(3, 4))
    data = load_text_data(DataArguments(dataset=folder, text_column="prose", streaming=streaming, max_train_samples=20))
    tokenizer = data.word_tokenizer()
    assert len(tokenizer) == 23 and isinstance(data.splits["train"], datasets.IterableDataset) == streaming
    text = tokenizer.decode(data.tokens("train", tokenizer)).split()
    assert text == [word for i in range(20) for word in (f"w{i}", "and", "<eos>")]
    assert tokenizer.decode(data.tokens("test", tokenizer)).split() == ["w3", "and", "<eos>"]
    assert "train: split 'train', its first 20 rows; eval: split 'validation'" in data.description


@pytest.mark.parametrize(
    ("streaming", "size", "train", "held"),
    [(False, None, (0, 27), (27, 30)), (False, 5, (0, 25), (25, 30)), (True, 5, (5, 30), (0, 5))],
)
def test_without_a_validation_split_rows_are_held_out(tmp_path, streaming, size, train, held) -> None:
    folder = save(tmp_path, train=words(0, 30))
    for limit in (None, 2, 50):  # of what is evaluated, which leaves the division as it is
        options = {"streaming": streaming, "eval_size": size, "max_eval_samples": limit}
        data = load_text_data(DataArguments(dataset=folder, **options))
        assert [row["text"] for row in data.splits["train"]] == words(*train)
        assert [row["text"] for row in data.splits["eval"]] == words(*held)[:limit]
        assert "eval: " in data.description and "held out" in data.description and "test" not in data.splits


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_stream_holds_out_is_the_same_whatever_workers_read_it(tmp_path, workers: int) -> None:
    for number in range(4):
        rows = [{"text": word} for word in words(10 * number, 10 * number + 10)]
        (tmp_path / f"train-{number}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = load_text_data(DataArguments(dataset=str(tmp_path), streaming=True, eval_size=14))
    read = {split: DataLoader(rows, batch_size=None, num_workers=workers) for split, rows in data.splits.items()}
    assert sorted(row["text"] for row in read["eval"]) == sorted(words(0, 14))
    assert sorted(row["text"] for row in read["train"]) == sorted(words(14, 40))


def test_lines_end_in_eos_for_word_level_tokenizers_only() -> None:
    rows = datasets.Dataset.from_dict({"text": ["a b\n", "", "b\n\na", None]})
    word_level = build_word_tokenizer(["a b"])
    lines = [word_level.convert_ids_to_tokens(row) for row in EncodedRows(rows, word_level)]
    assert lines == [["a", "b", "<eos>"], ["<eos>"], ["b", "<eos>"], ["<eos>"], ["a", "<eos>"], ["<eos>"]]
    other = byte_tokenizer(["a b"])
    encoded = [token for row in EncodedRows(rows, other) for token in row]
    assert encoded == other("a b\nb\n\na").input_ids and other.eos_token_id not in encoded


@pytest.mark.parametrize(("mark", "streaming"), [("", False), ("\ufeff", True)], ids=["plain", "byte order mark"])
def test_a_text_file_is_read_to_the_letter(tmp_path, mark: str, streaming: bool) -> None:
    text = "First line.\nSecond one\n\ncontinues here.\nand ends"
    for split in ("train", "validation"):
        (tmp_path / f"{split}.txt").write_text(mark + text, encoding="utf-8")
    data = load_text_data(DataArguments(dataset=str(tmp_path), streaming=streaming))
    tokenizer = byte_tokenizer([text])
    assert tokenizer.decode(data.tokens("train", tokenizer)) == text
    words = data.word_tokenizer()
    assert words.decode(data.tokens("eval", words)).split() == f"{text}\n".replace("\n", " <eos> ").split()


STRING, NUMBER = datasets.Value("string"), datasets.Value("int64")


@pytest.mark.parametrize(
    ("features", "named", "column"),
    [
        ({"text": STRING, "title": STRING}, None, "text"),
        ({"title": STRING, "year": NUMBER}, None, "title"),
        ({"text": STRING, "title": datasets.Value("large_string")}, "title", "title"),
    ],
)
def test_the_text_column_is_found(features: dict, named: str | None, column: str) -> None:
    rows = datasets.Dataset.from_dict({name: [] for name in features}, features=datasets.Features(features))
    assert find_text_column(rows, named) == column


@pytest.mark.parametrize(
    ("features", "named", "message"),
    [
        ({"image": NUMBER, "label": NUMBER}, None, "The data set has no text. Its columns are image, label."),
        (
            {"title": STRING, "body": STRING},
            None,
            "More than one column .*: name one with --text_column. Its columns are title, body",
        ),
        ({"text": STRING, "year": NUMBER}, "year", r"column 'year' \(--text_column\) holds no text"),
        ({"text": STRING}, "txt", r"column 'txt' \(--text_column\) is not in the data set. Its columns are text."),
    ],
)
def test_a_text_column_that_is_not_there(features: dict, named: str | None, message: str) -> None:
    rows = datasets.Dataset.from_dict({name: [] for name in features}, features=datasets.Features(features))
    with pytest.raises(ValueError, match=message):
        find_text_column(rows, named)


def test_a_stream_without_types_shows_them_in_its_first_row() -> None:
    rows = datasets.IterableDataset.from_generator(lambda: iter([{"year": 1, "body": "x"}]))
    assert rows.features is None and find_text_column(rows) == "body"
    empty = datasets.IterableDataset.from_generator(lambda: iter([]))
    with pytest.raises(ValueError, match=r"The data set has no text\. It has no columns"):
        find_text_column(empty)


def test_an_empty_split(tmp_path) -> None:
    empty = datasets.Dataset.from_dict({"text": []})
    data = TextData("prose", None, {"train": datasets.Dataset.from_dict({"text": ["a b"]}), "eval": empty}, "")
    with pytest.raises(ValueError, match="The 'eval' split of prose is empty: there is no text in it"):
        data.tokens("eval", data.word_tokenizer())
    with pytest.raises(ValueError, match="has no 'test' split to use: it has train, eval"):
        data.tokens("test", data.word_tokenizer())
    with pytest.raises(ValueError, match=r"cannot be read as a data set: .*validation.* no data"):
        load_text_data(DataArguments(dataset=save(tmp_path, train=words(0, 5), validation=[])))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "docs", "streaming": True}, "embedded docs have no configurations and nothing to stream"),
        ({"dataset": "docs", "eval_split": "dev"}, "The data set has no split 'dev'"),
        ({"streaming": True}, "no split to evaluate on: name one with --eval_split"),
        (
            {"dataset": "docs", "eval_size": 9},
            "--eval_size 9 holds out training samples, but the split 'validation' is",
        ),
        (
            {"streaming": True, "eval_size": 5},
            "--eval_size 5 holds out every row of the training split and leaves nothing",
        ),
        ({"eval_size": 5}, "Of 5 rows to train on, 5 cannot be held out"),
    ],
)
def test_data_sets_that_do_not_fit(arguments: dict, message: str, tmp_path) -> None:
    folder = save(tmp_path, train=words(0, 5))
    with pytest.raises(ValueError, match=message):
        load_text_data(DataArguments(**{"dataset": folder, **arguments}))


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
    assert [getattr(tokenizer, f"{kind}_token_id") for kind in ("unk", "eos", "bos", "pad")] == [0, 1, 1, 1]
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


def test_auto_tokenizer_opens_it(tmp_path) -> None:
    tokenizer = build_word_tokenizer(TEXTS, min_frequency=2)
    assert set(tokenizer.get_vocab()) == {"<unk>", "<eos>", "the", "dog"}
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab() and is_word_level(again)
    assert (again.eos_token, again.unk_token, again.padding_side) == ("<eos>", "<unk>", "left")


@pytest.mark.parametrize(("texts", "frequency"), [([], 1), (["", " \n"], 1), (["<unk> <eos>"], 1), (["a b c"], 2)])
def test_no_words(texts: list[str], frequency: int) -> None:
    with pytest.raises(ValueError, match=f"no word that occurs {frequency} times or more"):
        build_word_tokenizer(texts, min_frequency=frequency)


def test_rows_get_no_special_tokens() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|end|> $A", special_tokens=[("<|end|>", tokenizer.eos_token_id)]
    )
    rows = ["ab\n", "", "ba\n"]
    encoded = list(EncodedRows(datasets.Dataset.from_dict({"text": rows}), tokenizer))
    assert [tokenizer.decode(row) for row in encoded] == rows and tokenizer.eos_token_id in tokenizer("ab")["input_ids"]
