"""From a name to samples, on real data: CIFAR-10, the digits, and folders in the layouts people have."""

import io
import re
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pyarrow.parquet
import pytest
import torch
from sklearn.datasets import load_digits
from timm.data import create_transform
from torchvision.transforms import functional as tv

from hf_geo.data import DataArguments, ImageData, load_image_data
from hf_geo.data.columns import find_columns
from hf_geo.data.image_datasets import EncodedImages, TensorImages
from hf_geo.data.image_split import colour_statistics, known_statistics
from hf_geo.data.shifted.datasets import load_shifted
from tests.data.images import config_for, shade, write_shades
from tests.paths import SHARED

CIFAR10 = SHARED / "hub" / "datasets" / "uoft-cs" / "cifar10"


def load(dataset: object = "digits", *, seed: int = 0, **options) -> ImageData:
    return load_image_data(DataArguments(dataset=str(dataset), **options), seed=seed)


@pytest.fixture(scope="module")
def cifar() -> ImageData:
    return load(CIFAR10, max_train_samples=600, max_eval_samples=200)


def test_several_splits_are_trained_on_and_only_the_first_is_held_out_from():
    one, both = load(eval_size=100), load(train_split="train+test", eval_size=100)
    assert list(both.splits) == ["train", "eval"] and len(one.splits["eval"]) == 100
    with pytest.raises(ValueError, match="--eval_size 37 holds out training samples, but the split 'test' is there"):
        load(eval_size=37, eval_split="test")
    assert np.array_equal(both.splits["eval"].pixels, one.splits["eval"].pixels)
    for part in ("labels", "pixels"):
        trained_on = np.concatenate([getattr(one.splits[name], part) for name in ("train", "test")])
        assert np.array_equal(getattr(both.splits["train"], part), trained_on)
    assert "from split 'train' and all of split 'test'" in both.description


def test_a_test_sample_is_the_stored_image_normalized(cifar):
    assert (cifar.name, cifar.hub_id, cifar.id2label[3]) == ("cifar10", None, "cat")
    assert (cifar.num_classes, cifar.native_size) == (10, (32, 32))
    assert cifar.description == (
        "train: 600 images from split 'train'; eval: 200 images from a tenth of split 'train' held out, the same in every "
        "run; test: 200 images from split 'test'."
    )
    table = pyarrow.parquet.read_table(next((CIFAR10 / "plain_text").glob("test-*")))
    config = config_for(cifar)
    # A subset keeps the order, so the stored images that are in it come one after the other.
    samples = iter(cifar.dataset("test", config))
    sample, found = next(samples), 0
    for cell, label in zip(table["img"].to_pylist()[:200], table["label"].to_pylist(), strict=False):
        pixels = tv.to_tensor(PIL.Image.open(io.BytesIO(cell["bytes"])))
        expected = tv.normalize(pixels, config["mean"], config["std"])
        if torch.allclose(sample["pixel_values"], expected, atol=1e-6):
            assert sample["labels"] == label
            sample, found = next(samples), found + 1
    assert found >= 2  # 200 of 10,000 are in the subset


def test_statistics_are_those_of_the_training_images(cifar):
    pixels = cifar.splits["train"].pixels.astype(np.float64) / 255
    mean, std = colour_statistics(cifar.splits["train"].pixels)
    np.testing.assert_allclose(mean, pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std((0, 1, 2)), rtol=1e-12)
    assert (cifar.data_config["mean"], cifar.data_config["std"]) == (mean, std)
    np.testing.assert_allclose(mean, known_statistics("uoft-cs/cifar10")[0], atol=0.03)
    np.testing.assert_allclose(std, known_statistics("uoft-cs/cifar10")[1], atol=0.03)
    one_shade = np.full((2, 4, 4, 1), 51, np.uint8)
    assert colour_statistics(one_shade) == (pytest.approx((0.2,) * 3), (1.0,) * 3)


def test_digits_are_scikit_learns():
    data = load()
    assert (data.num_classes, data.native_size, data.label_names) == (10, (8, 8), tuple("0123456789"))
    assert [len(s) for s in data.splits.values()] == [1293, 144, 360]
    ours = np.concatenate([s.pixels.reshape(len(s), 64) for s in data.splits.values()])
    labels = np.concatenate([s.labels for s in data.splits.values()])
    images, targets = load_digits(return_X_y=True)
    rounded = np.round(images * 255 / 16)

    def as_set(pixels, classes):
        return sorted((*map(int, row), int(c)) for row, c in zip(pixels, classes, strict=True))

    assert as_set(ours, labels) == as_set(rounded, targets)


