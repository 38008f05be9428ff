"""HTTP/1.1 on a socket: requests, responses, errors, and the server that has the Hub answer each request."""

import json
import socket
import struct
import traceback
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from tests.local_hub.hub import LocalHub


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


class Server(ThreadingHTTPServer):
    """One origin of the Hub, on a free port of the loopback address."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, hub: "LocalHub", origin: str) -> None:
        self.hub = hub
        self.origin = origin
        # As on the Hub, the CDN is another host: huggingface_hub 1.33 follows redirects of HEAD requests within one host.
        self.host = "localhost" if origin == "cdn" else "127.0.0.1"
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each response waits for the client's delayed acknowledgement

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:  # the client hung up, or a fault hook asked for a reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True

    def answer(self) -> None:
        hub, url = self.server.hub, urlsplit(self.path)
        request = Request(
            self.server.origin,
            self.command,
            url.path,
            url.query,
            self.headers,
            self.rfile.read(int(self.headers.get("Content-Length", 0))),
        )
        hub.requests.append(request)
        try:
            response = hub.answer(request)
        except ConnectionError:
            raise
        except Exception as error:  # a bug in the Hub itself, which `LocalHub.__exit__` raises in the test
            traceback.print_exc()
            hub.mistakes.append(error)
            response = Response.of({"error": repr(error)}, 500)
        self._send(request, response)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def _send(self, request: Request, response: Response) -> None:
        if response.cut:
            self._send_half(request, response)
            return
        request.status = response.status
        self.send_response(response.status)
        for name, value in {"Content-Length": str(response.size), **response.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if request.method == "HEAD" or response.size == 0:
            return
        request.sent = response.size
        if isinstance(response.body, Path):
            with response.body.open("rb") as stream:
                self.connection.sendfile(stream, response.start, response.size)
        else:
            self.wfile.write(response.body)

    def _send_half(self, request: Request, response: Response) -> None:
        """Sends half of the body, or of the headers if there is none, and then closes the connection."""
        self.close_connection = True
        body = response.body.read_bytes() if isinstance(response.body, Path) else response.body
        half = body[response.start :][: response.size // 2]
        if request.method == "HEAD" or not half:
            self.wfile.write(b"HTTP/1.1 200")
            return
        self.send_response(response.status)
        for name, value in {"Content-Length": str(response.size), **response.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(half)

    def log_message(self, format: str, *arguments: object) -> None:
        """Keeps quiet: `LocalHub.requests` is the log."""
