"""The Hub as tests use it: addresses, accounts, a log of requests, a hook for faults, and a way to run clients."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.local_hub import api
from tests.local_hub.access import Account
from tests.local_hub.http import Request, Response, Server
from tests.local_hub.store import File, Store
from tests.paths import REPOSITORY, SHARED


class LocalHub:
    """A Hub on two ports of this machine, alive inside a `with` block.

    `write_token` and `read_token` are ada's, who belongs to the organisation `analytical-society`; `other_token` is
    bob's. `requests` holds every request in order of arrival. `fault`, if set, is called with each request before the
    Hub responds: it may return a `Response` to send instead, sleep, or raise `ConnectionResetError` to reset the connection.

    Args:
        folder: An empty folder for pushed files and the clients' caches.
        seeds: Read-only repositories, `{models,datasets}/<org>/<name>`. Defaults to the real data sets of `shared/hub`.
    """

    # Shaped like real tokens, so that checks for leaked tokens find them.
    write_token = "hf_" + "AdaMayWrite" * 3 + "A"
    read_token = "hf_" + "AdaMayRead0" * 3 + "A"
    other_token = "hf_" + "BobMayWrite" * 3 + "A"

    def __init__(self, folder: Path, seeds: Path = SHARED / "hub") -> None:
        self.folder = folder
        self.store = Store(folder / "store", seeds)
        self.accounts = {
            self.write_token: Account("ada", "write", ("analytical-society",)),
            self.read_token: Account("ada", "read", ("analytical-society",)),
            self.other_token: Account("bob", "write"),
        }
        self.fault: Callable[[Request], Response | None] | None = None
        self.requests: list[Request] = []
        self.mistakes: list[Exception] = []
        self.shared: dict[str, File] = {}  # files that the CDN serves, by SHA-256
        self._lock = threading.Lock()
        self._servers = [Server(self, "hub"), Server(self, "cdn")]
        self.endpoint, self.cdn = (server.url for server in self._servers)

    def __enter__(self) -> "LocalHub":
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
        if self.mistakes:
            raise self.mistakes[0]

    def answer(self, request: Request) -> Response:
        """Responds to a request, or injects a fault."""
        response = self.fault(request) if self.fault else None
        if response is None:
            with self._lock:
                response = api.answer(self, request)
        return response

    def environment(self, token: str | None = None, **changes: str) -> dict[str, str]:
        """Returns environment variables with which a client process uses this Hub and nothing else."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
        own = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.folder / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(REPOSITORY),
        }
        return inherited | own | ({"HF_TOKEN": token} if token else {}) | changes

    def run(
        self, program: str | Sequence[str | Path], *, token: str | None = None, check: bool = True, **changes: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs a client in a Python process of its own, in an empty folder.

        Args:
            program: Python code, or the arguments to `python` (a script's path, or `-m`, and its arguments).
            token: Token that the client is logged in with; none by default.
            check: Fail the test, showing what was printed, if the exit status is not 0.
            changes: Environment variables to set on top.
        """
        arguments = ["-c", program] if isinstance(program, str) else list(program)
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            env=self.environment(token, **changes),
            cwd=work,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if check and done.returncode != 0:
            requests = "\n".join(map(str, self.requests[-20:]))
            raise AssertionError(f"exit {done.returncode}\n{done.stdout}\n{done.stderr}\nlast requests:\n{requests}")
        return done
