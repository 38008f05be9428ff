"""Ends an action at every instant at which it touches files."""

import sys
from collections.abc import Callable, Iterator


class Crash(BaseException):
    """Stands for the end of the process: nothing after it runs."""


class Crashing:
    """Ends what is done inside before its n-th operation on files; `operations` counts them."""

    def __init__(self) -> None:
        self.left: int | None = None
        sys.addaudithook(self._hook)

    def _hook(self, event: str, _: tuple) -> None:
        if self.left is not None and event in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link"):
            self.left -= 1
            if self.left < 0:
                raise Crash

    def instants(self, prepare: Callable[[], object], action: Callable[[], object]) -> Iterator[int]:
        """Does it again and again, each time ended one operation later, until it comes to its end."""
        for instant in range(10_000):
            prepare()
            if self.runs(action, instant):
                return
            yield instant

    def runs(self, action: Callable[[], object], operations: int) -> bool:
        """Whether it comes to its end before so many operations on files."""
        self.left = operations
        try:
            action()
        except Crash:
            return False
        finally:
            self.left = None
        return True


CRASHING = Crashing()
