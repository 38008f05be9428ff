"""Output that ends no program and floods no log, whatever is printed and whether or not somebody still reads it."""

import io
import sys
import time

PROGRESS_SECONDS = 60.0  # between two lines of progress bars where there is no terminal


class _TolerantFile(io.FileIO):
    """A file descriptor that drops output which cannot be written: a closed pipe, a full disk."""

    def write(self, data: bytes) -> int:
        try:
            return super().write(data)
        except OSError:  # nobody could read a message about it, and training must go on
            return len(data)


class _Lines(io.TextIOWrapper):
    """Text for a file or a pipe, in which progress bars are a line a minute.

    A bar redraws itself after a carriage return, several times a second. Of these states one a minute is written, and the
    last one of a bar that has reached its end and stays. tqdm draws a bar inside another one on the next line, and goes up again.
    """

    _state, _after_bar, _written, _written_at = "", False, "", None

    def write(self, text: str) -> int:
        """Writes text, or keeps the state of a progress bar until it is time for a line."""
        if text.startswith("\r"):
            self._state, self._after_bar = text.strip(), True
            now = time.monotonic()
            self._written_at = now if self._written_at is None else self._written_at
            if self._state and now - self._written_at >= PROGRESS_SECONDS:
                self._write_state()
        elif text.startswith("\x1b[A"):
            self._state, self._after_bar = "", True
        elif text and not text.strip("\n") and self._after_bar:
            if "100%|" in self._state:
                self._write_state()
            self._after_bar = False
        else:
            self._after_bar = self._after_bar and not text
            return super().write(text)
        return len(text)

    def _write_state(self) -> None:
        counts = self._state.partition("[")[0]  # times and rates follow
        if counts != self._written:
            super().write(f"{self._state}\n")
        self._state, self._written, self._written_at = "", counts, time.monotonic()


def protect_output() -> None:
    """Makes printing safe, and readable in a log.

    Characters that the encoding lacks are escaped, output that nobody reads is dropped, each line is written when it is
    complete, and away from a terminal progress bars become a line a minute. Streams that replace the process's own, as in
    tests, are left alone.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and stream is getattr(sys, f"__{name}__"):
            kind = io.TextIOWrapper if stream.isatty() else _Lines
            safe = kind(
                io.BufferedWriter(_TolerantFile(stream.fileno(), "w", closefd=False)),
                encoding=stream.encoding,
                errors="backslashreplace",
                line_buffering=True,
                write_through=stream.write_through,
            )
            setattr(sys, name, safe)
