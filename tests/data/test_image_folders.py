"""What is read of a folder of images: all of it, wherever it lies and however its labels are given, or it is said why not."""

import io
import logging
from pathlib import Path

import numpy as np
import pandas
import PIL.Image
import pytest

from hf_geo.data import DataArguments, ImageData, load_image_data


def png(shade: int) -> bytes:
    file = io.BytesIO()
    PIL.Image.new("L", (8, 8), shade).save(file, "PNG")
    return file.getvalue()


def write(folder: Path, names: list[str]) -> Path:
    for shade, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(shade))
    return folder


def load(folder: Path, **options) -> ImageData:
    return load_image_data(DataArguments(dataset=str(folder), **options))


def shades(data: ImageData) -> list[int]:
    return sorted(int(image.max()) for split in data.splits.values() for image in split.pixels)


CLASSES = [f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(10)]


@pytest.mark.parametrize("name", ["train.png", "val-1.PNG"])
def test_a_file_called_like_a_split_hides_no_other(tmp_path, caplog, name: str) -> None:
    names = [*CLASSES, f"cat/{name}", f"dog/{name}"]
    with caplog.at_level(logging.WARNING):
        data = load(write(tmp_path / "pets", names))
    assert shades(data) == list(range(22)) and list(data.splits) == ["train", "eval"]
    assert "2 files of" in caplog.text and "20 beside them are not: all of them are one training split" in caplog.text


def test_images_in_no_split_are_counted(tmp_path, caplog) -> None:
    names = [f"{split}/{name}" for split in ("train", "test") for name in CLASSES]
    with caplog.at_level(logging.WARNING):
        data = load(write(tmp_path / "pets", [*names, "unsorted/cat/1.png", "unsorted/2.png"]))
    assert len(shades(data)) == 40
    assert "2 images of" in caplog.text and "are in no split" in caplog.text


def test_a_split_without_labels_takes_them_from_no_other(tmp_path, caplog) -> None:
    names = [*(f"train/{name}" for name in CLASSES), "test/1.png", "test/2.png"]
    with caplog.at_level(logging.WARNING):
        data = load(write(tmp_path / "kaggle", names))
    assert data.label_names == ("cat", "dog") and list(data.splits) == ["train", "eval"] and len(shades(data)) == 20
    assert "The images of 'test' are not in class folders" in caplog.text


@pytest.mark.parametrize("place", ["link/pets", "linked", "files"])
def test_a_folder_is_read_through_symbolic_links(tmp_path, place: str) -> None:
    write(tmp_path / "real" / "pets", CLASSES)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "linked").symlink_to("real/pets")
    for name in CLASSES:
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).symlink_to(tmp_path / "real" / "pets" / name)
    assert shades(load(tmp_path / place)) == list(range(20))


def test_a_name_that_is_a_pattern_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"has one of the characters \*\?\[ in it.*: rename the folder"):
        load(write(tmp_path / "pets [v2]", CLASSES))


def test_a_kind_of_data_set_is_none() -> None:
    with pytest.raises(ValueError, match="'imagefolder' is a kind of data set, not one: give the folder"):
        load(Path("imagefolder"))


def test_one_class_is_said_to_be_one(tmp_path) -> None:
    with pytest.raises(ValueError, match="nor one that could be it: give a folder of images for each class"):
        load(write(tmp_path / "one", [f"train/only/{i}.png" for i in range(8)]))


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["dog", "cat"], ("cat", "dog")),
        ([True, False], ("False", "True")),
    ],
)
def test_classes_in_words(tmp_path, values: list, names: tuple[str, ...]) -> None:
    write(tmp_path / "train", [f"{i}.png" for i in range(20)])
    lines = "".join(f"{i}.png,{values[i % 2]}\n" for i in range(20))
    (tmp_path / "train" / "metadata.csv").write_text("file_name,label\n" + lines)
    data = load(tmp_path)
    assert data.label_names == names
    train = data.splits["train"]
    found = {(int(image.max()) % 2, int(label)) for image, label in zip(train.pixels, train.labels, strict=True)}
    assert found == {(i, names.index(str(values[i]))) for i in (0, 1)}


def test_a_word_that_training_has_not(tmp_path) -> None:
    for split, label in (("train", "dog"), ("test", "cow")):
        cells = [{"bytes": png(i), "path": None} for i in range(20)]
        labels = ["cat", label] * 10
        pandas.DataFrame({"image": cells, "label": labels}).to_parquet(tmp_path / f"{split}.parquet")
    with pytest.raises(ValueError, match="The split 'test' has labels that the training split has not, such as 'cow'"):
        load(tmp_path)


@pytest.mark.parametrize("cell", [lambda png: png, lambda png: {"bytes": png, "path": None}], ids=["bytes", "struct"])
def test_images_as_pandas_writes_them(tmp_path, cell) -> None:
    cells = [cell(png(i)) for i in range(20)]
    pandas.DataFrame({"image": cells, "label": np.arange(20) % 2}).to_parquet(tmp_path / "train.parquet")
    assert shades(load(tmp_path)) == list(range(20))
