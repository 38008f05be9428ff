"""The law of augmentation: seed, epoch and sample settle what is seen, however it is loaded."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hf_geo.data import DataArguments, load_image_data
from tests.data.images import config_for

KINDS = {"in memory": ("crop-flip", 32), "decoded one by one": ("timm", 40)}


def make(kind: str, seed: int = 0) -> torch.utils.data.Dataset:
    augmentation, size = KINDS[kind]
    data = load_image_data(DataArguments(dataset="digits", max_train_samples=48, augmentation=augmentation), seed=seed)
    return data.dataset("train", config_for(data, input_size=(3, size, size)))


def epoch_of(dataset: torch.utils.data.Dataset, epoch: int) -> torch.Tensor:
    dataset.set_epoch(epoch)
    return torch.stack([dataset[i]["pixel_values"] for i in range(len(dataset))])


@pytest.fixture(scope="module", params=KINDS)
def expected(request) -> tuple[str, list[torch.Tensor]]:
    dataset = make(request.param)
    return request.param, [epoch_of(dataset, e) for e in range(3)]


class WithIndex(torch.utils.data.Dataset):
    """Says which sample is which, whatever the order."""

    def __init__(self, dataset):
        self.dataset, self.set_epoch = dataset, dataset.set_epoch

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        return {**self.dataset[index], "index": index}


def test_epochs_seeds_and_samples_differ(expected):
    kind, images = expected
    assert not torch.equal(images[0], images[1])
    assert torch.equal(epoch_of(make(kind), 1), images[1])
    assert not torch.equal(epoch_of(make(kind, seed=1), 0), images[0])


@pytest.mark.parametrize(("workers", "persistent", "batch_size"), [(0, False, 7), (2, True, 16)])
def test_workers_batches_and_order_change_nothing(expected, workers, persistent, batch_size):
    kind, images = expected
    dataset = WithIndex(make(kind))
    loader = DataLoader(dataset, batch_size, shuffle=True, num_workers=workers, persistent_workers=persistent)
    for epoch in (0, 1, 2, 1):
        dataset.set_epoch(epoch)
        seen = 0
        for batch in loader:
            assert torch.equal(batch["pixel_values"], images[epoch][batch["index"]]), f"epoch {epoch}"
            seen += len(batch["index"])
        assert seen == 48


def test_whole_batches_are_the_samples_one_by_one():
    dataset = make("in memory")
    dataset.set_epoch(2)
    indices = [5, 0, 47, 5]
    for sample, index in zip(dataset.__getitems__(indices), indices, strict=True):
        assert torch.equal(sample["pixel_values"], dataset[index]["pixel_values"])
        assert sample["labels"] == dataset[index]["labels"] == dataset.labels[index]


@pytest.mark.parametrize("kind", KINDS)
def test_global_generators_play_no_part_and_are_left_alone(kind):
    def draw():
        return random.random(), np.random.rand(), torch.rand(()).item()

    dataset, images = make(kind), []
    for seed in (0, 1):
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        images.append(dataset[3]["pixel_values"])
        after = draw()
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        assert draw() == after
    assert torch.equal(*images)
