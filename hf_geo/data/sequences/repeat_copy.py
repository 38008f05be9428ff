"""Repeat-copy: sequences of random bits to be repeated a number of times, drawn anew for each sample."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from hf_geo.metrics.perplexity import IGNORED

REPEAT_COPY = "repeat-copy"
REPEATS_UNIT = 10  # the network sees the number of repeats divided by this
TRAIN, EVAL, SIZES = range(3)  # keys of the splits' random numbers


@dataclass(frozen=True)
class Size:
    """How long a sequence is, and how often it is to be repeated."""

    length: int
    repeats: int


def repeat_copy(bits: np.ndarray, repeats: int) -> dict[str, Tensor]:
    """A sequence and the answer that is asked for, one row a step.

    The steps are: a flag that starts the sequence; its words; the number of repeats; then nothing, while the words are to be
    predicted `repeats` times, and a flag that ends them. That makes s (r + 1) + 3 steps for s words and r repeats.

    Args:
        bits: The words, (length, width), 0 or 1.
        repeats: At least 1.

    Returns:
        `inputs` (steps, width + 2) with the flag and the repeats, divided by 10, behind the bits; `labels` (steps,
        width + 1) with the flag behind the bits, -100 where there is nothing to predict.
    """
    length, width = bits.shape
    asked = length + 2  # steps before the answer
    steps = asked + length * repeats + 1
    inputs, labels = torch.zeros(steps, width + 2), torch.full((steps, width + 1), float(IGNORED))
    words = torch.from_numpy(bits).to(inputs)
    inputs[0, width] = 1
    inputs[1 : asked - 1, :width] = words
    inputs[asked - 1, width + 1] = repeats / REPEATS_UNIT
    labels[asked:] = 0
    labels[asked:-1, :width] = words.repeat(repeats, 1)
    labels[-1, width] = 1
    return {"inputs": inputs, "labels": labels}


def sizes_of(labels: Tensor) -> Tensor:
    """The length and the number of repeats of each sequence of a batch of labels: (batch, 2)."""
    asked = (labels != IGNORED)[..., 0]
    length = asked.int().argmax(1) - 2
    return torch.stack((length, (asked.sum(1) - 1) // length), dim=1)


class RepeatCopy(Dataset):
    """Sequences of repeat-copy. Item i of an epoch is drawn from a generator of its own, so it is the same in every process.

    Args:
        samples: How many an epoch has.
        width: Bits of a word.
        sizes: The sizes to draw from, each as likely as the others; or, with `in_turn`, to go through.
        key: Whole numbers that the random numbers depend on, besides the epoch and the item.
        in_turn: Whether item i has size i modulo their number.
    """

    def __init__(self, samples: int, width: int, sizes: Sequence[Size], key: tuple[int, ...], in_turn: bool = False):
        self.samples, self.width, self.sizes, self.key, self.in_turn = samples, width, sizes, key, in_turn
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Draws other sequences from now on."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < self.samples:
            raise IndexError(f"There is no sequence {index} in an epoch of {self.samples}.")
        rng = np.random.default_rng((*self.key, self.epoch, index))
        size = self.sizes[index % len(self.sizes) if self.in_turn else rng.integers(len(self.sizes))]
        return repeat_copy(rng.integers(2, size=(size.length, self.width)), size.repeats)


def collate_sequences(examples: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Makes a batch, (batch, longest, ...), with nothing to see or to predict behind the shorter sequences."""
    padding = {"inputs": 0.0, "labels": float(IGNORED)}
    return {
        key: pad_sequence([example[key] for example in examples], batch_first=True, padding_value=value)
        for key, value in padding.items()
    }


def all_sizes(longest: int, most_repeats: int) -> list[Size]:
    """Every length and number of repeats from 1 on."""
    return [Size(length, repeats) for length in range(1, longest + 1) for repeats in range(1, most_repeats + 1)]