@pytest.mark.parametrize(("options", "size"), [({}, 32), ({"image_size": 48}, 48)])
def test_digits_are_enlarged_as_the_exported_configuration_says(options, size):
    data = load(**options)
    config = config_for(data)
    assert config["input_size"] == (3, size, size)
    sample = data.dataset("test", config)[5]
    image = PIL.Image.fromarray(data.splits["test"].pixels[5, ..., 0]).convert("RGB")
    torch.testing.assert_close(sample["pixel_values"], create_transform(**config, is_training=False)(image))
    assert type(sample["labels"]) is int and sample["labels"] == data.splits["test"].labels[5]
    data.splits.pop("test")
    with pytest.raises(ValueError, match="digits has no 'test' split to use, only train, eval"):
        data.dataset("test", config)


def test_a_network_of_one_channel_gets_greyscale(cifar):
    config = config_for(cifar, input_size=(1, 32, 32), mean=(0.5,), std=(0.25,))
    sample = cifar.dataset("test", config)[0]
    grey = PIL.Image.fromarray(cifar.splits["test"].pixels[0]).convert("L")
    torch.testing.assert_close(sample["pixel_values"], (tv.to_tensor(grey) - 0.5) / 0.25)


def test_small_images_come_from_memory_and_large_inputs_are_made_one_by_one(cifar):
    in_memory = cifar.dataset("train", config_for(cifar))
    assert type(in_memory) is TensorImages
    split = cifar.splits["train"]
    one_by_one = EncodedImages(split.rows, split.labels, in_memory.transform, 0, split.name_sample, split.bad)
    for index in (0, 17, 599):
        torch.testing.assert_close(in_memory[index], one_by_one[index])
    large = cifar.dataset("train", config_for(cifar, input_size=(3, 224, 224)))
    assert type(large) is EncodedImages
    assert large[0]["pixel_values"].shape == (3, 224, 224)


def test_augmentation_is_for_training_and_mirrors_no_digit(cifar):
    config = config_for(cifar)
    plain = cifar.dataset("train", config, augment=False)
    assert not torch.equal(plain[1]["pixel_values"], cifar.dataset("train", config)[1]["pixel_values"])
    without = load(CIFAR10, max_train_samples=600, augmentation="none").dataset("train", config)
    assert torch.equal(plain[1]["pixel_values"], without[1]["pixel_values"])
    assert cifar.dataset("train", config).transform.flip
    digits = load().dataset("train", config_for(load())).transform
    assert (digits.padding, digits.flip) == (4, False)


def test_label_noise_is_in_the_training_labels_only():
    clean, noisy = load(seed=1), load(seed=1, label_noise=0.5)
    different = np.mean(clean.splits["train"].labels != noisy.splits["train"].labels)
    assert different == pytest.approx(0.45, abs=0.05)
    for split in ("eval", "test"):
        assert np.array_equal(clean.splits[split].labels, noisy.splits[split].labels)
    assert "label noise: 50% of the training labels" in noisy.description
    assert [x["labels"] for x in noisy.dataset("train", config_for(noisy))] == noisy.splits["train"].labels.tolist()


