"""What is read of a folder of images: all of it, wherever it lies and however its labels are given, or it is said why not."""

import logging
from pathlib import Path

import numpy as np
import pandas
import pytest

from hf_geo.data import DataArguments, ImageData, load_image_data
from tests.data.images import encoded, shade, write_files


def load(folder: Path, **options) -> ImageData:
    return load_image_data(DataArguments(dataset=str(folder), **options))


def shades(data: ImageData) -> list[int]:
    return sorted(int(image.max()) for split in data.splits.values() for image in split.pixels)


CLASSES = [f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(10)]


IN_SPLITS = [f"{split}/{name}" for split in ("train", "test") for name in CLASSES]


@pytest.mark.parametrize(
    ("names", "splits", "count", "said"),
    [
        ([*CLASSES, "cat/train.png", "dog/train.png"], "train eval", 22, "2 files of"),  # called like a split
        ([*CLASSES, "cat/val-1.PNG", "dog/val-1.PNG"], "train eval", 22, "20 beside them are not: all of them are one"),
        ([*IN_SPLITS, "unsorted/cat/1.png", "unsorted/2.png"], "train eval test", 40, "are in no split"),
        ([*IN_SPLITS[:20], "test/1.png", "test/2.png"], "train eval", 20, "images of 'test' are not in class folders"),
    ],
)
def test_what_is_where_no_split_expects_it_is_read_or_counted(
    tmp_path, caplog, names: list[str], splits: str, count: int, said: str
) -> None:
    with caplog.at_level(logging.WARNING):
        data = load(write_files(tmp_path / "pets", names))
    assert list(data.splits) == splits.split() and data.label_names == ("cat", "dog")
    assert len(shades(data)) == count and said in caplog.text


@pytest.mark.parametrize(
    ("folder", "names", "message"),
    [
        ("pets [v2]", CLASSES, r"has one of the characters \*\?\[ in it.*: rename the folder"),
        (
            "one",
            [f"train/only/{i}.png" for i in range(8)],
            "nor one that could be it: give a folder of images for each",
        ),
    ],
)
def test_folders_that_are_no_data_set(tmp_path, folder: str, names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(write_files(tmp_path / folder, names))
    with pytest.raises(ValueError, match="'imagefolder' is a kind of data set, not one: give the folder"):
        load(Path("imagefolder"))


@pytest.mark.parametrize("place", ["link/pets", "linked", "files"])
def test_a_folder_is_read_through_symbolic_links(tmp_path, place: str) -> None:
    write_files(tmp_path / "real" / "pets", CLASSES)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "linked").symlink_to("real/pets")
    for name in CLASSES:
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).symlink_to(tmp_path / "real" / "pets" / name)
    assert shades(load(tmp_path / place)) == list(range(20))


@pytest.mark.parametrize(("values", "names"), [(["dog", "cat"], ("cat", "dog")), ([True, False], ("False", "True"))])
def test_classes_in_words(tmp_path, values: list, names: tuple[str, ...]) -> None:
    write_files(tmp_path / "train", [f"{i}.png" for i in range(20)])
    lines = "".join(f"{i}.png,{values[i % 2]}\n" for i in range(20))
    (tmp_path / "train" / "metadata.csv").write_text("file_name,label\n" + lines)
    data = load(tmp_path)
    assert data.label_names == names
    train = data.splits["train"]
    found = {(int(image.max()) % 2, int(label)) for image, label in zip(train.pixels, train.labels, strict=True)}
    assert found == {(i, names.index(str(values[i]))) for i in (0, 1)}


def test_a_word_that_training_has_not(tmp_path) -> None:
    for split, label in (("train", "dog"), ("test", "cow")):
        cells = [{"bytes": encoded(shade(i)), "path": None} for i in range(20)]
        pandas.DataFrame({"image": cells, "label": ["cat", label] * 10}).to_parquet(tmp_path / f"{split}.parquet")
    with pytest.raises(ValueError, match="The split 'test' has labels that the training split has not, such as 'cow'"):
        load(tmp_path)


@pytest.mark.parametrize("cell", [lambda png: png, lambda png: {"bytes": png, "path": None}], ids=["bytes", "struct"])
def test_images_as_pandas_writes_them(tmp_path, cell) -> None:
    cells = [cell(encoded(shade(i))) for i in range(20)]
    pandas.DataFrame({"image": cells, "label": np.arange(20) % 2}).to_parquet(tmp_path / "train.parquet")
    assert shades(load(tmp_path)) == list(range(20))
