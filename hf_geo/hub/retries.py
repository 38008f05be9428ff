"""Retries requests to the Hub that may succeed later, and no others."""

import logging
import time
from collections.abc import Callable
from email.utils import mktime_tz, parsedate_tz
from typing import TypeVar

from huggingface_hub import get_session

# `HTTPError`, for no answer at all, is taken from here because the package it comes from changes with the version.
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

from hf_geo.errors import causes, in_words

logger = logging.getLogger(__name__)
WAITS = (1, 2, 4, 8, 16, 32)  # seconds before each further attempt
LONGEST_WAIT = 600  # seconds; a Hub that asks for a longer wait is given up
SILENCE = 120.0  # seconds without a byte after which a connection is given up
PASSING = (408, 429, 500, 502, 503, 504)  # the other statuses would come again

Result = TypeVar("Result")


def persist(action: Callable[[], Result], doing: str) -> Result:
    """Runs an action that talks to the Hub, and repeats it while it fails for a reason that may pass.

    These are no answer, a cut one, and the statuses 408, 429 and 5xx. huggingface_hub itself retries most requests, but
    not all of them. The whole action is repeated, so it must be one that goes on where it was broken off, as uploads and
    downloads of several files do. The pause is at least what the Hub's `Retry-After` asks for.

    Args:
        action: What to run.
        doing: Describes it in the log: "pushing to ada/digits".

    Returns:
        What `action` returns.

    Raises:
        Exception: What the last attempt raised.
    """
    for attempt, wait in enumerate((*WAITS, None)):
        _limit_silence()
        try:
            return action()
        except Exception as error:
            pause = max(wait or 0, _requested_wait(error))
            # Where there is no server, huggingface_hub has knocked for half a minute each time.
            is_hopeless = wait is None or (attempt and _found_no_server(error))
            if is_hopeless or pause > LONGEST_WAIT or not may_pass(error):
                raise
            logger.warning("%s: %s, trying again in %d s", doing[0].upper() + doing[1:], _describe(error), pause)
            time.sleep(pause)


def may_pass(error: BaseException) -> bool:
    """Returns whether another attempt may succeed: an error of the network or the Hub is among `causes(error)`."""
    chain = list(causes(error))
    answers = [cause for cause in chain if isinstance(cause, HfHubHTTPError)]
    if answers:
        return all(answer.response.status_code in PASSING for answer in answers)
    # datasets drops this cause and keeps its name.
    if any(isinstance(cause, OfflineModeIsEnabled) or OfflineModeIsEnabled.__name__ in str(cause) for cause in chain):
        return False
    return any(isinstance(cause, (HTTPError, ConnectionError)) or _is_cut_short(cause) for cause in chain)


def _describe(error: BaseException) -> str:
    """Names the Hub's status, or says that there was no answer, as part of a sentence."""
    for cause in causes(error):
        if isinstance(cause, HfHubHTTPError):
            return f"the Hub answered with error {cause.response.status_code}"
        if isinstance(cause, HTTPError):
            return f"no whole answer came ({type(cause).__name__})"
    return in_words(error)


def _requested_wait(error: BaseException) -> float:
    """Returns the seconds that the Hub asks to wait by `Retry-After`, a number or a date; 0 if it does not."""
    for cause in causes(error):
        value = cause.response.headers.get("Retry-After", "") if isinstance(cause, HfHubHTTPError) else ""
        if value.strip().isdigit():
            return float(value)
        if date := parsedate_tz(value):
            return mktime_tz(date) - time.time()
    return 0.0


def _found_no_server(error: BaseException) -> bool:
    # datasets makes a bare ConnectionError of the client's and drops that.
    names = ("ConnectError", "UnsupportedProtocol")
    return any(type(cause) is ConnectionError or type(cause).__name__ in names for cause in causes(error))


def _is_cut_short(error: BaseException) -> bool:
    return isinstance(error, OSError) and str(error).startswith("Consistency check failed")


def _limit_silence() -> None:
    """Gives huggingface_hub's client a time-out, unless the program has set one: by default it waits for ever."""
    client = get_session()
    if client.timeout.read is None:
        client.timeout = SILENCE
