"""Samples that cannot be read: skipped, logged and counted up to a limit; a worker that dies is reported with its sample."""

import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import get_worker_info

logger = logging.getLogger(__name__)
_MAX_WORKERS = 64  # workers beyond these share the rows of the table


class BadSampleError(ValueError):
    """A sample that cannot be used; the message says why."""


class DataError(RuntimeError):
    """The data cannot be read any further."""

    def __init__(self, message: str) -> None:
        # torch re-raises a worker's error with the worker's traceback around the message.
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


class BadSamples:
    """The samples that this process could not use, each counted once.

    A data-loader worker is a process of its own: it has its own limit and logs what it skips.

    Args:
        limit: How many samples may be skipped.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._names: set[str] = set()

    def __len__(self) -> int:
        return len(self._names)

    def skip(self, sample: str, reason: BadSampleError) -> None:
        """Counts a skipped sample, and logs it the first time.

        Args:
            sample: Name of the sample for people.
            reason: Why it cannot be used.

        Raises:
            DataError: The limit is exceeded.
        """
        if sample in self._names:
            return
        if len(self) >= self.limit:
            raise DataError(
                f"The {sample} cannot be used: {reason}; --max_bad_samples {self.limit} allows no more to be skipped: repair "
                "the data set, or raise the limit."
            )
        self._names.add(sample)
        logger.warning("The %s is skipped: %s (bad sample %d of at most %d).", sample, reason, len(self), self.limit)


class SamplesInProgress:
    """The index of the sample that each data-loader worker is reading, in memory that outlives the worker."""

    def __init__(self) -> None:
        self._table = torch.full((_MAX_WORKERS, 2), -1, dtype=torch.int64).share_memory_()

    def begin(self, index: int) -> None:
        """Records, in a worker, that it begins to read a sample."""
        worker = get_worker_info()
        if worker is not None:
            self._table[worker.id % _MAX_WORKERS] = torch.tensor([os.getpid(), index])

    def of_workers(self, pids: Iterable[int]) -> list[int]:
        """The samples that the workers with these process ids were reading."""
        by_pid = dict(self._table.tolist())
        return [by_pid[pid] for pid in pids if pid in by_pid]


@contextmanager
def dead_workers_named(datasets: Iterable[Any]) -> Iterator[None]:
    """Turns torch's error about a dead data-loader worker into one that names the sample it was reading.

    Args:
        datasets: Those that have `samples_of_workers(pids)` are asked for the samples' names.

    Raises:
        DataError: A worker died.
    """
    datasets = list(datasets)
    try:
        yield
    except RuntimeError as error:
        match = re.match(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)", str(error))
        if not match:
            raise
        pids = [int(pid) for pid in match[1].split(",")]
        names = [
            name for data in datasets if hasattr(data, "samples_of_workers") for name in data.samples_of_workers(pids)
        ]
        when = f"while it read {' and '.join(names)}" if names else "between two samples"
        raise DataError(
            f"A data-loader worker {match[2].strip().rstrip('.')} {when}: look whether memory ran out, or try "
            "--dataloader_num_workers 0, which shows what happens there."
        ) from error
