"""Sentences and pairs: which columns are taken, what is left out and counted, and how they are encoded."""

from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from hf_geo.data.config import DataArguments
from hf_geo.data.sentences import Sentences, encode_sentences, load_sentence_data
from hf_geo.data.sentences.columns import find_sentence_columns
from hf_geo.data.sources import load_glosses
from hf_geo.data.tokenizer import build_sentence_tokenizer, rank_sentence_words

TEXT, REAL, INTEGER = Value("string"), Value("float64"), Value("int64")
YES_NO = ClassLabel(names=["yes", "no"])
PAIR = {"premise": TEXT, "hypothesis": TEXT, "label": YES_NO}
LISTS = {"text": TEXT, "label": List(INTEGER)}
FOUND = [
    (PAIR, {}, ("premise", "hypothesis"), "label"),
    ({"idx": INTEGER, "sentence1": TEXT, "sentence2": TEXT, "label": YES_NO}, {}, ("sentence1", "sentence2"), "label"),
    (PAIR, {"text": "hypothesis"}, ("hypothesis",), "label"),
    (PAIR, {"text": "hypothesis", "pair": "premise"}, ("hypothesis", "premise"), "label"),
    ({"a": TEXT, "b": TEXT, "label": INTEGER}, {"pair": "a"}, ("b", "a"), "label"),
    ({"title": TEXT, "text": TEXT, "label": TEXT}, {}, ("text",), "label"),
    ({"review": TEXT, "stars": INTEGER}, {"label": "stars"}, ("review",), "stars"),
    ({"review": TEXT, "good": Value("bool")}, {"label": "good"}, ("review",), "good"),
]
UNCLEAR = [
    ({"text": TEXT, "label": REAL}, {}, "No label column is found: name it with --label_column"),
    ({"text": TEXT, "label": REAL}, {"label": "label"}, "'label' (--label_column) does not hold classes, integers or words"),
    (LISTS, {"label": "label"}, "'label' (--label_column) does not hold classes, integers or words"),
    (PAIR, {"pair": "premis"}, "'premis' (--text_pair_column) is not in the data set. Its columns are premise, hyp"),
    (PAIR, {"pair": "label"}, "--text_pair_column label is the column of the classes"),
    (PAIR, {"text": "premise", "pair": "premise"}, "--text_pair_column premise is the text column itself"),
    ({"text": TEXT, "label": TEXT}, {"text": "label"}, "--text_column label is the column of the classes: name another one"),
    ({"idx": INTEGER, **PAIR}, {"text": "idx"}, "'idx' (--text_column) holds no text. Its columns are idx, premise"),
    ({"a": TEXT, "b": TEXT, "label": YES_NO}, {}, "More than one column of the data set holds text: name one with --text_c"),
    ({"a": INTEGER, "label": YES_NO}, {}, "The data set has no text"),
]  # fmt: skip


@pytest.mark.parametrize(("features", "named", "texts", "label"), FOUND)
def test_columns_are_found(features, named, texts, label) -> None:
    found = find_sentence_columns(features, **named)
    assert (found.texts, found.label) == (texts, label)


@pytest.mark.parametrize(("features", "named", "message"), UNCLEAR)
def test_unclear_columns_are_refused(features, named, message) -> None:
    with pytest.raises(ValueError) as error:
        find_sentence_columns(features, **named)
    assert message in str(error.value)


def write(folder: Path, split: str, labels: list[int], texts: list[str | None] | None = None) -> None:
    texts = texts or [f"text {i}" for i in range(len(labels))]
    rows = {"premise": texts, "hypothesis": [f"other {i}" for i in range(len(labels))], "label": labels}
    Dataset.from_dict(rows, features=Features(PAIR)).to_parquet(folder / f"{split}.parquet")


def load(folder: Path, **options):
    return load_sentence_data(DataArguments(dataset=str(folder), **options))


def test_rows_without_a_label_are_left_out_and_counted(tmp_path) -> None:
    write(tmp_path, "train", [0, -1, 1, 1, 0, -1], ["a", "b", None, " ", "c", "d"])
    write(tmp_path, "validation", [0, 1])
    write(tmp_path, "test", [-1, -1])
    data = load(tmp_path)
    assert data.label_names == ("yes", "no") and data.sentences == 2 and set(data.splits) == {"train", "eval"}
    train = data.splits["train"]
    assert train.labels.tolist() == [0, 1, 1, 0] and train.texts[0] == ["a", "", " ", "c"]
    assert train.texts[1] == ["other 0", "other 2", "other 3", "other 4"]
    assert "train: 4 rows from split 'train' (2 without a label left out, 2 with an empty text)" in data.origin
    assert data.origin.endswith("the labels of split 'test' are hidden, so it is not used.")
    assert list(data.training_texts())[:4] == train.texts[0]


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        ([-1, -1], "All labels of the split 'test' are -1"),
        ([None, None], "2 labels of the split 'test' are missing"),
        (["", ""], "such as ''"),
        (["unknown", None], "1 labels of the split 'test' are missing"),
    ],
)
def test_a_test_split_of_withheld_labels_is_used_only_where_it_is_named(tmp_path, labels, named) -> None:
    names = [0, 1] if labels[0] == -1 else ["no", "yes"]
    for split, column in {"train": names * 10, "validation": names, "test": labels}.items():
        kind = Value("int64" if labels[0] == -1 else "string")
        rows = {"text": [f"text {i}" for i in range(len(column))], "label": column}
        features = Features({"text": Value("string"), "label": kind})
        Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{split}.parquet")
    data = load(tmp_path)
    assert set(data.splits) == {"train", "eval"}
    assert data.origin.endswith("the labels of split 'test' are hidden, so it is not used.")
    with pytest.raises(ValueError, match=named):
        load(tmp_path, test_split="test")


