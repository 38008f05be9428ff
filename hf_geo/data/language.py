"""How a language model reads a text: the stream in columns of the literature, or fixed blocks."""

from collections.abc import Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, IterableDataset
from transformers import PreTrainedTokenizerBase

from hf_geo.metrics.perplexity import IGNORED

from .config import DataArguments
from .text import TextData
from .tokenizer import is_word_level

DEFAULT_BLOCK = 1024


class Windows(Dataset):
    """Windows over a text that is laid out in columns.

    Item `i` is window `i // columns` of column `i % columns`. Read in order, `columns` items at a time (by all processes
    together), this is truncated backpropagation over the text. Every item has `input_ids` and `labels` of one shape
    (length,), int64; position i predicts `labels[i + 1]`, and `labels[0]` is -100, because nothing predicts it.

    Args:
        tokens: The text, shape (length,).
        columns: Number of columns; tokens at the end that do not fill them are left out.
        step: Tokens from one window to the next. The last window of each column may be shorter.
        overlap: Tokens of the next window that each window includes. With 1, a window's last word has its next word to
            predict, so that only the first word of a column goes unpredicted; with 0, the first word of every window.
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
        return _as_example(self.rows[column, start : start + self.step + self.overlap])


def column_stream(tokens: Tensor, *, columns: int, bptt: int) -> Windows:
    """Lays a text out in `columns` columns, read in windows of `bptt` words that each predict the following word.

    These are the batches of the literature: every word but the first of each column is predicted once, also across the
    end of a window.

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
    """Cuts a text into blocks of `block_size` tokens, the usual layout for pretrained models; the last may be shorter.

    The first token of every block goes unpredicted.

    Raises:
        ValueError: There are fewer than two tokens.
    """
    if len(tokens) < 2:
        raise ValueError(f"A text of {len(tokens)} tokens has nothing to predict: it takes two at least.")
    return Windows(tokens, columns=1, step=block_size, overlap=0)


class BlockStream(IterableDataset):
    """Fixed blocks of a text that arrives piece by piece, without end: after the last block it begins anew.

    A Trainer sees one long epoch, so a run that resumes in any pass over the text goes on with the next batch. An
    incomplete block at the end of a pass is left out.

    Args:
        pieces: The text's tokens in order; iterated once a pass.
        block_size: Tokens of a block.
    """

    def __init__(self, pieces: Iterable[list[int]], *, block_size: int):
        self.pieces, self.block_size = pieces, block_size

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        blocks = None
        while blocks != 0:  # a worker without a file, or a text shorter than a block, yields nothing
            blocks, pending = 0, []
            for piece in self.pieces:
                pending += piece
                while len(pending) >= self.block_size:
                    yield _as_example(torch.tensor(pending[: self.block_size]))
                    blocks += 1
                    del pending[: self.block_size]


def collate_windows(examples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Makes a batch of windows, shape (batch, longest length), with unscored padding behind the shorter ones.

    It has no attention mask, because a causal model does not see the padding behind a text.
    """
    padding = {"input_ids": 0, "labels": IGNORED}
    return {
        key: pad_sequence([example[key] for example in examples], batch_first=True, padding_value=value)
        for key, value in padding.items()
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


class LanguageData:
    """What a Trainer needs to train and evaluate a causal language model on a text.

    There are two layouts: "stream" (`column_stream`, read in order) is the default for word-level tokenizers, "blocks"
    (`fixed_blocks`, in random order) for others.

    Args:
        data: The text.
        tokenizer: The model's.
        args: `text_layout`, `columns`, `eval_columns`, `bptt`, `block_size`.
        processes: Processes that train together.
        accumulation_steps: Micro-batches of a step. They share the columns with the processes.
        batch_size: Rows of a micro-batch on each process, unless `args.columns` determine it.
        eval_batch_size: Rows on each process in evaluation on blocks; those in training by default.
        longest: Tokens of the longest text the model can read, if there is a limit (`max_position_embeddings`).

    Attributes:
        layout: "stream" or "blocks".
        batch_size, eval_batch_size: Rows on each process, for the Trainer's `per_device_*_batch_size`.
        sampling: For the Trainer's `train_sampling_strategy`, "sequential" or "random".
        perplexity: What a perplexity over `evaluation_set` measures, in words.
        collate: The Trainer's `data_collator`.

    Raises:
        ValueError: Columns that the processes cannot share evenly; blocks or windows longer than the model can read.
    """

    collate = staticmethod(collate_windows)

    def __init__(
        self,
        data: TextData,
        tokenizer: PreTrainedTokenizerBase,
        args: DataArguments,
        *,
        processes: int = 1,
        accumulation_steps: int = 1,
        batch_size: int = 8,
        eval_batch_size: int | None = None,
        longest: int | None = None,
    ):
        words = is_word_level(tokenizer)
        unit = "word" if words else "token"
        self.data, self.tokenizer, self.bptt = data, tokenizer, args.bptt
        self.layout: Literal["stream", "blocks"] = args.text_layout
        if args.text_layout == "auto":
            self.layout = "stream" if words else "blocks"
        self.block_size = args.block_size or min(DEFAULT_BLOCK, tokenizer.model_max_length, longest or DEFAULT_BLOCK)
        self.columns = args.columns or batch_size * processes * accumulation_steps
        self.eval_columns = args.eval_columns
        if self.layout == "stream":
            option, length = "bptt", self.bptt + 1
            self.sampling = "sequential"
            shares = {"processes": processes, "accumulation_steps": accumulation_steps}
            self.batch_size = columns_per_device(self.columns, **shares)
            self.eval_batch_size = -(-self.eval_columns // processes)
            read = f"in {self.eval_columns} columns, read in windows of {self.bptt}"
            self.perplexity = f"per {unit}, over the whole stream {read}"
        else:
            option, length = "block_size", self.block_size
            self.sampling = "random"
            self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
            self.perplexity = f"per {unit}, within blocks of {self.block_size} whose first {unit} is not predicted"
        if longest is not None and length > longest:
            raise ValueError(
                f"--{option} makes texts of {length} tokens, and the model reads {longest} at most: use a smaller one."
            )
        self._tokens: dict[str, Tensor] = {}

    def training_set(self) -> Dataset:
        """The windows to train on; blocks of a streamed split are read while training.

        Raises:
            ValueError: The split is empty, or shorter than a window.
        """
        is_streamed = not hasattr(self.data.splits["train"], "__len__")
        if self.layout == "blocks" and is_streamed:
            return BlockStream(self.data.encoded("train", self.tokenizer), block_size=self.block_size)
        return self._windows("train", self.columns)

    def evaluation_set(self, split: str) -> Windows:
        """The windows to evaluate on, of "eval", "test" or "train".

        Raises:
            ValueError: There is no such split, or it is empty or shorter than a window.
        """
        return self._windows(split, self.eval_columns)

    def tokens(self, split: str) -> Tensor:
        """All tokens of a split in order, shape (length,), int32; encoded once.

        Raises:
            ValueError: There is no such split, or no text in it.
        """
        if split not in self._tokens:
            self._tokens[split] = self.data.tokens(split, self.tokenizer)
        return self._tokens[split]

    def _windows(self, split: str, columns: int) -> Windows:
        if self.layout == "stream":
            return column_stream(self.tokens(split), columns=columns, bptt=self.bptt)
        return fixed_blocks(self.tokens(split), block_size=self.block_size)


def _as_example(tokens: Tensor) -> dict[str, Tensor]:
    labels = tokens.long().clone()
    labels[0] = IGNORED
    return {"input_ids": tokens.long(), "labels": labels}
