"""Columns of a stream are the paper's batches; blocks, padding and what processes share."""

import itertools

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hf_geo.data.language import BlockStream, collate_windows, column_stream, columns_per_device, fixed_blocks


def paper_batches(words: np.ndarray, columns: int, bptt: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Inputs and targets, (length, columns) each: the text in columns from top to bottom, cut every `bptt` rows."""
    length = len(words) // columns
    table = np.stack([words[c * length : (c + 1) * length] for c in range(columns)], axis=1)
    batches = []
    for top in range(0, length - 1, bptt):
        bottom = min(top + bptt, length - 1)
        batches.append((table[top:bottom], table[top + 1 : bottom + 1]))
    return batches


@pytest.mark.parametrize(("length", "columns", "bptt"), [(100, 4, 6), (100, 4, 24), (103, 4, 5), (97, 1, 7)])
def test_batches_are_the_papers(length: int, columns: int, bptt: int) -> None:
    words = torch.arange(1, length + 1, dtype=torch.int32)
    windows = column_stream(words, columns=columns, bptt=bptt)
    expected = paper_batches(words.numpy(), columns, bptt)
    found = list(DataLoader(windows, batch_size=columns, collate_fn=collate_windows))
    assert len(found) == len(expected)
    for batch, (inputs, targets) in zip(found, expected, strict=True):
        assert batch["input_ids"].dtype == batch["labels"].dtype == torch.int64
        np.testing.assert_array_equal(batch["input_ids"][:, :-1].T, inputs)
        np.testing.assert_array_equal(batch["labels"][:, 1:].T, targets)
        assert (batch["labels"][:, 0] == -100).all()


def test_blocks() -> None:
    blocks = fixed_blocks(torch.arange(11, dtype=torch.int32), block_size=4)
    assert [b["input_ids"].tolist() for b in blocks] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert [b["labels"].tolist() for b in blocks] == [[-100, 1, 2, 3], [-100, 5, 6, 7], [-100, 9, 10]]
    batch = collate_windows(list(blocks))
    assert batch["labels"][2].tolist() == [-100, 9, 10, -100] and batch["input_ids"].shape == (3, 4)
    # One token more would make a block with nothing to predict.
    assert [len(fixed_blocks(torch.arange(tokens), block_size=4)) for tokens in (9, 10)] == [2, 3]


def test_blocks_of_a_stream_are_those_of_the_whole_text() -> None:
    pieces = [[0, 1, 2], [], [3], list(range(4, 17)), [17]]
    stream = BlockStream(pieces, block_size=4)
    whole = fixed_blocks(torch.arange(16), block_size=4)
    found = list(itertools.islice(stream, 8))  # two passes; the incomplete last block of each is left out
    for half in (found[:4], found[4:]):
        for ours, theirs in zip(half, whole, strict=True):
            assert torch.equal(ours["input_ids"], theirs["input_ids"]) and torch.equal(ours["labels"], theirs["labels"])


def test_a_stream_without_a_whole_block_ends() -> None:
    assert list(BlockStream([[1, 2], [3]], block_size=4)) == list(BlockStream([], block_size=4)) == []


@pytest.mark.parametrize(("length", "columns", "bptt", "left"), [(100, 4, 25, 24), (100, 200, 1, 0)])
def test_texts_that_are_too_short(length: int, columns: int, bptt: int, left: int) -> None:
    message = f"bptt={bptt} is longer than the stream: {length} words in {columns} columns leave {left} to predict"
    with pytest.raises(ValueError, match=message):
        column_stream(torch.arange(length), columns=columns, bptt=bptt)
    with pytest.raises(ValueError, match="A text of 1 tokens has nothing to predict"):
        fixed_blocks(torch.arange(1), block_size=4)


def test_processes_and_accumulation_steps_share_the_columns() -> None:
    assert columns_per_device(20, processes=2, accumulation_steps=5) == 2


@pytest.mark.parametrize(
    ("columns", "processes", "steps", "message"),
    [
        (2, 4, 1, "The stream's 2 columns are fewer than the 4 processes that share them: use a multiple of 4 columns"),
        (20, 3, 1, "The stream's 20 columns are not a multiple of the 3 processes"),
        (20, 4, 2, "not a multiple of the 4 processes x 2 accumulation steps that share them: use a multiple of 8"),
    ],
)
def test_columns_that_cannot_be_shared(columns: int, processes: int, steps: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        columns_per_device(columns, processes=processes, accumulation_steps=steps)
