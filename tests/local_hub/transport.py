"""HTTP/1.1 on a socket: reads a request, has the Hub answer it, sends the response."""

import socket
import struct
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.local_hub.messages import Request, Response

if TYPE_CHECKING:
    from tests.local_hub.hub import LocalHub


class Server(ThreadingHTTPServer):
    """One origin of the Hub, on a free port of the loopback address."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, hub: "LocalHub", origin: str) -> None:
        self.hub = hub
        self.origin = origin
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


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
        request = Request(self.server.origin, self.command, url.path, url.query, self.headers, self._body())
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

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

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
