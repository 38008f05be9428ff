"""Streaming: the samples of a download, in an order of each epoch's own, dealt out to workers and processes."""

import itertools
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pytest
import torch
from torch.utils.data import DataLoader

from hf_geo.data import DataArguments, ImageData, load_image_data
from tests.data.images import RAW, write_shades
from tests.paths import SHARED

CIFAR10 = str(SHARED / "hub" / "datasets" / "uoft-cs" / "cifar10")
SHARDS, IN_SHARD = 4, 30


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    # datasets waits so many seconds for its reading threads at the end of every shuffled epoch.
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.05, raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Four files of 30 training images, each of another shade, and one of 12 for validation."""
    folder = tmp_path_factory.mktemp("shades")
    for k in range(SHARDS):
        write_shades(folder / f"train-{k:05d}-of-{SHARDS:05d}.parquet", range(IN_SHARD * k, IN_SHARD * (k + 1)))
    write_shades(folder / "validation.parquet", range(200, 212))
    return folder


def load(dataset: object, **options) -> ImageData:
    return load_image_data(DataArguments(dataset=str(dataset), streaming=True, **options), seed=5)


def shades(samples) -> list[int]:
    return [round(float(x["pixel_values"].max())) for x in samples]


def test_every_sample_comes_once_an_epoch_in_another_order(folder):
    data = load(folder)
    assert (data.label_names, data.native_size, list(data.splits)) == (("even", "odd"), (8, 8), ["train", "eval"])
    assert data.description == "train: split 'train', streamed; eval: split 'validation', streamed."
    train, orders = data.dataset("train", RAW), []
    for start in (0, 1, 0):
        train.set_epoch(start)
        samples = list(itertools.islice(train, SHARDS * IN_SHARD))
        assert all(x["labels"] == s % 2 for x, s in zip(samples, shades(samples), strict=True))
        orders.append(shades(samples))
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(SHARDS * IN_SHARD))
    assert orders[0] == orders[2] != orders[1]
    assert shades(data.dataset("eval", RAW)) == list(range(200, 212))
    shared = DataLoader(data.dataset("train", RAW, augment=False), None, num_workers=2)
    assert sorted(shades(shared)) == list(range(SHARDS * IN_SHARD))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_later_pass_is_the_continuation_of_the_one_before(folder, workers):
    """So batches that a resumed run skips are those that were trained on, in whichever pass it goes on."""
    passes, each = 3, SHARDS * IN_SHARD
    data = load(folder)

    def read():
        loader = DataLoader(data.dataset("train", RAW), 8, num_workers=workers)
        batches = itertools.islice(loader, passes * each // 8)
        return [s for batch in batches for s in shades([{"pixel_values": x} for x in batch["pixel_values"]])]

    seen = read()
    assert seen == read()
    if workers == 0:  # two do not begin a pass together
        orders = [seen[each * i : each * (i + 1)] for i in range(passes)]
        assert [sorted(order) for order in orders] == [list(range(each))] * passes
        assert orders[0] != orders[1] != orders[2]
    assert all(passes - 2 <= seen.count(s) <= passes + 2 for s in range(each))


def test_labels_that_are_no_classes(folder, tmp_path):
    data = load(folder)
    data.splits["train"].num_classes = 1
    with pytest.raises(ValueError, match="A label is 1, but there are 1 classes"):
        list(itertools.islice(data.dataset("train", RAW), 50))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = {"image": [PIL.Image.new("L", (8, 8))] * 4, "label": [0, 1, 2, 3]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="'label' does not list its classes, and they cannot be counted"):
        load(tmp_path)


def test_a_stream_that_is_held_out_whole_is_refused(folder, tmp_path):
    write_shades(tmp_path / "train.parquet", range(200, 212))
    with pytest.raises(ValueError, match="--eval_size 12 holds out every sample of the split 'train'"):
        load(tmp_path, eval_size=12)
    data = load(tmp_path, eval_size=11)
    assert shades(itertools.islice(data.dataset("train", RAW), 3)) == [211, 211, 211]


def test_augmentation_depends_on_sample_and_epoch_alone(folder):
    data = load(folder, augmentation="crop")
    images = []
    for workers, epoch in ((0, 1), (2, 1), (0, 2)):
        train = data.dataset("train", RAW)
        train.set_epoch(epoch)
        samples = itertools.islice(DataLoader(train, None, num_workers=workers), SHARDS * IN_SHARD)
        images.append({round(float(x["pixel_values"].max())): x["pixel_values"] for x in samples})
    assert all(torch.equal(images[0][s], images[1][s]) for s in range(1, SHARDS * IN_SHARD))
    assert any(not torch.equal(images[0][s], images[2][s]) for s in range(1, SHARDS * IN_SHARD))


def test_the_streamed_sample_is_the_downloaded_one():
    streamed = load(CIFAR10, eval_split="test", max_eval_samples=5)
    stored = datasets.load_dataset(CIFAR10, split="test[:5]")
    for sample, row in zip(streamed.dataset("eval", {**RAW, "input_size": (3, 32, 32)}), stored, strict=True):
        expected = np.asarray(row["img"], dtype=np.float32).transpose(2, 0, 1)
        torch.testing.assert_close(sample["pixel_values"].numpy(), expected, rtol=0, atol=1e-3)
        assert sample["labels"] == row["label"]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_held_out_is_the_same_whatever_workers_read_it(tmp_path, workers):
    for k in range(3):
        write_shades(tmp_path / f"train-{k}.parquet", range(10 * k, 10 * k + 10))
    for limit in (20, 13):
        data = load(tmp_path, eval_size=14, max_eval_samples=limit)
        held, kept = (
            DataLoader(data.dataset(split, RAW, augment=False), None, num_workers=workers)
            for split in ("eval", "train")
        )
        assert sorted(shades(held)) == list(range(min(14, limit))) and sorted(shades(kept)) == list(range(14, 30))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_limit_reads_nothing_before_it_is_needed_and_holds_whatever_workers_read(tmp_path, workers):
    parts = {"train-0": range(5), "test-0": range(20), "test-1": range(20, 25), "test-2": range(25, 30)}
    for name, part in parts.items():
        write_shades(tmp_path / f"{name}.parquet", part)
    late = tmp_path / "test-1.parquet"
    stored = late.read_bytes()
    late.write_bytes(bytes(len(stored)))
    data = load(tmp_path, eval_split="test", test_split="test", max_eval_samples=24)
    late.write_bytes(stored)
    for split in ("eval", "test"):
        assert shades(DataLoader(data.dataset(split, RAW), None, num_workers=workers)) == list(range(24))


def test_limits_and_a_part_held_out(folder):
    data = load(folder, max_train_samples=10, max_eval_samples=4)
    assert sorted(shades(data.dataset("train", RAW, augment=False))) == list(range(10))
    assert shades(data.dataset("eval", RAW)) == list(range(200, 204))

    only_train = load(CIFAR10, eval_size=3, max_train_samples=6)
    config = {**RAW, "input_size": (3, 32, 32)}
    held, kept = (
        {x["pixel_values"].sum().item() for x in only_train.dataset(s, config, augment=False)}
        for s in ("eval", "train")
    )
    assert (len(held), len(kept), held & kept) == (3, 6, set())
    assert "the first 3 samples of split 'train', held out" in only_train.description
