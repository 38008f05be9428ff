"""Sentences as token ids, in flat arrays: memory grows with the tokens, whatever the longest sentence is."""

import logging
from collections.abc import Iterator

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from .data import Sentences

logger = logging.getLogger(__name__)
_BATCH = 1000  # rows encoded at a time


class EncodedSentences(torch.utils.data.Dataset):
    """Samples for `DataCollatorWithPadding`: `input_ids`, `token_type_ids` where the tokenizer has them, and `labels`.

    Args:
        columns: Flat integer arrays by name, all of one length.
        ends: Where each row ends in them, (rows,).
        labels: Class numbers, (rows,).
        truncated: How many rows were longer than the model takes.
    """

    def __init__(self, columns: dict[str, np.ndarray], ends: np.ndarray, labels: np.ndarray, truncated: int) -> None:
        self.columns, self.labels, self.truncated = columns, labels, truncated
        self.bounds = np.concatenate(([0], ends))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, list[int] | int]:
        if not 0 <= index < len(self):  # transformers iterates until then, to group by length
            raise IndexError(f"There is no row {index}: there are {len(self)}.")
        start, end = self.bounds[index : index + 2]
        row = {name: values[start:end].tolist() for name, values in self.columns.items()}
        return {**row, "labels": int(self.labels[index])}


def encode_sentences(
    sentences: Sentences, tokenizer: PreTrainedTokenizerBase, longest: int | None = None
) -> EncodedSentences:
    """Encodes a split.

    Args:
        sentences: The split.
        tokenizer: The model's.
        longest: Tokens the model takes, special ones included; the longer sentence of a longer row is cut at its end.
    """
    truncated, lengths = 0, []
    pieces: dict[str, list[np.ndarray]] = {}
    for texts in _batches(sentences):
        encoded = tokenizer(*texts, return_attention_mask=False, verbose=False)
        too_long = [i for i, ids in enumerate(encoded["input_ids"]) if longest is not None and len(ids) > longest]
        if too_long:
            truncated += len(too_long)
            shorter = ([column[i] for i in too_long] for column in texts)
            cut = tokenizer(*shorter, return_attention_mask=False, truncation=True, max_length=longest)
            for name, rows in cut.items():
                for i, row in zip(too_long, rows, strict=True):
                    encoded[name][i] = row
        lengths += map(len, encoded["input_ids"])
        for name, rows in encoded.items():
            pieces.setdefault(name, []).append(np.concatenate([np.asarray(row, dtype=np.int32) for row in rows]))
    if truncated:
        logger.warning(
            "%d of the %d rows of the split %r are longer than %d tokens: their ends are cut off.",
            truncated, len(sentences), sentences.name, longest,
        )  # fmt: skip
    columns = {name: np.concatenate(arrays) for name, arrays in pieces.items()}
    return EncodedSentences(columns, np.cumsum(lengths), sentences.labels, truncated)


def _batches(sentences: Sentences) -> Iterator[list[list[str]]]:
    for start in range(0, len(sentences), _BATCH):
        yield [column[start : start + _BATCH] for column in sentences.texts]
