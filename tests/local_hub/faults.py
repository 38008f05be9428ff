"""Fault injection: any fault at any request of a client, chosen by the repository's name.

A client that works on the repository `ada/KIND-N` meets the fault KIND at its Nth request (from 0), once, so that one client
process can go through all faults, one repository after the other.
"""

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.local_hub import api
from tests.local_hub.http import Request, Response

if TYPE_CHECKING:
    from tests.local_hub.hub import LocalHub

RETRY_AFTER = 7  # seconds, in the header of a response 429
HANG = 0.6  # seconds that a "timeout" lasts before the connection is reset


def _status(status: int, **headers: str) -> Callable[["LocalHub", Request], Response]:
    return lambda hub, request: Response.of({"error": f"Injected {status}"}, status, **headers)


def _reset(hub: "LocalHub", request: Request) -> Response:
    raise ConnectionResetError


def _timeout(hub: "LocalHub", request: Request) -> Response:
    time.sleep(HANG)
    raise ConnectionResetError


def _truncated(hub: "LocalHub", request: Request) -> Response:
    """The request is carried out, but half of the response is lost."""
    response = api.answer(hub, request)
    response.cut = True
    return response


def _lost(hub: "LocalHub", request: Request) -> Response:
    """The request is carried out, but the response is lost."""
    api.answer(hub, request)
    raise ConnectionResetError


PASSING = {
    "500": _status(500),
    "503": _status(503),
    "429": _status(429, Retry_After=str(RETRY_AFTER)),
    "reset": _reset,
    "lost": _lost,
    "timeout": _timeout,
    "truncated": _truncated,
}
LASTING = {"401": _status(401), "403": _status(403)}


class FaultAtEachRequest:
    """A `LocalHub.fault` hook.

    Attributes:
        reached: Number of requests by repository.
        met: The request that met the fault, by repository.
    """

    def __init__(self, hub: "LocalHub") -> None:
        self.hub = hub
        self.reached: dict[str, int] = {}
        self.met: dict[str, Request] = {}
        self._name = ""

    def __call__(self, request: Request) -> Response | None:
        # Requests to the CDN and checks of cards name no repository: they belong to the one named last.
        found = re.search(r"\b(?:[a-z]+|\d{3})-\d+\b", request.path) or re.search(
            rb'"name": ?"((?:[a-z]+|\d{3})-\d+)"', request.body
        )
        if found:
            name = found[0] if isinstance(found[0], str) else found[1].decode()
            if name.partition("-")[0] in PASSING | LASTING:
                self._name = name
        kind, _, number = self._name.partition("-")
        if not kind:
            return None
        index = self.reached.get(self._name, 0)
        self.reached[self._name] = index + 1
        if index != int(number):
            return None
        self.met[self._name] = request
        return (PASSING | LASTING)[kind](self.hub, request)
