"""Samples that cannot be read are skipped, logged and counted up to a limit; a dead worker is reported with its sample."""

import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import get_worker_info

logger = logging.getLogger(__name__)
_WORKERS = 64  # whose places are kept apart


class BadSampleError(ValueError):
    """A sample that cannot be used; the message says why."""


class DataError(RuntimeError):
    """The data cannot be read any further."""

    def __init__(self, message: str) -> None:
        # An error in a worker arrives here with its traceback around the message.
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


class BadSamples:
    """The samples of this process that could not be used, each counted once.

    A data-loader worker is a process of its own: what it skips counts against its own limit and is named in its own log.

    Args:
        limit: How many are skipped.
    """

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self._names: set[str] = set()

    def __len__(self) -> int:
        return len(self._names)

    def skip(self, sample: str, reason: BadSampleError) -> None:
        """Notes that a sample is skipped, and logs it the first time.

        Args:
            sample: Which one, in words.
            reason: Why it cannot be used.

        Raises:
            DataError: There are too many.
        """
        if sample in self._names:
            return
        if len(self) >= self.limit:
            raise DataError(
                f"The {sample} cannot be used: {reason}; --max_bad_samples {self.limit} allows to skip no more: repair "
                "the data set, or raise the limit."
            )
        self._names.add(sample)
        logger.warning("The %s is skipped: %s (bad sample %d of at most %d).", sample, reason, len(self), self.limit)


class Places:
    """Which sample each data-loader worker of this process is reading."""

    def __init__(self) -> None:
        self._at = torch.full((_WORKERS, 2), -1, dtype=torch.int64).share_memory_()

    def note(self, sample: int) -> None:
        """Says in a worker that it begins to read a sample; does nothing elsewhere."""
        worker = get_worker_info()
        if worker is not None:
            self._at[worker.id % _WORKERS] = torch.tensor([os.getpid(), sample])

    def of(self, pids: Iterable[int]) -> list[int]:
        """The samples that the workers of these process ids were reading."""
        at = dict(self._at.tolist())
        return [at[pid] for pid in pids if pid in at]


@contextmanager
def dead_workers_named(datasets: Iterable[Any]) -> Iterator[None]:
    """Turns torch's error about a data-loader worker that died into one that names the sample it was reading.

    Args:
        datasets: Those with `dying(pids)`, which says in words what these processes were reading, are asked.

    Raises:
        DataError: A worker died.
    """
    datasets = list(datasets)
    try:
        yield
    except RuntimeError as error:
        found = re.match(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)", str(error))
        if not found:
            raise
        pids = [int(pid) for pid in found[1].split(",")]
        samples = [words for data in datasets if hasattr(data, "dying") for words in data.dying(pids)]
        what = f"while it read {' and '.join(samples)}" if samples else "between two samples"
        raise DataError(
            f"A data-loader worker {found[2].strip().rstrip('.')} {what}: look whether memory ran out, or try "
            "--dataloader_num_workers 0, which shows what happens there."
        ) from error