def test_a_part_is_held_out_where_there_is_no_split(tmp_path) -> None:
    write(tmp_path, "train", [0, 1] * 20)
    data = load(tmp_path, eval_size=6, max_train_samples=10)
    held = set(data.splits["eval"].texts[0])
    assert len(held) == 6 and len(data.splits["train"]) == 10 and not held & set(data.splits["train"].texts[0])
    assert load(tmp_path, eval_size=6).splits["eval"].texts == data.splits["eval"].texts


BAD = [
    ([-1, -1], None, {}, "All labels of the split 'train' are -1: name another one with --train_split"),
    ([0, 0, 0], None, {"label_column": "label"}, None),
    ([0, 1], [" ", None], {}, "All texts in the column 'premise' of the split 'train' are empty"),
    ([0, 1], None, {"streaming": True}, "--streaming is not for text classification"),
]


@pytest.mark.parametrize(("labels", "texts", "options", "message"), BAD)
def test_data_that_cannot_be_used(tmp_path, labels, texts, options, message) -> None:
    write(tmp_path, "train", labels, texts)
    write(tmp_path, "validation", [0, 1])
    if message is None:  # two classes are declared, whatever is there
        assert load(tmp_path, **options).label_names == ("yes", "no")
        return
    with pytest.raises(ValueError, match=message):
        load(tmp_path, **options)


def test_labels_that_are_no_classes_are_named(tmp_path) -> None:
    Dataset.from_dict({"text": ["a", "b", "c"] * 9, "label": [0, 1, -2] * 9}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="labels of the split 'train' run from -2 to 1, but there are 2 classes"):
        load(tmp_path, label_column="label")


def test_label_noise_has_a_seed_of_its_own(tmp_path) -> None:
    write(tmp_path, "train", [0, 1] * 40)
    args = [DataArguments(dataset=str(tmp_path), label_noise=0.5, label_noise_seed=noise) for noise in (None, 7)]
    noisy = [[load_sentence_data(one, seed=seed).splits["train"].labels for seed in (0, 1)] for one in args]
    assert [np.array_equal(*pair) for pair in noisy] == [False, True]


def test_tokens_of_pairs_and_what_is_cut(caplog) -> None:
    words = rank_sentence_words(["A cat, a dog.", "the cat"], lowercase=True)
    assert words == ["a", "cat", ",", ".", "dog", "the"]  # by frequency, then by letters
    tokenizer = build_sentence_tokenizer(words, lowercase=True)
    ids = {word: tokenizer.convert_tokens_to_ids(word) for word in ("<unk>", "<s>", "</s>", "<pad>", *words)}
    assert sorted(ids.values()) == list(range(10)) and tokenizer.pad_token_id == ids["<pad>"]
    split = Sentences("train", (["A cat", "the the the the cat"], ["<s> Dog", "dog"]), np.array([1, 0]))
    encoded = encode_sentences(split, tokenizer, longest=9)
    first, second = encoded[0], encoded[1]
    spelled = tokenizer.convert_ids_to_tokens(first["input_ids"])
    assert spelled == ["<s>", "a", "cat", "</s>", "<s>", "<unk>", "<unk>", "<unk>", "</s>"]
    assert first["labels"] == 1 and set(first) == {"input_ids", "token_type_ids", "labels"}
    assert second["token_type_ids"] == [0] * 6 + [1] * 3 and second["labels"] == 0
    assert tokenizer.convert_ids_to_tokens(second["input_ids"]) == ["<s>", *["the"] * 4, "</s>", "<s>", "dog", "</s>"]
    assert encoded.truncated == 2 and "2 of the 2 rows of the split 'train' are longer than 9 tokens" in caplog.text
    assert len(list(encoded)) == 2  # transformers iterates over it to group by length


def test_the_embedded_glosses() -> None:
    splits = load_glosses()
    rows = {text: label for split in splits.values() for text, label in zip(split["text"], split["label"], strict=True)}
    assert sum(len(split) for split in splits.values()) == len(rows) > 20_000  # none stands twice
    names = splits["train"].features["label"].names
    for text, kind in {
        "tallest living quadruped; having a spotted coat and small horns and very long neck and legs; of savannahs of "
        "tropical Africa": "animal",
        "a chair that can be folded flat for storage": "artifact",
        "sweetened mixture of milk and eggs baked or boiled or frozen": "food",
        "the senior petty officer; responsible for discipline aboard ship": "person",
        "shrub bearing oval-fruited kumquats": "plant",
    }.items():
        assert names[rows[text]] == kind
    # An animal's definition rarely calls it a plant, nor a plant's an animal.
    for kind, word, other in (("animal", "bird", "plant"), ("plant", "shrub", "animal")):
        having = [label for text, label in rows.items() if word in text.split()]
        assert having.count(names.index(kind)) > 0.8 * len(having) > 50
        assert having.count(names.index(other)) < 0.02 * len(having)
