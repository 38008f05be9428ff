"""Latent variables of samples: standard normal, and the same whatever the batch, process or worker."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from hf_geo.data import DataArguments, load_image_data
from hf_geo.data.image_datasets import LatentSamples, draw_normals, sample_seeds
from tests.data.images import RAW, write_files


def test_they_are_independent_normals() -> None:
    values = draw_normals(sample_seeds(3, 0, np.arange(4000)), 20).double()
    assert values.dtype == torch.float64 and values.shape == (4000, 20)
    quantiles = torch.quantile(values.flatten()[::2], torch.tensor([0.0228, 0.1587, 0.5, 0.8413, 0.9772]).double())
    torch.testing.assert_close(quantiles, torch.tensor([-2.0, -1, 0, 1, 2]).double(), atol=0.04, rtol=0)
    correlations = torch.corrcoef(values.T) - torch.eye(20)
    assert correlations.abs().max() < 4.5 / 4000**0.5
    assert torch.corrcoef(values[:20]).fill_diagonal_(0).abs().max() < 0.95  # no sample repeats another
    assert values.unique().numel() > 79_000


def test_they_depend_on_seed_epoch_and_sample_alone() -> None:
    data = load_image_data(DataArguments(dataset="digits", max_train_samples=8))
    samples = LatentSamples(data.dataset("train", RAW), 5, seed=1)
    together = samples.__getitems__([3, 0, 5])
    assert torch.equal(together[2]["latents"], samples[5]["latents"]) and together[0].keys() == samples[0].keys()
    assert set(samples[0]) == {"pixel_values", "class_labels", "latents"}
    other = LatentSamples(data.dataset("train", RAW), 5, seed=2)
    assert not torch.equal(other[5]["latents"], samples[5]["latents"])
    before = samples[5]["latents"]
    samples.set_epoch(1)
    assert not torch.equal(samples[5]["latents"], before)


def test_images_without_classes(tmp_path) -> None:
    folder = write_files(tmp_path, [f"{number}.png" for number in range(20)])
    data = load_image_data(DataArguments(dataset=str(folder)), needs_classes=False)
    assert (data.num_classes, data.label_names) == (0, ())
    assert [len(data.splits[name]) for name in ("train", "eval")] == [18, 2]
    assert {sample["labels"] for sample in map(data.dataset("train", RAW).__getitem__, range(18))} == {0}


def test_a_folder_whose_sub_folders_are_its_splits_has_no_classes(tmp_path: Path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for i in range(4):
            PIL.Image.new("RGB", (8, 8), (60 * i, 0, 0)).save(tmp_path / split / f"{i}.png")
    data = load_image_data(DataArguments(dataset=str(tmp_path), eval_size=1), needs_classes=False)
    assert data.num_classes == 0 and len(data.splits["test"]) == 4
    with pytest.raises(ValueError, match=r"--label_noise 0.5 is for classes, and the images of .* have none"):
        load_image_data(DataArguments(dataset=str(tmp_path), eval_size=1, label_noise=0.5), needs_classes=False)