def save_images(folder: Path, classes: dict[str, int], size: tuple[int, int] = (20, 20), mode: str = "RGB") -> None:
    """A folder of PNG files for each class; images of class i have the shade 10 i + their number."""
    for i, (name, count) in enumerate(classes.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for k in range(count):
            PIL.Image.new("L", size, 10 * i + k).convert(mode).save(folder / name / f"{k}.png")


def test_a_folder_of_images_of_several_sizes(tmp_path):
    save_images(tmp_path / "train", {"cat": 8, "dog": 7})
    save_images(tmp_path / "train", {"bird": 4}, size=(120, 80))
    save_images(tmp_path / "test", {"bird": 0, "cat": 2, "dog": 2}, size=(20, 30))
    data = load(tmp_path)
    assert (data.name, data.label_names) == (tmp_path.name, ("bird", "cat", "dog"))
    assert [len(s) for s in data.splits.values()] == [17, 2, 4]
    assert data.data_config["mean"] == known_statistics("imagenet")[0]
    train = data.dataset("train", config_for(data, input_size=(3, 64, 64)))
    assert type(train) is EncodedImages
    assert {tuple(x["pixel_values"].shape) for x in train} == {(3, 64, 64)}
    assert [x["labels"] for x in train] == data.splits["train"].labels.tolist()
    for sample in data.dataset("test", config_for(data, mean=(0.0,) * 3, std=(1.0,) * 3)):
        assert round(float(sample["pixel_values"].mean()) * 255) // 10 == sample["labels"]


@pytest.mark.parametrize(
    ("train_split", "limits"),
    [("train", {}), ("train+test", {}), ("validation+train", {"max_train_samples": 30, "max_eval_samples": 5})],
)
def test_no_image_that_is_trained_on_is_evaluated_on(tmp_path, train_split: str, limits: dict) -> None:
    """Every image has a shade of its own, so the sets show which images they hold."""
    for number, split in enumerate(("train", "validation", "test")):
        write_shades(tmp_path / f"{split}.parquet", range(80 * number, 80 * number + 40))
    data = load_image_data(DataArguments(dataset=str(tmp_path), train_split=train_split, **limits))
    held = {role: {int(image.max()) for image in split.pixels} for role, split in data.splits.items()}
    assert held["train"] and held["eval"]
    assert all(held["train"].isdisjoint(held[role]) for role in held if role != "train")


def test_splits_read_from_the_same_file_are_not_disjoint(tmp_path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("one", "two"):
        write_shades(tmp_path / "data" / f"{name}.parquet", range(20))
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/*.parquet\n"
        "  - split: test\n    path: data/two.parquet\n---\n"
    )
    (tmp_path / "link").symlink_to(tmp_path)  # the card's files are found through links too
    for streaming in ({}, {"streaming": True, "eval_size": 4}):
        assert list(load(tmp_path / "link", **streaming).splits) == ["train", "eval"]
        with pytest.raises(ValueError, match="--test_split test names samples that --train_split train trains on"):
            load(tmp_path, test_split="test", **streaming)


CLASSES = datasets.ClassLabel(names=["even", "odd"])
INTEGERS, WORDS = datasets.Value("int64"), datasets.Value("string")


@pytest.mark.parametrize(
    ("splits", "feature", "found"),
    [
        ({"train": [0, 1], "validation": [1, 0, 1], "test": [0]}, CLASSES, 1),
        ({"train": [0, 1], "validation": [1, 0, 1]}, CLASSES, 3),
        ({"train": [0, 1], "dev": [1, 0, 1], "test": [-1, -1]}, CLASSES, 3),
        ({"train": ["even", "odd"], "validation": ["odd"] * 3, "test": ["?", "?"]}, WORDS, 3),
        ({"train": ["odd", "odd"]}, WORDS, 2),
        ({"test": [-1, -1]}, CLASSES, "it has test, and the labels of 'test' are hidden. Give a data set with a labelled"),
        ({"train": [0, 1], "test": [-1]}, CLASSES, "it has train, test, and the labels of 'test' are hidden"),
        ({"train": [0, 1], "extra": [0, 1]}, CLASSES, "has no split to measure networks on: it has train, extra. Give"),
        ({"train": [0, 1], "test": [0, -1]}, INTEGERS, "The labels of the split 'test' run from -1 to 0"),
    ],
)  # fmt: skip
def test_a_further_data_set_is_measured_on_labelled_samples_that_are_not_for_training(tmp_path, splits, feature, found):
    (tmp_path / "data").mkdir()
    for name, labels in splits.items():
        features = datasets.Features(image=datasets.Image(), label=feature)
        rows = {"image": [shade(i) for i in range(len(labels))], "label": labels}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(
            tmp_path / "data" / f"{name}-00000-of-00001.parquet"
        )
    if isinstance(found, int):
        data = load_shifted(str(tmp_path), DataArguments())
        assert list(data.splits) == ["test"] and len(data.splits["test"]) == found
    else:
        with pytest.raises(ValueError, match=re.escape(found)):
            load_shifted(str(tmp_path), DataArguments())


@pytest.mark.parametrize("labels", [{"label": datasets.List(INTEGERS)}, {"a": CLASSES, "b": CLASSES}])
def test_labels_of_other_images_are_not_looked_at(tmp_path, labels):
    rows = {"image": [shade(1)]} | {name: [[0, 1] if name == "label" else 0] for name in labels}
    features = datasets.Features(image=datasets.Image(), **labels)
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "test.parquet")
    data = load_shifted(str(tmp_path), DataArguments(), needs_classes=False)
    assert len(data.splits["test"]) == 1 and data.label_names == ()
    if "label" in labels:  # nor those of images that are generated, where they are no classes
        assert find_columns(features, needs_classes=False).label is None
