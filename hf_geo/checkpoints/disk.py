"""Failures of the disk (full, over quota, read-only, forbidden), told from all other errors, and shared by all processes."""

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
# What torch's writer of archives says, by where in the file it could not go on.
_CUT_SHORT = ("] . unexpected pos ", "PytorchStreamWriter failed writing", "basic_ios::clear: iostream error")
_WORDS = {os.strerror(number): text for number, text in _REFUSALS.items()}


def try_write(action: Callable[[], object]) -> str | None:
    """Does something that writes; returns why the disk refused, as part of a sentence, or None where it did not."""
    try:
        action()
    except (Exception, CheckpointException) as error:
        failure = disk_failure(error)
        if failure is None:
            raise
        return failure
    return None


def disk_failure(error: BaseException) -> str | None:
    """Why the disk refused a file, as part of a sentence; None for an error of any other kind.

    Libraries hand the system's error on in their own ways: Rust's (safetensors, tokenizers) by its number, `torch.save` by
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


def in_words(error: BaseException) -> str:
    """Any error as part of a sentence."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    while error is not None:
        yield error
        if isinstance(error, CheckpointException):
            for failure, _ in error.failures.values():
                yield from _causes(failure)
        error = error.__cause__


def first_error_across_ranks(value: str | None) -> str | None:
    """What the first process with something to tell has told; every process calls this, and none returns before all have."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return next((told for told in gather_object([value]) if told is not None), None)
    return value
