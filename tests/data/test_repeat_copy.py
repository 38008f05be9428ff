"""Repeat-copy: what a sequence looks like, and that each is drawn anew and the same wherever it is drawn."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hf_geo.data.sequences.repeat_copy import RepeatCopy, Size, all_sizes, collate_sequences, repeat_copy, sizes_of

SIZES = all_sizes(2, 2)
_ = -100


def test_a_sequence_step_by_step() -> None:
    sample = repeat_copy(np.array([[1, 0], [1, 1]]), repeats=2)
    assert sample["inputs"].tolist() == [
        [0, 0, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, pytest.approx(0.2)], *[[0, 0, 0, 0]] * 5
    ]  # fmt: skip
    assert sample["labels"].tolist() == [*[[_, _, _]] * 4, [1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("size", [*SIZES, Size(5, 3)])
def test_its_steps_and_its_size_back_from_the_labels(size: Size) -> None:
    sample = repeat_copy(np.ones((size.length, 4), dtype=int), size.repeats)
    assert len(sample["inputs"]) == len(sample["labels"]) == size.length * (size.repeats + 1) + 3  # as published
    longer = repeat_copy(np.zeros((6, 4), dtype=int), 4)
    batch = collate_sequences([sample, longer])
    assert batch["inputs"].shape == (2, 33, 6) and batch["labels"].shape == (2, 33, 5)
    assert sizes_of(batch["labels"]).tolist() == [[size.length, size.repeats], [6, 4]]
    assert (batch["labels"][0, len(sample["labels"]) :] == _).all()


def items(data: RepeatCopy, count: int = 8) -> list[bytes]:
    return [data[i]["labels"].numpy().tobytes() for i in range(count)]


def test_random_numbers_are_keyed_by_seed_split_epoch_and_item() -> None:
    data = RepeatCopy(100, 4, SIZES, key=(7, 0))
    first = items(data)
    assert len(set(first)) > 4 and items(RepeatCopy(100, 4, SIZES, key=(7, 0))) == first
    assert items(RepeatCopy(9, 4, SIZES, key=(7, 0))) == first  # whatever the number of samples
    others = [items(RepeatCopy(100, 4, SIZES, key=key)) for key in ((8, 0), (7, 1))]
    data.set_epoch(1)
    assert first not in [*others, items(data)]
    by_workers = DataLoader(
        data, batch_size=4, num_workers=2, collate_fn=collate_sequences, multiprocessing_context="fork"
    )
    for ours, theirs in zip(DataLoader(data, batch_size=4, collate_fn=collate_sequences), by_workers, strict=True):
        assert torch.equal(ours["inputs"], theirs["inputs"])
    with pytest.raises(IndexError, match="no sequence 100 in an epoch of 100"):
        data[100]


def test_all_sizes_are_as_likely_or_in_turn() -> None:
    data = RepeatCopy(400, 4, SIZES, key=(0,))
    counts = Counter(tuple(sizes_of(data[i]["labels"][None])[0].tolist()) for i in range(400))
    # Of 400 draws each of 4 sizes has 100 with a standard deviation of 8.7.
    assert len(counts) == 4 and all(abs(count - 100) < 35 for count in counts.values())
    turns = RepeatCopy(8, 4, SIZES, key=(0,), in_turn=True)
    assert [tuple(sizes_of(turns[i]["labels"][None])[0].tolist()) for i in range(8)] == 2 * [
        (1, 1),
        (1, 2),
        (2, 1),
        (2, 2),
    ]
