"""A user's mistake ends a script with one sentence and exit status 2, not with a traceback."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_sentence_errors(prog: str) -> Iterator[None]:
    """Turns the errors that this package raises for its user into `prog: error: <message>` on stderr.

    Wrap it around everything that a script does before it trains. Anything but ValueError, TypeError, RuntimeError, OSError and
    ImportError (of a package that an option needs) is a mistake in the program and keeps its traceback; so do
    RecursionError and NotImplementedError. Of several processes on a machine the first one prints; all exit.

    Set the environment variable `HF_GEO_TRACEBACK=1` to see the traceback instead.

    Args:
        prog: The script's name, such as "train.py".

    Raises:
        SystemExit: With status 2, after the sentence is printed.
    """
    try:
        yield
    except (RecursionError, NotImplementedError):
        raise
    except (ValueError, TypeError, RuntimeError, OSError, ImportError) as error:
        if os.environ.get("HF_GEO_TRACEBACK") == "1":
            raise
        # Every machine of a launch has a terminal of its own, so each says why it stopped.
        if os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0")) == "0":
            sentence = " ".join(str(error).split()) or type(error).__name__
            print(f"{prog}: error: {sentence}", file=sys.stderr, flush=True)
        raise SystemExit(2) from None
