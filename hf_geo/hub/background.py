"""Pushes after each save of a run, in a background thread whose failures do not end the training."""

import logging
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list
from huggingface_hub import get_token
from transformers import TrainerCallback
from transformers.trainer_utils import HubStrategy

from hf_geo.checkpoints.disk import first_error_across_ranks, try_write
from hf_geo.errors import in_words

from .contents import refuse_secrets
from .push import PushError, send

logger = logging.getLogger(__name__)
_SNAPSHOT = "_push-"  # and the step: in a run's folder, a name that is not pushed with it


class BackgroundPush:
    """Pushes folders to one repository while the program goes on.

    A push that fails is tried again as by `push_folder`, then logged and given up: a later push sends what there is then,
    and not again what has arrived. Once the Hub has refused for good (no permission), nothing more is sent. The thread does
    not keep a program from ending.

    Args:
        repo_id: Where to push, as for `push_folder`.
        private: Whether a new repository is private.
        token: Access token. Defaults to the one of `HF_TOKEN` or of `hf auth login`.
    """

    def __init__(self, repo_id: str, *, private: bool | None = None, token: str | None = None) -> None:
        self.repo_id, self.private = repo_id, private
        self.is_refused = False
        self._token = token
        self._thread: threading.Thread | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a push is under way."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, folder: Path, paths_in_repo: Mapping[str, str | None], commit_message: str) -> None:
        """Pushes the folders inside a folder, after the push under way if there is one, then removes it.

        Args:
            folder: Holds the folders to push.
            paths_in_repo: Their names, each with its path in the repository, None for the top.
            commit_message: Title of the commits.
        """
        self._thread = threading.Thread(
            target=self._push,
            args=(folder, dict(paths_in_repo), commit_message, self._thread),
            name="push",
            daemon=True,
        )
        self._thread.start()

    def wait(self) -> None:
        """Waits until no push is under way."""
        if self._thread is not None:
            self._thread.join()

    def _push(
        self, folder: Path, paths_in_repo: dict[str, str | None], title: str, earlier: threading.Thread | None
    ) -> None:
        if earlier is not None:
            earlier.join()
        options = {"private": self.private, "token": self._token, "commit_message": title}
        try:
            for name, path in () if self.is_refused else paths_in_repo.items():
                refuse_secrets(folder / name, self._token or get_token())
                send(folder / name, self.repo_id, path_in_repo=path, **options)
        except (PushError, ValueError, OSError) as error:
            self.is_refused = not getattr(error, "may_pass", isinstance(error, OSError))
            after = "nothing more is pushed before its end" if self.is_refused else "the next save is pushed again"
            logger.warning("%r did not reach %s: %s; training goes on, %s.", title, self.repo_id, error, after)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class PushEachSave(TrainerCallback):
    """Pushes the network, and checkpoints if asked, after each save, by transformers' `hub_strategy`.

    "every_save" pushes the network, "checkpoint" also the checkpoint as `last-checkpoint`, "all_checkpoints" each checkpoint
    under its name. Unlike transformers' own, the network that is pushed opens elsewhere, with a subspace whole beside it.
    While a push is under way the next is left out, except with `hub_always_push`. The push works on a snapshot, because a
    checkpoint may be removed at any time.

    Args:
        pusher: Pushes the snapshots.
        write: Exports the network into a folder, in all processes together.
    """

    def __init__(self, pusher: BackgroundPush, write: Callable[[Path], None]) -> None:
        self.pusher, self.write = pusher, write

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        if state.is_world_process_zero:
            for left in Path(args.output_dir).glob(f"{_SNAPSHOT}*"):  # by a run that was killed
                shutil.rmtree(left, ignore_errors=True)

    def on_save(self, args, state, control, **kwargs) -> None:
        checkpoint = Path(args.output_dir, f"checkpoint-{state.global_step}")
        snapshot = Path(args.output_dir, f"{_SNAPSHOT}{state.global_step}")
        is_due = [checkpoint.is_dir() and not snapshot.exists() and (args.hub_always_push or not self.pusher.is_busy)]
        if args.world_size > 1:
            broadcast_object_list(is_due)
        if not is_due[0]:
            return
        paths_in_repo = {"network": None}
        if args.hub_strategy == HubStrategy.CHECKPOINT:
            paths_in_repo[checkpoint.name] = "last-checkpoint"
        elif args.hub_strategy == HubStrategy.ALL_CHECKPOINTS:
            paths_in_repo[checkpoint.name] = checkpoint.name
        is_first = state.is_world_process_zero
        copied = checkpoint if is_first and checkpoint.name in paths_in_repo else None
        try:
            failure = self._write_snapshot(snapshot, copied, makes_folder=is_first)
        except Exception as error:
            if args.world_size > 1:
                raise  # the other processes wait for this one's part of the network
            failure = in_words(error)
        if is_first and failure:
            shutil.rmtree(snapshot, ignore_errors=True)
            logger.warning("Update %d is not pushed, because %s; training goes on.", state.global_step, failure)
        elif is_first:
            self.pusher.start(snapshot, paths_in_repo, f"Training in progress, step {state.global_step}")

    def _write_snapshot(self, folder: Path, checkpoint: Path | None, makes_folder: bool) -> str | None:
        """Exports the network and copies a checkpoint; every process calls this. Returns the disk's refusal, if any."""

        def write() -> None:
            with torch.random.fork_rng(devices=[]):  # a run that pushes trains like one that does not
                self.write(folder / "network")
            if checkpoint is not None:
                shutil.copytree(checkpoint, folder / checkpoint.name, copy_function=_link)

        failure = first_error_across_ranks(try_write(lambda: makes_folder and (folder / "network").mkdir(parents=True)))
        return failure or first_error_across_ranks(try_write(write))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)
