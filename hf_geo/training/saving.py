"""How a Trainer saves: each checkpoint complete or absent, on all processes; a disk that refuses does not end the run."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from accelerate.utils import broadcast_object_list
from safetensors.torch import save_model as save_weights
from torch import Tensor
from transformers import PreTrainedModel, Trainer, TrainerState

from hf_geo.checkpoints.compatibility import IncompatibleCheckpointError, check_same_model
from hf_geo.checkpoints.disk import first_error_across_ranks, try_write
from hf_geo.checkpoints.listing import list_checkpoints
from hf_geo.checkpoints.store import STAGING, check_whole, fault, newest_whole, publish, rotate, tidy

from .averaging import check_same_average
from .callbacks import use_evaluated_weights
from .nonfinite import weights_are_finite
from .norms import broadcast_buffers

logger = logging.getLogger(__name__)
_STATE = "trainer_state.json"


class CheckpointSaver:
    """Writes a Trainer's checkpoints into the staging directory, and publishes those that all processes have written.

    Where a disk is full, read-only or over quota, a warning says so, training goes on, and the next save tries again.

    Args:
        trainer: The Trainer. Its `_save_checkpoint` calls `save`, and its methods that write files call `attempt`.

    Attributes:
        staging: Whether a checkpoint is being written.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.staging = False
        self._failure: str | None = None

    def directory(self, run: str) -> str:
        """The folder in which transformers writes a checkpoint of the run's directory `run`."""
        return os.path.join(run, STAGING) if self.staging else run

    def attempt(self, write: Callable, /, *args, **kwargs) -> None:
        """Writes a part of a checkpoint; remembers a disk's refusal, because the other processes wait for this one.

        Outside of a checkpoint the refusal is raised.
        """
        if not self.staging:
            write(*args, **kwargs)
            return
        failure = try_write(lambda: write(*args, **kwargs))
        self._failure = self._failure or failure

    def save(self, write: Callable[[], None], run: str) -> None:
        """Saves the checkpoint of the present update, if its weights are finite; every process takes part.

        Args:
            write: Writes it into `directory(run)`.
            run: The run's directory.
        """
        state, args = self.trainer.state, self.trainer.args
        if not weights_are_finite(self.trainer):
            logger.warning(
                "No checkpoint of update %d: its weights are not finite. Earlier ones stay.", state.global_step
            )
            return
        use_evaluated_weights(self.trainer.optimizer)
        broadcast_buffers(self.trainer.model)  # so that this run goes on as a resumed one would
        name = f"checkpoint-{state.global_step}"
        best = state.best_model_checkpoint
        failure = (
            first_error_across_ranks(try_write(lambda: os.makedirs(os.path.join(run, STAGING, name), exist_ok=True)))
            or first_error_across_ranks(self._write(write))
            or first_error_across_ranks(try_write(lambda: self._publish(run, name)))
        )
        if failure:
            self._give_up(run, name, failure, best)
            return
        final = os.path.join(run, name)
        if args.push_to_hub:
            self.trainer._push_from_checkpoint(final)
        self._rotate(run, [final, state.best_model_checkpoint])

    def write_model(self, write: Callable, output_dir: str | None, state_dict: dict | None) -> None:
        """Writes the model by transformers' `_save`, but a `PreTrainedModel`'s checkpoint under the model's own names.

        transformers (5.24) saves some models (a ViT, say) under the older names they have on the Hub, and does not convert
        them back where it loads a checkpoint to resume from, or the best one: it leaves the rest of the weights as they are.
        """
        trainer = self.trainer
        if not (self.staging and isinstance(trainer.model, PreTrainedModel)):
            write(output_dir, state_dict)
        elif trainer.args.should_save:
            trainer.model.save_pretrained(output_dir, state_dict=state_dict, save_original_format=False)
            if trainer.args.process_index > 0:  # where `save_pretrained` (transformers 5.24) leaves out the weights
                save_weights(trainer.model, os.path.join(output_dir, "model.safetensors"), metadata={"format": "pt"})
            if trainer.processing_class is not None:
                trainer.processing_class.save_pretrained(output_dir)

    def rotate_last(self) -> None:
        """Removes the checkpoint too many that a kill between saving and rotating has left."""
        run, state = self.trainer.args.output_dir, self.trainer.state
        self._rotate(run, [state.best_model_checkpoint, os.path.join(run, f"checkpoint-{state.global_step}")])

    def _rotate(self, run: str, keep: list[str | Path | None]) -> None:
        """Removes old checkpoints beyond `save_total_limit`, and none of those to keep."""
        if self.trainer.args.should_save:
            failure = try_write(lambda: rotate(run, self.trainer.args.save_total_limit, filter(None, keep)))
            if failure:
                logger.warning("An old checkpoint in %r could not be removed: %s.", run, failure)

    def find(self, requested: str | bool | None) -> str | None:
        """Finds the checkpoint to resume from, checked by the first process for all; clears the leftovers of a killed run.

        Args:
            requested: A checkpoint's folder, True for the newest whole one in the output folder, None or False for none.

        Raises:
            IncompatibleCheckpointError: There is no whole checkpoint, or the one named is damaged or of another model.
        """
        args = self.trainer.args
        if args.should_save and os.path.isdir(args.output_dir):
            tidy(args.output_dir)
        found: list = [None, None]
        if requested and self.trainer.is_world_process_zero():
            try:
                found[0] = str(newest_whole(args.output_dir) if requested is True else check_whole(requested))
            except IncompatibleCheckpointError as error:
                found[1] = str(error)
        if args.world_size > 1:
            broadcast_object_list(found)
        if found[1]:
            raise IncompatibleCheckpointError(found[1])
        # With `save_on_each_node`, every machine resumes from a checkpoint of its own.
        elsewhere = found[0] and args.should_save and args.process_index > 0
        problem = first_error_across_ranks(fault(found[0]) if elsewhere else None)
        if problem:
            raise IncompatibleCheckpointError(
                f"The checkpoint {found[0]!r} of another machine cannot be used, because {problem}."
            )
        if found[0]:
            check_same_model(self.trainer.model, found[0])
            check_same_average(found[0], args)
        return found[0]

    def best_is_whole(self) -> bool:
        """Whether the best checkpoint can be loaded; a warning says why where it cannot."""
        best = self.trainer.state.best_model_checkpoint
        problem = first_error_across_ranks(fault(best) if self.trainer.is_world_process_zero() else None)
        if problem:
            logger.warning(
                "The best checkpoint %s is not used, because %s: the last weights are kept.", Path(best).name, problem
            )
        return problem is None

    def _write(self, write: Callable[[], None]) -> str | None:
        self.staging, self._failure = True, None
        try:
            failure = try_write(write)
        finally:
            self.staging = False
        return self._failure or failure

    def _publish(self, run: str, name: str) -> None:
        state, staged = self.trainer.state, os.path.join(run, STAGING, name)
        if state.best_model_checkpoint == staged:
            state.best_model_checkpoint = os.path.join(run, name)
        if self.trainer.args.should_save:
            state.save_to_json(os.path.join(staged, _STATE))  # again, with the checkpoint's final place
            # A pickle of the settings, with their tokens, that nothing reads.
            Path(staged, "training_args.bin").unlink(missing_ok=True)
            publish(run, name)

    def _give_up(self, run: str, name: str, failure: str, best: str | None) -> None:
        """Removes the files of a failed checkpoint, restores the best one before it, and warns."""
        state = self.trainer.state
        if state.best_global_step == state.global_step:
            saved = TrainerState.load_from_json(os.path.join(best, _STATE)) if best else TrainerState()
            state.best_metric, state.best_global_step = saved.best_metric, saved.best_global_step
        state.best_model_checkpoint = best
        if self.trainer.args.should_save:
            try_write(lambda: tidy(run))  # a disk that refuses this too is tidied at the next start
            last = next(reversed(list_checkpoints(run)), None)
            logger.warning(
                "%s could not be saved in %r, because %s: %s, and %s.",
                name,
                run,
                failure,
                "training has ended"
                if self.trainer.control.should_training_stop
                else "training goes on, the next save tries again",
                f"{last.name} is the last complete one" if last else "there is no complete one yet",
            )


def gather_weights(trainer: Trainer) -> dict[str, Tensor]:
    """Gathers the whole weights of the plain network; with shards, every process takes part.

    Args:
        trainer: A `GeoTrainer`.
    """
    if trainer.subspace:
        return trainer.subspace.folded_state_dict()
    state_dict = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return {name.replace("_orig_mod.", ""): tensor for name, tensor in state_dict.items()}  # where it is compiled
