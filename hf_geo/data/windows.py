"""A text as rows of tokens for a causal language model: columns of a stream, or fixed blocks."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, IterableDataset

IGNORED = -100


class Windows(Dataset):
    """Windows over a text laid out in columns, those of one place in all columns next to each other.

    Item `i` is window `i // columns` of column `i % columns`: read in order, `columns` items at a time (by all processes
    together), the text streams by as in truncated backpropagation. Every item has `input_ids` and `labels` of one shape
    (length,), int64; position i predicts `labels[i + 1]`, and `labels[0]`, which nothing predicts, is -100.

    Args:
        tokens: The text, shape (length,).
        columns: Number of columns; tokens that do not fill them are left out at the end.
        step: Tokens from one window to the next. The last window of each column is shorter where they do not fill it.
        overlap: Tokens of the next window that each window includes, 0 or 1: with 1, the last word of a window
            is followed by the word to predict, so no word of a column goes unpredicted but its first.
    """

    def __init__(self, tokens: Tensor, *, columns: int, step: int, overlap: int):
        length = len(tokens) // columns
        self.rows = tokens[: length * columns].view(columns, length)
        self.step, self.overlap = step, overlap

    def __len__(self) -> int:
        columns, length = self.rows.shape
        return columns * -(-(length - 1) // self.step)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(f"There is no window {index}: the text has {len(self)}.")
        window, column = divmod(index, len(self.rows))
        start = window * self.step
        return as_example(self.rows[column, start : start + self.step + self.overlap])


def column_stream(tokens: Tensor, *, columns: int, bptt: int) -> Windows:
    """The text in `columns` columns, read in windows of `bptt` words, each scored on the word that follows it.

    Every word is predicted once but the first of each column: the paper's batches, where targets are the next words also
    across a window's end. The last window of the columns has what is left.

    Raises:
        ValueError: The columns are shorter than a window.
    """
    length = len(tokens) // columns
    if bptt > length - 1:
        raise ValueError(
            f"bptt={bptt} is longer than the stream: {len(tokens):,} words in {columns} columns leave "
            f"{max(0, length - 1)} to predict in each; use a smaller bptt, fewer columns or more text."
        )
    return Windows(tokens, columns=columns, step=bptt, overlap=1)


def fixed_blocks(tokens: Tensor, *, block_size: int) -> Windows:
    """The text cut into blocks of `block_size` tokens; the last one has what is left.

    The usual layout for pretrained models. The first token of every block goes unpredicted.

    Raises:
        ValueError: There are fewer than two tokens.
    """
    if len(tokens) < 2:
        raise ValueError(f"A text of {len(tokens)} tokens has nothing to predict: it takes two at least.")
    return Windows(tokens, columns=1, step=block_size, overlap=0)


class BlockStream(IterableDataset):
    """Fixed blocks of a text that arrives piece by piece, without ever holding all of it; after the last one it begins anew.

    To a Trainer that is one long epoch, so that a run that is resumed in any pass over the text goes on with the next batch.
    A last incomplete block of a pass is left out.

    Args:
        pieces: The text's tokens in order, anything that can be iterated anew.
        block_size: Tokens of a block.
    """

    def __init__(self, pieces: Iterable[list[int]], *, block_size: int):
        self.pieces, self.block_size = pieces, block_size

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        blocks = None
        while blocks != 0:  # a worker without a file, or a text shorter than a block, has none
            blocks, pending = 0, []
            for piece in self.pieces:
                pending += piece
                while len(pending) >= self.block_size:
                    yield as_example(torch.tensor(pending[: self.block_size]))
                    blocks += 1
                    del pending[: self.block_size]


def as_example(tokens: Tensor) -> dict[str, Tensor]:
    """Tokens as a model's `input_ids` and `labels`."""
    labels = tokens.long().clone()
    labels[0] = IGNORED
    return {"input_ids": tokens.long(), "labels": labels}


def collate_windows(examples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """A batch of windows, shape (batch, longest length); shorter ones are filled up behind their end, unscored.

    No attention mask is needed: a causal model does not look behind the end.
    """
    fill = {"input_ids": 0, "labels": IGNORED}
    return {
        key: pad_sequence([example[key] for example in examples], batch_first=True, padding_value=value)
        for key, value in fill.items()
    }


def columns_per_device(columns: int, *, processes: int, accumulation_steps: int = 1) -> int:
    """Columns of a stream that each process reads in each micro-batch: its batch size.

    Raises:
        ValueError: The processes and accumulation steps do not share the columns evenly.
    """
    shares = processes * accumulation_steps
    if columns < shares or columns % shares:
        steps = f" x {accumulation_steps} accumulation steps" if accumulation_steps > 1 else ""
        problem = "fewer than" if columns < shares else "not a multiple of"
        raise ValueError(
            f"The stream's {columns} columns are {problem} the {processes} processes{steps} that share them: "
            f"use a multiple of {shares} columns or fewer processes."
        )
    return columns // shares
