"""Images that cannot be read are skipped, named once and counted up to a limit; a worker that dies is named with its sample."""

import functools
import logging
import os
import signal
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pyarrow.parquet
import pytest
import torch
from torch.utils.data import DataLoader

from hf_geo.data import DataArguments, load_image_data
from hf_geo.data.bad_samples import BadSampleError, BadSamples, DataError, dead_workers_named
from hf_geo.data.image_datasets import EncodedImages, decode
from hf_geo.data.transforms import to_channels
from tests.data.images import RAW, encoded, shade


@pytest.fixture(autouse=True, scope="module")
def short_pauses():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2)  # seconds to wait for a worker
        yield


GREY = [shade(10 * i) for i in range(24)]
BOMB = encoded(PIL.Image.new("1", (20_000, 9_000)))  # 180 million pixels in 22 kB
LARGE = encoded(PIL.Image.new("1", (10_000, 9_000)))  # Pillow only warns
BROKEN = {
    "empty": (b"", "cannot identify image file"),
    "text": (b"not an image", "cannot identify image file"),
    "truncated": (encoded(shade(10, 64, 64))[:70], "trunc|broken|cannot identify|Truncated|incomplete"),
    "bomb": (BOMB, "could be decompression bomb"),
    "large": (LARGE, "could be decompression bomb"),
    "16 bits": (encoded(PIL.Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16))), "more than 8 bits a channel"),
    "float": (encoded(PIL.Image.new("F", (4, 4)), "TIFF"), "more than 8 bits a channel"),
    "path to a device": ("/dev/zero", "there is no file '/dev/zero'"),
    "path to text": (__file__, "cannot identify image file"),
    "path to nothing": ("/no/such/image.png", "there is no file '/no/such/image.png'"),
}


def cell_of(content: bytes | str) -> dict:
    return {"bytes": content, "path": None} if isinstance(content, bytes) else {"bytes": None, "path": content}


def write(folder: Path, broken: dict[int, bytes | str], *, one_size: bool = True) -> str:
    """A data set of grey images, whose value tells their index, with some broken ones."""
    whole = {i: encoded(shade(10 * i, 8 if one_size else 8 + i % 2)) for i in range(24)}
    cells = [cell_of(content) for content in (whole | broken).values()]
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["even", "odd"]))
    rows = datasets.Dataset.from_dict({"image": cells, "label": [0, 1] * 12}, features=features)
    folder.mkdir()
    for split in ("train", "test"):  # not to_parquet, which would read the paths
        pyarrow.parquet.write_table(rows.data.table, folder / f"{split}.parquet")
    return str(folder)


def training_set(**options):
    options = {"eval_split": "test", "test_split": "test", "augmentation": "none", **options}
    data = load_image_data(DataArguments(**options))
    return data, data.dataset("train", RAW, augment=False)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_image_is_a_bad_sample(kind: str) -> None:
    content, reason = BROKEN[kind]
    with pytest.raises(BadSampleError, match=reason):
        to_channels(decode(cell_of(content)), 3)


@pytest.mark.parametrize("one_size", (True, False), ids=("in memory", "one by one"))
def test_a_broken_image_is_skipped_and_named(tmp_path, caplog, one_size: bool) -> None:
    folder = write(tmp_path / "data", {5: BROKEN["16 bits"][0], 7: "/dev/zero"}, one_size=one_size)
    with caplog.at_level(logging.WARNING):
        data, samples = training_set(dataset=folder)
        labels = [sample["labels"] for sample in samples]
    for index in (5, 7):
        (record,) = [r.getMessage() for r in caplog.records if f"image {index} of the split 'train'" in r.getMessage()]
        assert "is skipped" in record
    assert "2 images could not be read and were skipped" in data.description
    expected = [0, 1] * 12
    if one_size:
        del expected[7], expected[5]
    else:
        expected[5] = expected[7] = 0  # the next one stands in
    assert labels == expected


def test_more_than_the_limit_ends_it_with_one_sentence(tmp_path) -> None:
    folder = write(tmp_path / "data", {3: b"x", 5: b"x", 7: b"x"})
    with pytest.raises(DataError) as fault:
        training_set(dataset=folder, max_bad_samples=2)
    said = str(fault.value)
    assert "image 7 of the split 'train' cannot be used" in said
    assert "--max_bad_samples 2 allows no more to be skipped: repair the data set, or raise the limit" in said
    data, samples = training_set(dataset=folder, max_bad_samples=3)
    assert len(samples) == 21 and len(data.bad) == 3
    with pytest.raises(ValueError, match="No image of the split 'train' can be read"):
        training_set(dataset=write(tmp_path / "none", dict.fromkeys(range(24), b"x")), max_bad_samples=100)
    several_sizes = write(tmp_path / "sizes", {3: b"x", 5: b"x"}, one_size=False)
    data, _ = training_set(dataset=several_sizes, max_bad_samples=1)
    with pytest.raises(DataError, match="image 5 of the split 'test' cannot be used: cannot identify"):
        data.dataset("test", RAW)  # before training


