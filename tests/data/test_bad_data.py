"""What is wrong with a data set is said in one sentence, before anything is trained."""

import datasets
import pyarrow.parquet
import pytest

from hf_geo.data import DataArguments, load_image_data
from hf_geo.data.bad_samples import BadSamples
from hf_geo.data.columns import Columns
from hf_geo.data.image_split import ImageSplit
from hf_geo.data.streams import StreamedSplit
from tests.data.images import config_for, shade
from tests.paths import SHARED

CIFAR10 = str(SHARED / "hub" / "datasets" / "uoft-cs" / "cifar10")
CAT_DOG, INTEGER = datasets.ClassLabel(names=["cat", "dog"]), datasets.Value("int64")
GREY = [shade(9 * i) for i in range(20)]


def refusal(**options) -> str:
    with pytest.raises(ValueError) as error:
        data = load_image_data(DataArguments(**options))
        list(data.dataset("train", config_for(data)))
    assert "\n" not in str(error.value)
    return str(error.value)


def write(folder, labels, *, split="train", feature=CAT_DOG) -> str:
    """A data set of one parquet file whose label column holds what it is given, unchecked."""
    features = datasets.Features({"image": datasets.Image(), "label": INTEGER})
    rows = {"image": GREY[: len(labels)], "label": labels}
    table = datasets.Dataset.from_dict(rows, features=features).data.table
    declared = datasets.Features({"image": datasets.Image(), "label": feature}).arrow_schema.metadata
    folder.mkdir(exist_ok=True)
    pyarrow.parquet.write_table(table.replace_schema_metadata(declared), folder / f"{split}.parquet")
    return str(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": None}, "No data set is named: give a Hub id, a folder or digits"),
        ({"dataset": "/no/such/folder"}, "There is no folder '/no/such/folder' to read a data set from: look"),
        ({"dataset": "some/data"}, "'some/data' is no folder here, and the Hub cannot be reached"),
        ({"dataset": "somedata"}, "or give the folder of a copy with --dataset."),
        ({"dataset": "digits", "dataset_config": "small"}, "digits have no configurations"),
        ({"dataset": "digits", "streaming": True}, "digits have no configurations and nothing to stream"),
        ({"dataset": CIFAR10, "dataset_config": "fancy_text"}, "'fancy_text' not found. Available: ['plain_text']: name one with --dataset_config."),
        ({"dataset": CIFAR10, "eval_split": "valid"}, "no split 'valid' (--eval_split): it has train, test."),
        ({"dataset": CIFAR10, "image_column": "image"}, "no column 'image' (--image_column). The columns are img (image), label"),
        ({"dataset": CIFAR10, "label_column": "img"}, "The column 'img' (--label_column) does not hold classes, integers or words."),
        ({"dataset": CIFAR10, "streaming": True, "label_noise": 0.1}, "--label_noise needs all labels before training"),
        ({"dataset": CIFAR10, "streaming": True}, "no split to evaluate on: name one with --eval_split (of train, test)"),
    ],
)  # fmt: skip
def test_what_is_asked_for_is_not_there(options, message):
    assert message in refusal(**options)


def test_a_folder_without_data(tmp_path):
    assert refusal(dataset=str(tmp_path)).startswith(f"The folder {str(tmp_path)!r} cannot be read as a data set: ")
    (tmp_path / "notes.txt").write_text("no images\n")
    assert "No image column is found" in refusal(dataset=str(tmp_path))
    (tmp_path / "train.parquet").write_bytes(b"not parquet")
    message = refusal(dataset=str(tmp_path))
    assert message.startswith(f"The folder {str(tmp_path)!r} cannot be read as a data set: ")
    assert "Parquet magic bytes not found" in message


@pytest.mark.parametrize(
    ("train", "test", "feature", "message"),
    [
        ([0, 1] * 9 + [2, 0], None, CAT_DOG, "'train' run from 0 to 2, but there are 2 classes, 0 to 1: repair"),
        ([0, 1] * 9 + [-1, 0], None, CAT_DOG, "'train' run from -1 to 1, but there are 2 classes, 0 to 1: repair"),
        ([0, 1] * 9 + [None, 0], None, CAT_DOG, "1 labels of the split 'train' are missing: remove those rows."),
        ([0, 1, 2] * 6, [0, 3], INTEGER, "labels of the split 'test' run from 0 to 3, but there are 3 classes, 0 to 2"),
    ],
)
def test_labels_that_are_no_classes(tmp_path, train, test, feature, message):
    write(tmp_path, train, feature=feature)
    if test:
        write(tmp_path, test, split="test", feature=feature)
    assert message in refusal(dataset=str(tmp_path))


def test_an_empty_split_and_missing_images():
    columns = Columns("image", "label", ("cat", "dog"))
    features = datasets.Features(image=datasets.Image(), label=CAT_DOG)
    one = datasets.Dataset.from_dict({"image": GREY[:1], "label": [0]}, features=features)
    with pytest.raises(ValueError, match="The split 'train' is empty"):
        ImageSplit.read(one.select([]), columns, "train", BadSamples(0))
    none = datasets.Dataset.from_dict({"image": [GREY[0], None], "label": [0, 1]}, features=features)
    with pytest.raises(ValueError, match="1 images of the split 'train' are missing: remove those rows"):
        ImageSplit.read(none, columns, "train", BadSamples(0))
    with pytest.raises(ValueError, match="The split 'train' is empty"):
        StreamedSplit.read(one.to_iterable_dataset().skip(1), columns, "train", BadSamples(0))


def test_a_choice_of_configurations(tmp_path):
    for name in ("small", "large"):
        write(tmp_path / name, [0, 1] * 10)
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: small\n  data_files: small/*\n- config_name: large\n  data_files: large/*\n---\n"
    )
    assert "available configs: ['small', 'large']: name one with --dataset_config." in refusal(dataset=str(tmp_path))
    assert load_image_data(DataArguments(dataset=str(tmp_path), dataset_config="large")).num_classes == 2


@pytest.mark.parametrize(
    ("withheld", "named"),
    [(-1, "labels of the split 'test' run from -1 to -1"), (None, "4 labels of the split 'test' are missing")],
)
def test_hidden_test_labels_are_left_out_unless_asked_for(tmp_path, withheld, named):
    folder = tmp_path / "data"
    write(folder, [0, 1] * 9)
    write(folder, [withheld] * 4, split="test")
    data = load_image_data(DataArguments(dataset=str(folder)))
    assert list(data.splits) == ["train", "eval"]
    assert "the labels of split 'test' are hidden, so it is not used" in data.description
    assert named in refusal(dataset=str(folder), test_split="test")
    streamed = load_image_data(DataArguments(dataset=str(folder), streaming=True, eval_size=4))
    assert list(streamed.splits) == ["train", "eval"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch) -> None:
    folder = write(tmp_path / "data", [0, 1] * 5)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", "/dev/null/cache")
    said = refusal(dataset=folder)
    assert said.startswith("The cache of data sets, '/dev/null/cache', cannot be written (Not a directory)")
    assert "set HF_DATASETS_CACHE" in said
