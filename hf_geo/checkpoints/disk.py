"""Recognizes failures of the disk (full, over quota, read-only, forbidden), and shares them among processes."""

import errno
import os
import re
from collections.abc import Callable, Iterator

import torch
from accelerate.utils import gather_object
from torch.distributed.checkpoint.api import CheckpointException

_REFUSALS = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than this account may write",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "there is no permission to write there",
    errno.EPERM: "there is no permission to write there",
}
# Messages of torch's writer of archives, by the place in the file where it failed.
_CUT_SHORT = ("] . unexpected pos ", "PytorchStreamWriter failed writing", "basic_ios::clear: iostream error")
_WORDS = {os.strerror(number): text for number, text in _REFUSALS.items()}


def try_write(action: Callable[[], object]) -> str | None:
    """Runs `action`; returns why the disk refused to write, as part of a sentence, or None where it did not."""
    try:
        action()
    except (Exception, CheckpointException) as error:
        failure = disk_failure(error)
        if failure is None:
            raise
        return failure
    return None


def disk_failure(error: BaseException) -> str | None:
    """Says why the disk refused a file, as part of a sentence; None for an error of any other kind.

    Libraries pass the system's error on in their own ways: Rust's (safetensors, tokenizers) by its number, `torch.save` by
    its text or as a file that ends too early, torch's sharded checkpoints by the process that had it.
    """
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in _REFUSALS:
            return _REFUSALS[cause.errno]
        number = re.search(r"\(os error (\d+)\)", str(cause))
        if number and int(number[1]) in _REFUSALS:
            return _REFUSALS[int(number[1])]
        if isinstance(cause, RuntimeError):
            if any(words in str(cause) for words in _CUT_SHORT):
                return "the disk did not take a whole file (it may be full, or a quota used up)"
            for words, text in _WORDS.items():
                if f"strerror: {words}" in str(cause):
                    return text
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    while error is not None:
        yield error
        if isinstance(error, CheckpointException):
            for failure, _ in error.failures.values():
                yield from _causes(failure)
        error = error.__cause__


def first_error_across_ranks(value: str | None) -> str | None:
    """Returns the first process's value that is not None, on every process. All call this, and wait for each other."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return next((found for found in gather_object([value]) if found is not None), None)
    return value
