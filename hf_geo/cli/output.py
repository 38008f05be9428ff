"""Standard output and error that end no program, whatever is printed and whoever has stopped listening."""

import io
import sys


class _Lasting(io.FileIO):
    """A file descriptor that drops what cannot be written: the reader of a pipe has left, or a log's disk is full."""

    def write(self, data: bytes) -> int:
        try:
            return super().write(data)
        except OSError:  # there is nobody to say it to, and a training is worth more than its words
            return len(data)


def protect_output() -> None:
    """Makes printing safe: what the terminal's encoding lacks is escaped, and what nobody reads any more is dropped.

    Streams that somebody has put in place of the process's own, as tests do, are left alone.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and stream is getattr(sys, f"__{name}__"):
            safe = io.TextIOWrapper(
                io.BufferedWriter(_Lasting(stream.fileno(), "w", closefd=False)),
                encoding=stream.encoding,
                errors="backslashreplace",
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, safe)
