"""Text data sets: WikiText-2's counts on the real data, columns, splits, streams, and what is refused."""

import datasets
import pytest
import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from hf_geo.data import DataArguments, TextData, build_word_tokenizer, load_text_data
from hf_geo.data.text import EncodedRows, find_text_column
from tests.paths import SHARED

WIKITEXT = SHARED / "hub" / "datasets" / "Salesforce" / "wikitext"


def save(folder, columns: str = "text", **splits: list[str]) -> str:
    for split, rows in splits.items():
        datasets.Dataset.from_dict({columns: rows}).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return str(folder)


def words(first: int, last: int) -> list[str]:
    return [f"w{i} and\n" for i in range(first, last)]


@pytest.fixture(scope="module")
def wikitext() -> TextData:
    return load_text_data(DataArguments(dataset=str(WIKITEXT), dataset_config="wikitext-2-v1"))


def test_wikitext2_has_the_published_counts(wikitext) -> None:
    tokenizer = wikitext.word_tokenizer()
    assert len(tokenizer) == 33_278
    counts = {}
    vocabulary = tokenizer.get_vocab()
    for split, rows in wikitext.splits.items():
        tokens = wikitext.tokens(split, tokenizer)
        counts[split] = len(tokens)
        # The example's own reading: words between whitespace, <eos> after each line.
        expected = [word for text in rows["text"] for word in (*text.split(), "<eos>")]
        assert tokens.tolist() == [vocabulary[word] for word in expected]
    assert counts == {"train": 2_088_628, "eval": 217_646, "test": 245_569}


def test_docs() -> None:
    data = load_text_data(DataArguments(dataset="docs"))
    tokenizer = data.word_tokenizer()
    counts = {split: len(data.tokens(split, tokenizer)) for split in data.splits}
    assert sum(counts.values()) > 50_000 and min(counts.values()) > 0.05 * sum(counts.values())
    assert {"the", "Python", "object", ".", ",", "("} <= set(tokenizer.get_vocab())
    rows = {split: set(part["text"]) for split, part in data.splits.items()}
    assert not rows["train"] & rows["eval"] and not rows["train"] & rows["test"] and not rows["eval"] & rows["test"]
    assert all(row.endswith("\n") and row.count("\n") == 1 for part in rows.values() for row in part)
    assert data.name == "docs" and data.hub_id is None


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
    ("streaming", "limit", "train", "held"),
    [(False, None, (0, 27), (27, 30)), (False, 5, (0, 25), (25, 30)), (True, 5, (5, 30), (0, 5))],
)
def test_without_a_validation_split_rows_are_held_out(tmp_path, streaming, limit, train, held) -> None:
    folder = save(tmp_path, train=words(0, 30))
    data = load_text_data(DataArguments(dataset=folder, streaming=streaming, max_eval_samples=limit))
    assert [row["text"] for row in data.splits["train"]] == words(*train)
    assert [row["text"] for row in data.splits["eval"]] == words(*held)
    assert "eval: " in data.description and "held out" in data.description and "test" not in data.splits


def byte_pairs(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, BpeTrainer(vocab_size=300, special_tokens=["<|end|>"], show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


def test_lines_end_in_eos_for_word_level_tokenizers_only() -> None:
    rows = datasets.Dataset.from_dict({"text": ["a b\n", "", "b\n\na", None]})
    word_level = build_word_tokenizer(["a b"])
    lines = [word_level.convert_ids_to_tokens(row) for row in EncodedRows(rows, word_level)]
    assert lines == [["a", "b", "<eos>"], ["<eos>"], ["b", "<eos>"], ["<eos>"], ["a", "<eos>"], ["<eos>"]]
    other = byte_pairs(["a b"])
    encoded = [token for row in EncodedRows(rows, other) for token in row]
    assert encoded == other("a b\nb\n\na").input_ids and other.eos_token_id not in encoded


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
def test_a_text_file_is_read_to_the_letter(tmp_path, mark: str, streaming: bool) -> None:
    text = "First line.\nSecond one\n\ncontinues here.\nand ends"
    for split in ("train", "validation"):
        (tmp_path / f"{split}.txt").write_text(mark + text, encoding="utf-8")
    data = load_text_data(DataArguments(dataset=str(tmp_path), streaming=streaming))
    tokenizer = byte_pairs([text])
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
        ({"title": STRING, "body": STRING}, None, "More than one column .* title, body. Name one with --text_column"),
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
        ({"dataset": "docs", "dataset_config": "en"}, "embedded docs"),
        ({"dataset": "docs", "eval_split": "dev"}, "The data set has no split 'dev'"),
        ({"dataset": str(SHARED / "hub" / "datasets" / "uoft-cs" / "cifar10")}, "The data set has no text"),
    ],
)
def test_data_sets_that_do_not_fit(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_text_data(DataArguments(**arguments))


def test_a_stream_with_nothing_to_evaluate_on(tmp_path) -> None:
    folder = save(tmp_path, train=words(0, 5))
    with pytest.raises(ValueError, match="no split to evaluate on: name one with --eval_split"):
        load_text_data(DataArguments(dataset=folder, streaming=True))


def test_tokens_are_stored_small(wikitext) -> None:
    assert wikitext.tokens("eval", build_word_tokenizer(["the"])).dtype == torch.int32
