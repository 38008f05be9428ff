"""A request, a response, and the exception that becomes an error response."""

import json
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs


@dataclass
class Request:
    """One request, kept in `LocalHub.requests` with its outcome (`status`, and `sent` bytes of the body)."""

    origin: str  # "hub" or "cdn"
    method: str
    path: str  # still percent-encoded: a branch name may hold a slash
    query: str
    headers: Message
    body: bytes
    status: int = 0
    sent: int = 0

    @property
    def parameters(self) -> dict[str, list[str]]:
        return parse_qs(self.query)

    @property
    def token(self) -> str | None:
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        return value if kind == "Bearer" else None

    def json(self) -> Any:
        return json.loads(self.body)

    def __str__(self) -> str:
        return f"{self.origin} {self.method} {self.path}{'?' + self.query if self.query else ''} -> {self.status}"


@dataclass
class Response:
    """A status, headers and a body: bytes, or `length` bytes of a file from `start`; half of it is sent if it is `cut`."""

    status: int = 200
    body: bytes | Path = b""
    headers: dict[str, str] = field(default_factory=dict)
    start: int = 0
    length: int | None = None
    cut: bool = False

    @property
    def size(self) -> int:
        if self.length is not None:
            return self.length
        return self.body.stat().st_size if isinstance(self.body, Path) else len(self.body)

    @classmethod
    def of(cls, value: Any, status: int = 200, **headers: str) -> "Response":
        """`value` as JSON; header names are given with underscores for dashes."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return cls(status, json.dumps(value).encode(), {"Content-Type": "application/json", **named})


class RefusedError(Exception):
    """Becomes an error response as the Hub sends it: a message, and a code that clients act on."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        super().__init__(message)
        headers["X_Error_Message"] = message
        if code is not None:
            headers["X_Error_Code"] = code
        self.response = Response.of({"error": message}, status, **headers)
