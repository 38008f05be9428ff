"""What a run pushes while it trains: at each save the network as it would be exported now, and checkpoints if asked."""

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback
from transformers.trainer_utils import HubStrategy

from hf_geo.checkpoints.disk import first_error_across_ranks, in_words, try_write

logger = logging.getLogger(__name__)
_ASIDE = "_push-"  # and the step: in a run's folder, a name that is not pushed with it


class Pusher(Protocol):
    """Who pushes in the background (`hf_geo.hub.background.BackgroundPush`)."""

    busy: bool

    def start(self, folder: Path, places: Mapping[str, str | None], commit_message: str) -> None: ...


class PushEachSave(TrainerCallback):
    """Hands over what is to be pushed after each checkpoint, by transformers' `hub_strategy`.

    "every_save" pushes the network, "checkpoint" also the checkpoint as `last-checkpoint`, "all_checkpoints" each of them
    under its name; unlike transformers', the network pushed is one that opens elsewhere, a subspace whole beside it. While
    a push is under way the next is left out, except with `hub_always_push`. What is pushed is put aside first, for a
    checkpoint may be removed at any time.

    Args:
        pusher: Who pushes.
        write: Exports the network into a folder, in all processes together.
    """

    def __init__(self, pusher: Pusher, write: Callable[[Path], None]) -> None:
        self.pusher, self.write = pusher, write

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        if state.is_world_process_zero:
            for left in Path(args.output_dir).glob(f"{_ASIDE}*"):  # by a run that was killed
                shutil.rmtree(left, ignore_errors=True)

    def on_save(self, args, state, control, **kwargs) -> None:
        checkpoint = Path(args.output_dir, f"checkpoint-{state.global_step}")
        aside = Path(args.output_dir, f"{_ASIDE}{state.global_step}")
        due = [checkpoint.is_dir() and not aside.exists() and (args.hub_always_push or not self.pusher.busy)]
        if args.world_size > 1:
            broadcast_object_list(due)
        if not due[0]:
            return
        first, places = state.is_world_process_zero, {"network": None}
        if args.hub_strategy == HubStrategy.CHECKPOINT:
            places[checkpoint.name] = "last-checkpoint"
        elif args.hub_strategy == HubStrategy.ALL_CHECKPOINTS:
            places[checkpoint.name] = checkpoint.name

        def put_aside() -> None:
            with torch.random.fork_rng(devices=[]):  # a run that pushes trains like one that does not
                self.write(aside / "network")
            if first and checkpoint.name in places:
                shutil.copytree(checkpoint, aside / checkpoint.name, copy_function=_link)

        failure = first_error_across_ranks(try_write(lambda: first and (aside / "network").mkdir(parents=True)))
        try:
            failure = failure or first_error_across_ranks(try_write(put_aside))
        except Exception as error:
            if args.world_size > 1:
                raise  # the other processes wait for this one's part of the network
            failure = in_words(error)
        if first and failure:
            shutil.rmtree(aside, ignore_errors=True)
            logger.warning("Update %d is not pushed, because %s; training goes on.", state.global_step, failure)
        elif first:
            self.pusher.start(aside, places, f"Training in progress, step {state.global_step}")


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)