def test_a_stream_leaves_broken_images_out(tmp_path) -> None:
    folder = write(tmp_path / "data", {0: b"x", 5: BOMB})
    data, samples = training_set(dataset=folder, streaming=True)
    for _ in range(2):  # epochs
        assert len(list(samples)) == 22
    assert len(data.bad) == 2
    data, samples = training_set(dataset=folder, streaming=True, max_bad_samples=1)
    with pytest.raises(DataError, match="--max_bad_samples 1 allows"):
        list(samples)


def test_each_worker_counts_its_own_and_only_once(tmp_path) -> None:
    folder = write(tmp_path / "data", {3: b"x", 10: b"y"}, one_size=False)
    _, samples = training_set(dataset=folder, max_bad_samples=1)
    of_two = DataLoader(samples, batch_size=6, num_workers=2)  # each reads one of the broken images
    assert sum(len(batch["labels"]) for batch in of_two) == 24
    with pytest.raises(DataError) as fault:
        list(DataLoader(samples, batch_size=6, num_workers=1))
    assert str(fault.value).startswith("The image 10 of the split 'train' cannot be used: cannot identify image file")
    assert "Traceback" not in str(fault.value) and "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("streaming", "one_size", "workers"), [(False, True, 0), (False, False, 2), (True, False, 0)], ids=str
)
def test_an_evaluation_is_of_the_images_that_can_be_read_each_once(tmp_path, streaming, one_size, workers) -> None:
    broken = {0: b"x", 5: b"y", 6: BOMB, 23: BROKEN["16 bits"][0]}
    folder = write(tmp_path / "data", broken, one_size=one_size)
    data, _ = training_set(dataset=folder, streaming=streaming)
    for split in ("eval", "test"):
        loader = DataLoader(data.dataset(split, RAW), batch_size=5, num_workers=workers)
        found = [(round(float(x.min())), int(y)) for batch in loader for x, y in zip(*batch.values(), strict=True)]
        assert sorted(found) == [(10 * i, i % 2) for i in range(24) if i not in broken]
        if not streaming:
            assert f"{split}: 4 images could not be read and are left out, so 20 are measured." in data.description
    # Training images of one size are decoded when they are first needed, others while training.
    assert data.description.count("4 images could not be read and were skipped.") == (one_size or streaming)


def _killer(image: PIL.Image.Image, seed: np.uint64, victim: int) -> torch.Tensor:
    if np.asarray(image).flat[0] == 10 * victim:
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory runs out
    return torch.zeros(3, 8, 8)


def test_a_dead_worker_is_named_with_its_sample() -> None:
    features = datasets.Features(image=datasets.Image(decode=False))
    rows = datasets.Dataset.from_dict({"image": [cell_of(encoded(image)) for image in GREY[:12]]}, features=features)
    transform = functools.partial(_killer, victim=7)
    samples = EncodedImages(rows, np.zeros(12), transform, 0, "image {} of train".format, BadSamples(0))
    with pytest.raises(DataError) as fault, dead_workers_named([samples]):
        list(DataLoader(samples, batch_size=2, num_workers=2))
    assert "while it read image 7 of train: look whether memory ran out" in str(fault.value)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match=r"^out of memory$"), dead_workers_named([]):
        raise RuntimeError("out of memory")


@pytest.mark.parametrize("kind", ("PNG", "JPEG", "TIFF"))
def test_decoders_fail_in_one_way_only(kind: str) -> None:
    """Whatever a flipped or missing byte does to Pillow's readers, it is an image or a `BadSampleError`."""
    whole = encoded(PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 12, 3), dtype=np.uint8)), kind)
    draws, outcomes = np.random.default_rng(1), set()
    for _ in range(40):
        content = bytearray(whole)
        place = draws.integers(len(whole))
        if draws.random() < 0.5:
            content = content[:place]
        else:
            content[place] ^= 1 << draws.integers(8)
        try:
            outcomes.add(type(decode(cell_of(bytes(content)))).__module__.partition(".")[0])
        except BadSampleError as reason:
            assert "\n" not in str(reason)
            outcomes.add("bad")
    assert outcomes == {"PIL", "bad"}
