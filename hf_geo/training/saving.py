"""How a Trainer saves: each checkpoint whole or not at all, in all processes alike; a disk that refuses stops nothing."""

import functools
import logging
import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch
from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import Trainer, TrainerState

from hf_geo.checkpoints.compatibility import UnfitCheckpoint
from hf_geo.checkpoints.disk import first_of_all, refusal
from hf_geo.checkpoints.store import STAGING, check_whole, checkpoints, fault, newest_whole, publish, rotate, tidy

logger = logging.getLogger(__name__)
_STATE = "trainer_state.json"


class WholeCheckpoints(Trainer):
    """A Trainer whose checkpoints are complete or not there (see `hf_geo.checkpoints.store`).

    transformers' own methods write into the staging folder, and when all processes have written, the first makes the
    checkpoint part of the run. Where a disk is full, read-only or over quota this is said in one sentence, training goes
    on, and the next save tries again.
    """

    _staged = False  # whether a checkpoint is being written aside

    def find_checkpoint(self, asked: str | bool | None) -> str | None:
        """The folder to resume from, checked by the first process for all; clears what a killed run has left.

        Args:
            asked: A checkpoint's folder, True for the newest whole one in the output folder, or None or False for none.

        Raises:
            UnfitCheckpoint: There is no whole checkpoint, or the one named is damaged.
        """
        if self.args.should_save and os.path.isdir(self.args.output_dir):
            tidy(self.args.output_dir)
        found: list = [None, None]
        if asked and self.is_world_process_zero():
            try:
                found[0] = str(newest_whole(self.args.output_dir) if asked is True else check_whole(asked))
            except UnfitCheckpoint as error:
                found[1] = str(error)
        if self.args.world_size > 1:
            broadcast_object_list(found)
        if found[1]:
            raise UnfitCheckpoint(found[1])
        return found[0]

    def _get_output_dir(self, trial) -> str:
        run = super()._get_output_dir(trial)
        return os.path.join(run, STAGING) if self._staged else run

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if not self._staged:  # it is pushed from its place
            super()._push_from_checkpoint(checkpoint_folder)

    def _save_checkpoint(self, model: nn.Module, trial) -> None:
        run, name = self._get_output_dir(trial), f"checkpoint-{self.state.global_step}"
        staged, final = os.path.join(run, STAGING, name), os.path.join(run, name)
        best = self.state.best_model_checkpoint
        failure = (
            first_of_all(refusal(lambda: os.makedirs(staged, exist_ok=True)))
            or first_of_all(self._write(model, trial))
            or first_of_all(refusal(lambda: self._publish(run, name)))
        )
        if failure:
            self._give_up(run, name, failure, best)
            return
        if self.args.push_to_hub:
            self._push_from_checkpoint(final)
        self._rotate(run, [final, self.state.best_model_checkpoint])

    def _rotate(self, run: str, keep: list[str | Path | None]) -> None:
        if self.args.should_save:
            failure = refusal(lambda: rotate(run, self.args.save_total_limit, filter(None, keep)))
            if failure:
                logger.warning("An old checkpoint in %r could not be removed: %s.", run, failure)

    def _write(self, model: nn.Module, trial) -> str | None:
        """Has transformers write into the staging folder; returns why this process's disk refused, if it did.

        A process goes on after a file that was refused, for it has a part in what the others still do together.
        """
        refused: list[str] = []

        def guarded(write: Callable) -> Callable:
            @functools.wraps(write)
            def attempt(*args, **kwargs):
                failure = refusal(lambda: write(*args, **kwargs))
                refused.extend([failure] if failure else [])

            return attempt

        save = super()._save_checkpoint
        self._staged = True
        try:
            with (
                patch.object(torch, "save", guarded(torch.save)),
                patch.object(self, "save_model", guarded(self.save_model)),
            ):
                failure = refusal(lambda: save(model, trial))
        finally:
            self._staged = False
        return next(iter(refused), failure)

    def _publish(self, run: str, name: str) -> None:
        state, staged = self.state, os.path.join(run, STAGING, name)
        if state.best_model_checkpoint == staged:
            state.best_model_checkpoint = os.path.join(run, name)
        if self.args.should_save:
            state.save_to_json(os.path.join(staged, _STATE))  # again: the checkpoint's place was not known
            # A pickle of the settings, which hold tokens; nothing reads it.
            Path(staged, "training_args.bin").unlink(missing_ok=True)
            publish(run, name)

    def _give_up(self, run: str, name: str, failure: str, best: str | None) -> None:
        """Removes what was written of a checkpoint, and forgets that it was the best."""
        if self.state.best_global_step == self.state.global_step:
            saved = TrainerState.load_from_json(os.path.join(best, _STATE)) if best else TrainerState()
            self.state.best_metric, self.state.best_global_step = saved.best_metric, saved.best_global_step
        self.state.best_model_checkpoint = best
        if self.args.should_save:
            refusal(lambda: tidy(run))  # a disk that does not even let go of files is tidied at the next start
            last = next(reversed(checkpoints(run)), None)
            logger.warning(
                "%s could not be saved in %r, because %s: %s, and %s.",
                name,
                run,
                failure,
                "training has ended"
                if self.control.should_training_stop
                else "training goes on, the next save tries again",
                f"{last.name} is the last complete one" if last else "there is no complete one yet",
            )

    def _run_epoch(self, *args, **kwargs) -> None:
        if self.state.global_step >= self.state.max_steps:
            # Resumed where it had ended: transformers would train one update more before it notices.
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _finalize_training(self, trial, *args, **kwargs):
        self._check_best()
        # With a limit of 1, transformers too keeps the best only, but a kill could leave half of another. What a kill has
        # kept from being removed goes as well.
        run, best = self._get_output_dir(trial), self.state.best_model_checkpoint
        alone = best and self.args.save_total_limit == 1
        self._rotate(run, [best] if alone else [best, *checkpoints(run)[-1:]])
        return super()._finalize_training(trial, *args, **kwargs)

    def _check_best(self) -> None:
        """Before all rests on the best checkpoint: is it whole?"""
        best = self.state.best_model_checkpoint
        if best and (self.args.load_best_model_at_end or self.args.save_total_limit == 1):
            problem = first_of_all(fault(best) if self.is_world_process_zero() else None)
            if problem:
                logger.warning(
                    "The best checkpoint %s is not used, because %s: the last weights are kept.",
                    Path(best).name,
                    problem,
                )
                self.state.best_model_checkpoint = None
