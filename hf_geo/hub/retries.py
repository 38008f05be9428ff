"""What fails for a while on the way to or from the Hub is tried again; what would fail again is not."""

import logging
import time
from collections.abc import Callable, Iterator
from email.utils import mktime_tz, parsedate_tz
from typing import TypeVar

from huggingface_hub import set_client_factory
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import _http

logger = logging.getLogger(__name__)
WAITS = (1, 2, 4, 8, 16, 32)  # seconds before each further attempt
LONGEST_WAIT = 600  # seconds: who is told to wait longer gives up
SILENCE = 120.0  # seconds without a byte after which a connection is given up
# Time-outs, resets, cut answers. Taken from there because the package they come from changes with the version.
_NO_ANSWER = _http._DEFAULT_RETRY_ON_EXCEPTIONS
PASSING = (408, 429, 500, 502, 503, 504)  # the other statuses would come again

Result = TypeVar("Result")


def persist(action: Callable[[], Result], doing: str) -> Result:
    """Does something with the Hub, again if it fails for a reason that may pass: no answer, a cut one, 408, 429 or 5xx.

    huggingface_hub tries most requests again by itself, but not all of them. Here the whole action is repeated: it must
    be one that goes on where it was broken off, as uploads and downloads of several files do. A `Retry-After` is kept to.

    Args:
        action: What to do.
        doing: What that is, for the log: "pushing to ada/digits".

    Returns:
        What `action` returns.

    Raises:
        Exception: What `action` raised at last.
    """
    _limit_silence()
    for attempt, wait in enumerate((*WAITS, None)):
        try:
            return action()
        except Exception as error:
            pause = max(wait or 0, asked_to_wait(error))
            # Where there is no server, huggingface_hub has knocked for half a minute each time.
            given_up = wait is None or (attempt and _found_no_server(error))
            if given_up or pause > LONGEST_WAIT or not may_pass(error):
                raise
            logger.warning("%s: %s, trying again in %d s", doing[0].upper() + doing[1:], what_happened(error), pause)
            time.sleep(pause)


def may_pass(error: BaseException) -> bool:
    """Whether an error, or what led to it, is one of the network's or the Hub's that another attempt may not meet."""
    chain = list(causes(error))
    answers = [cause for cause in chain if isinstance(cause, HfHubHTTPError)]
    if answers:
        return all(answer.response.status_code in PASSING for answer in answers)
    # datasets drops this cause and keeps its name.
    if any(isinstance(cause, OfflineModeIsEnabled) or OfflineModeIsEnabled.__name__ in str(cause) for cause in chain):
        return False
    return any(isinstance(cause, (*_NO_ANSWER, ConnectionError)) or _is_cut_short(cause) for cause in chain)


def what_happened(error: BaseException) -> str:
    """The error as part of a sentence: the Hub's status, or that there was no answer."""
    for cause in causes(error):
        if isinstance(cause, HfHubHTTPError):
            return f"the Hub answered with error {cause.response.status_code}"
        if isinstance(cause, HTTPError):
            return f"no whole answer came ({type(cause).__name__})"
    return " ".join(str(error).split()).rstrip(".")


def asked_to_wait(error: BaseException) -> float:
    """Seconds that the Hub's answer asks to wait by `Retry-After`, a number or a date; 0 if it does not."""
    for cause in causes(error):
        value = cause.response.headers.get("Retry-After", "") if isinstance(cause, HfHubHTTPError) else ""
        if value.strip().isdigit():
            return float(value)
        if date := parsedate_tz(value):
            return mktime_tz(date) - time.time()
    return 0.0


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and all that led to it, the latest first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _found_no_server(error: BaseException) -> bool:
    # datasets makes a bare ConnectionError of the client's and drops that.
    return any(type(cause) is ConnectionError or type(cause).__name__ == "ConnectError" for cause in causes(error))


def _is_cut_short(error: BaseException) -> bool:
    return isinstance(error, OSError) and str(error).startswith("Consistency check failed")


def _limit_silence() -> None:
    """huggingface_hub waits for ever; a program that has set up its own client keeps it."""
    if _http._GLOBAL_CLIENT_FACTORY is _http.default_client_factory:
        set_client_factory(_impatient_client)


def _impatient_client():
    client = _http.default_client_factory()
    client.timeout = SILENCE
    return client
