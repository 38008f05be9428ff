"""Pushes that run beside training: in a thread of their own, and never in its way."""

import logging
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import get_token

from .push import PushError, refuse_secrets, send

logger = logging.getLogger(__name__)


class BackgroundPush:
    """Pushes folders to one repository while the program goes on.

    What fails is tried again as by `push_folder`, then logged and left: a later push sends what there is then, and not
    again what has arrived. Once the Hub has refused for good (no permission), nothing more is sent. The thread does not
    keep a program from ending.

    Args:
        repo_id: Where to push, as for `push_folder`.
        private: Whether a new repository is private.
        token: Access token. Defaults to the one of `HF_TOKEN` or of `hf auth login`.
    """

    def __init__(self, repo_id: str, *, private: bool | None = None, token: str | None = None) -> None:
        self.repo_id, self.private = repo_id, private
        self.refused = False
        self._token = token
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether a push is under way."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, folder: Path, places: Mapping[str, str | None], commit_message: str) -> None:
        """Pushes what is in a folder, after the push under way if there is one, then removes it.

        Args:
            folder: Holds the folders to push.
            places: Their names, each with its place in the repository, None for the top.
            commit_message: Title of the commits.
        """
        self._thread = threading.Thread(
            target=self._push, args=(folder, dict(places), commit_message, self._thread), name="push", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Waits until no push is under way."""
        if self._thread is not None:
            self._thread.join()

    def _push(self, folder: Path, places: dict[str, str | None], title: str, before: threading.Thread | None) -> None:
        if before is not None:
            before.join()
        try:
            for name, place in () if self.refused else places.items():
                refuse_secrets(folder / name, self._token or get_token())
                self._send(folder / name, place, title)
        except (PushError, ValueError, OSError) as error:
            self.refused = not getattr(error, "may_pass", isinstance(error, OSError))
            after = "nothing more is pushed before its end" if self.refused else "the next save is pushed again"
            logger.warning("%r did not reach %s: %s; training goes on, %s.", title, self.repo_id, error, after)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _send(self, folder: Path, place: str | None, title: str) -> None:
        send(folder, self.repo_id, private=self.private, token=self._token, commit_message=title, place=place)
