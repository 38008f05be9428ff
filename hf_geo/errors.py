"""Errors in words, and what led to them. Every room may need it, and scripts that start fast do: no heavy import."""

from collections.abc import Iterator


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and all that led to it, the latest first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def in_words(error: BaseException | str) -> str:
    """Words an error, or a library's message, as part of a sentence."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
