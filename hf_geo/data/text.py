"""Text datasets: the rows that a language model is trained on."""

from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import datasets
import numpy as np
import torch
from datasets import Value
from transformers import PreTrainedTokenizerBase

from .columns import is_string
from .config import DataArguments
from .loading import Rows
from .sources import open_source
from .splits import choose_splits, divide_stream
from .tokenizer import build_word_tokenizer, is_word_level

_BATCH = 1000  # rows encoded at a time


@dataclass(frozen=True)
class TextData:
    """An opened text dataset.

    Args:
        name: Its name for people.
        hub_id: Its id on the Hub, if it came from there.
        splits: Rows by "train", "eval" and, where there is one, "test"; their only column is "text".
        description: Where the splits come from, in words.
    """

    name: str
    hub_id: str | None
    splits: Mapping[str, Rows]
    description: str

    def word_tokenizer(self, min_frequency: int = 1) -> PreTrainedTokenizerBase:
        """Builds a word-level tokenizer over the training split, see `build_word_tokenizer`."""
        rows = self.splits["train"]
        return build_word_tokenizer((row for batch in _batches(rows) for row in batch), min_frequency=min_frequency)

    def encoded(self, split: str, tokenizer: PreTrainedTokenizerBase) -> "EncodedRows":
        """The rows of a split as lists of ids.

        Raises:
            ValueError: There is no such split.
        """
        if split not in self.splits:
            raise ValueError(f"{self.name} has no {split!r} split to use: it has {', '.join(self.splits)}.")
        return EncodedRows(self.splits[split], tokenizer)

    def tokens(self, split: str, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
        """All tokens of a split in order, shape (length,), int32.

        Raises:
            ValueError: There is no such split, or no text in it.
        """
        ids = array("i")
        for row in self.encoded(split, tokenizer):
            ids.extend(row)
        if not ids:
            raise ValueError(f"The {split!r} split of {self.name} is empty: there is no text in it.")
        return torch.from_numpy(np.frombuffer(ids, dtype=np.int32).copy())


class EncodedRows:
    """Rows of text as lists of ids, encoded anew in each iteration.

    With a word-level tokenizer every line ends in `<eos>`; other tokenizers get the text as it is.
    """

    def __init__(self, rows: Rows, tokenizer: PreTrainedTokenizerBase):
        self.rows, self.tokenizer = rows, tokenizer
        self.line_end = [tokenizer.eos_token_id] if is_word_level(tokenizer) else None

    def __iter__(self) -> Iterator[list[int]]:
        for batch in _batches(self.rows):
            if self.line_end is None:
                yield from self._encode(batch)
            else:
                lines = [line for row in batch for line in row.removesuffix("\n").split("\n")]
                for line in self._encode(lines):
                    yield line + self.line_end

    def _encode(self, texts: list[str]) -> list[list[int]]:
        # A row is no text of its own, so what begins and ends one does not belong there.
        settings = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
        return self.tokenizer(texts, **settings)["input_ids"]


def load_text_data(args: DataArguments) -> TextData:
    """Opens the dataset that `args` name: "docs", a Hub id or a folder.

    Without a validation split, the last `eval_size` training rows are held out, by default a tenth; of a stream, the first
    `eval_size`.

    Raises:
        ValueError: The dataset cannot be opened, has no text, or lacks a split.
    """
    source = open_source(args.dataset, args.dataset_config, args.streaming)
    named = args.train_split, args.eval_split, args.test_split
    names = choose_splits(source.splits, *named, source.files, args.eval_size)
    column = find_text_column(source.splits[names.train[0]], args.text_column)
    chosen = {"train": names.train, "eval": (names.eval,), "test": (names.test,)}
    chosen = {role: parts for role, parts in chosen.items() if parts != (None,)}
    notes = {role: f"split {' and '.join(map(repr, parts))}" for role, parts in chosen.items()}
    rows = {role: _texts([source.splits[part] for part in parts], column) for role, parts in chosen.items()}
    if "eval" not in rows:
        rows["train"], rows["eval"], notes["eval"] = _hold_out(rows["train"], args.eval_size)
    for role in rows:
        limit = args.max_train_samples if role == "train" else args.max_eval_samples
        if limit is not None:
            is_stream = isinstance(rows[role], datasets.IterableDataset)
            rows[role] = rows[role].take(limit if is_stream else min(limit, len(rows[role])))
            notes[role] += f", its first {limit:,} rows"
    description = "; ".join(f"{role}: {note}" for role, note in notes.items()) + "."
    return TextData(source.name, source.hub_id, rows, description)


def find_text_column(rows: Rows, named: str | None = None) -> str:
    """Finds the column of the texts: the named one, else "text", else the only one that holds strings.

    Raises:
        ValueError: The named column is missing or holds no text, or no column or more than one could be meant.
    """
    features = rows.features or {
        k: Value("string") if isinstance(v, str) else v for k, v in next(iter(rows), {}).items()
    }
    return choose_text([name for name, feature in features.items() if is_string(feature)], features, named)


def choose_text(
    strings: Sequence[str], columns: Collection[str], named: str | None, option: str = "--text_column"
) -> str:
    """Chooses the column that the user names, else "text", else the only one.

    Args:
        strings: The columns to choose from.
        columns: All columns of the dataset, for the message.
        named: The one that the user names.
        option: The option that names it.

    Raises:
        ValueError: The named column is none to choose from, or no column or more than one could be meant.
    """
    listing = f"Its columns are {', '.join(columns)}." if columns else "It has no columns."
    if named is not None and named not in strings:
        problem = "holds no text" if named in columns else "is not in the data set"
        raise ValueError(f"The column {named!r} ({option}) {problem}. {listing}")
    if named is not None or "text" in strings:
        return named or "text"
    if len(strings) == 1:
        return strings[0]
    if strings:
        raise ValueError(f"More than one column of the data set holds text: name one with {option}. {listing}")
    raise ValueError(f"The data set has no text. {listing}")


def _texts(parts: Sequence[Rows], column: str) -> Rows:
    parts = [part.select_columns([column]) for part in parts]
    if column != "text":
        parts = [part.rename_column(column, "text") for part in parts]
    # A stream that is joined from parts takes long to divide into its files (datasets 5.2).
    return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)


def _hold_out(rows: Rows, size: int | None) -> tuple[Rows, Rows, str]:
    if not isinstance(rows, datasets.IterableDataset):
        size = size or max(1, len(rows) // 10)
        cut = len(rows) - size
        if cut < 1:
            raise ValueError(
                f"Of {len(rows)} rows to train on, {size} cannot be held out: name a split to evaluate on with "
                "--eval_split, or hold out fewer with --eval_size."
            )
        return rows.take(cut), rows.skip(cut), f"the last {size:,} rows of the training split, held out"
    if size is None:
        raise ValueError(
            "The data set has no split to evaluate on: name one with --eval_split, or hold out the first N training rows "
            "with --eval_size N."
        )
    held, rest = divide_stream(rows, size)
    if next(iter(rest), None) is None:
        raise ValueError(
            f"--eval_size {size} holds out every row of the training split and leaves nothing to train on: hold out "
            "fewer, or name a split to evaluate on with --eval_split."
        )
    return rest, held, f"the first {size:,} rows of the training split, held out"


def _batches(rows: Rows) -> Iterator[list[str]]:
    """Yields the texts of 1,000 rows at a time; a loader's workers divide a stream among them."""
    batches = rows.batch(_BATCH) if isinstance(rows, datasets.IterableDataset) else rows.iter(_BATCH)
    for batch in batches:
        yield [text or "" for text in batch["text"]]
