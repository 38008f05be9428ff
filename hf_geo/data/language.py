"""How a text is read: the paper's stream in columns, or the usual blocks; and what its perplexity then means."""

from typing import Literal

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from .config import DataArguments
from .text import TextData
from .tokenizer import is_word_level
from .windows import BlockStream, Windows, collate_windows, column_stream, columns_per_device, fixed_blocks

DEFAULT_BLOCK = 1024


class LanguageData:
    """What a Trainer needs to train and evaluate a causal language model on a text.

    Two layouts. "stream": the text in columns, read in order in windows of `bptt` words, the next word predicted also across a
    window's end; "blocks": pieces of `block_size` tokens in random order, whose first token goes unpredicted. The first is
    for word-level tokenizers, the second for others, unless `args.text_layout` says otherwise.

    Args:
        data: The text.
        tokenizer: The model's.
        args: `text_layout`, `columns`, `eval_columns`, `bptt`, `block_size`.
        processes: Processes that train together.
        accumulation_steps: Micro-batches of a step. They share the columns with the processes.
        batch_size: Rows of a micro-batch on each process, where `args.columns` do not say it.
        eval_batch_size: Rows on each process in evaluation on blocks; those in training by default.
        longest: Tokens of the longest text the model can read, if there is one (`max_position_embeddings`).

    Attributes:
        layout: "stream" or "blocks".
        batch_size, eval_batch_size: Rows on each process: what the Trainer's `per_device_*_batch_size` have to be.
        sampling: What the Trainer's `train_sampling_strategy` has to be, "sequential" or "random".
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
        self.data, self.tokenizer, self.bptt = data, tokenizer, args.bptt
        self.layout: Literal["stream", "blocks"] = (
            args.text_layout if args.text_layout != "auto" else "stream" if words else "blocks"
        )
        self.block_size = args.block_size or min(DEFAULT_BLOCK, tokenizer.model_max_length, longest or DEFAULT_BLOCK)
        option, length = ("bptt", self.bptt + 1) if self.layout == "stream" else ("block_size", self.block_size)
        if longest is not None and length > longest:
            raise ValueError(
                f"--{option} makes texts of {length} tokens, and the model reads {longest} at most: use a smaller one."
            )
        self.columns = args.columns or batch_size * processes * accumulation_steps
        self.eval_columns = args.eval_columns
        unit = "word" if words else "token"
        if self.layout == "stream":
            self.sampling = "sequential"
            self.batch_size = columns_per_device(
                self.columns, processes=processes, accumulation_steps=accumulation_steps
            )
            self.eval_batch_size = -(-self.eval_columns // processes)
            self.perplexity = (
                f"per {unit}, over the whole stream in {self.eval_columns} columns, read in windows of {self.bptt}"
            )
        else:
            self.sampling = "random"
            self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
            self.perplexity = f"per {unit}, within blocks of {self.block_size} whose first {unit} is not predicted"
        self._tokens: dict[str, torch.Tensor] = {}

    def training_set(self) -> Dataset:
        """The windows to train on; blocks of a streamed split are read as they are asked for.

        Raises:
            ValueError: The split is empty, or shorter than a window.
        """
        streamed = not hasattr(self.data.splits["train"], "__len__")
        if self.layout == "blocks" and streamed:
            return BlockStream(self.data.encoded("train", self.tokenizer), block_size=self.block_size)
        return self._windows("train", self.columns)

    def evaluation_set(self, split: str) -> Windows:
        """The windows to evaluate on, of "eval", "test" or "train".

        Raises:
            ValueError: There is no such split, or it is empty or shorter than a window.
        """
        return self._windows(split, self.eval_columns)

    def tokens(self, split: str) -> torch.Tensor:
        """All tokens of a split in order, shape (length,), int32; read once.

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
