"""Keeps printing from ending a program, whatever is printed and whether or not somebody still reads it."""

import io
import sys


class _TolerantFile(io.FileIO):
    """A file descriptor that drops output which cannot be written: a closed pipe, a full disk."""

    def write(self, data: bytes) -> int:
        try:
            return super().write(data)
        except OSError:  # nobody could read a message about it, and training must go on
            return len(data)


def protect_output() -> None:
    """Makes printing safe: characters that the encoding lacks are escaped, and output that nobody reads is dropped.

    Streams that replace the process's own, as in tests, are left alone.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and stream is getattr(sys, f"__{name}__"):
            safe = io.TextIOWrapper(
                io.BufferedWriter(_TolerantFile(stream.fileno(), "w", closefd=False)),
                encoding=stream.encoding,
                errors="backslashreplace",
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, safe)
