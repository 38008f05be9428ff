"""Augmentation that depends on the seed, the epoch and the sample, and on nothing else.

So one process or several, no workers or many, an unbroken run or a resumed one all see the same images.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def sample_seeds(seed: int, epoch: int, samples: np.ndarray) -> np.ndarray:
    """One well-mixed 64-bit number a sample.

    Args:
        seed: The run's seed.
        epoch: Counted from 0.
        samples: What tells a sample from the others, such as its index; integers (N,).

    Returns:
        (N,) uint64.
    """
    words = np.array([seed, epoch], dtype=np.int64).astype(np.uint64)
    mixed = np.zeros(len(samples), dtype=np.uint64)
    for word in (*words, np.asarray(samples, dtype=np.int64).astype(np.uint64)):
        mixed = _splitmix64(mixed ^ word)
    return mixed


def _splitmix64(z: np.ndarray) -> np.ndarray:
    """The mixing function of SplitMix64 (Steele, Lea and Flood 2014); arithmetic wraps around."""
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the generators of Python, NumPy and torch (CPU) within the block; after it they go on as if it had not been."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed % 2**63)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class EpochCounter:
    """The epoch, in shared memory: `set_epoch` in the main process reaches workers that are already running."""

    def __init__(self) -> None:
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)
