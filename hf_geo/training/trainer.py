"""`GeoTrainer`: transformers' Trainer that builds the geometry-aware optimizers."""

import atexit
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
import transformers
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from hf_geo.checkpoints.compatibility import check_same_optimizer
from hf_geo.optim import list_optimizers
from hf_geo.optim.param_groups import undecayed_parameters
from hf_geo.subspaces import Subspace, SubspaceConfig

from .arguments import GeoTrainingArguments
from .averaging import WeightAverage, kind_of_average, swa_schedule
from .callbacks import EvaluationModeCallback, GeometryTelemetry, SetEpochCallback, use_evaluated_weights
from .checks import check_combination, check_shared_folder
from .loss import hand_loss_to_optimizer, mean_loss
from .methods import apply_module_settings
from .nonfinite import NonFiniteTrainingError, NonFiniteUpdates, remedy, weights_are_finite
from .norms import RECALIBRATION_SAMPLES, broadcast_buffers, keep_precision, norm_batches
from .optimizers import make_optimizer, make_schedule, optimizer_class
from .processes import choose_search, end_process_groups, unused_parameters_named
from .saving import CheckpointSaver
from .signals import StopOnSignal, protect_workers
from .subspaces import SubspaceTraining
from .updates import UpdateBatches

atexit.register(end_process_groups)  # here, because what a script registers later runs earlier


class GeoTrainer(transformers.Trainer):
    """A `transformers.Trainer` for which `args.optim` may name any of `hf_geo.optim.list_optimizers()`.

    The rest is transformers' own, with corrections for all optimizers:

    - An update's gradient is the mean over its samples (or tokens), however they are divided over micro-batches and
      processes; so is the logged loss.
    - Every process evaluates the network that the first one saves, and evaluations read every sample.
    - Norm layers and biases get no weight decay whatever they are called; each parameter group's learning rate is logged.
    - A checkpoint is complete or absent, and loaded whole, or refused where it is of another model or optimizer.
    - A signal to stop ends the run with a checkpoint (`StopOnSignal`), many non-finite updates end it (`NonFiniteUpdates`).

    Args:
        *args, **kwargs: As for `transformers.Trainer`; `args` are `GeoTrainingArguments`.
        subspace: Train a line, curve or simplex of networks: a `Subspace` attached to the model, or the settings of one
            whose points start around the model. Every batch is run at a drawn position, evaluations at the centre.

    Raises:
        TypeError: `args` are no `GeoTrainingArguments`.
        ValueError: Settings that contradict each other, such as a subspace with `model_init`, or milestones on a stream.
    """

    args: GeoTrainingArguments
    # So that transformers divides every loss, by the `current_gradient_accumulation_steps` that `training_step` sets.
    loss_is_scaled_for_ga = False

    def __init__(self, *args, subspace: Subspace | SubspaceConfig | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        check_combination(self, subspace)
        self._saver = CheckpointSaver(self)
        self._updates = UpdateBatches(self)
        self._micro_batch = 0  # its number within the update
        self.telemetry = GeometryTelemetry(self.args.log_geometry, self.accelerator.reduce)
        self.nonfinite = NonFiniteUpdates(self.accelerator.gather)
        self._average = WeightAverage(self.args) if kind_of_average(self.args) else None
        for callback in (self.telemetry, self.nonfinite, SetEpochCallback(), EvaluationModeCallback(), self._average):
            if callback:
                self.add_callback(callback)
        self._subspace_training = SubspaceTraining(self, subspace) if subspace else None
        self.subspace = self._subspace_training and self._subspace_training.subspace
        # What is evaluated and exported in place of the weights in training: a subspace's centre, or averages.
        self._derived_weights = self._subspace_training or self._average
        # transformers would multiply the loss by the number of processes, for models that divide by all items of an update.
        self.args.average_tokens_across_devices = False

    # Optimizer and schedule

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Builds the optimizer once, from `args.optim`, `args.learning_rate`, `args.weight_decay` and `args.optim_args`."""
        model, is_new = self.model if model is None else model, self.optimizer is None
        if is_new and self.args.optim in list_optimizers():
            samples = self.get_train_dataloader if self.train_dataset is not None else None
            grouping = {"geometry": self.args.geometry_groups, "decay_all": self.args.decay_all}
            self.optimizer = make_optimizer(self.args, model, samples=samples, **grouping)
        optimizer = super().create_optimizer(model)
        if is_new:
            apply_module_settings(optimizer, model, self.args)
        # An optimizer that accelerate has wrapped in an earlier `train` has the hook; DeepSpeed's placeholder is none.
        if isinstance(optimizer, torch.optim.Optimizer) and not isinstance(optimizer, AcceleratedOptimizer):
            optimizer.register_load_state_dict_pre_hook(check_same_optimizer)
        return optimizer

    @staticmethod
    def get_optimizer_cls_and_kwargs(args: GeoTrainingArguments, model: PreTrainedModel | None = None):
        """As in transformers, and for the optimizers of timm and torch."""
        return optimizer_class(args, model)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        """Builds the schedule once: one of `make_schedule`, else transformers' own."""
        if self.lr_scheduler is None:
            self.lr_scheduler = make_schedule(self, optimizer or self.optimizer, num_training_steps)
            self._created_lr_scheduler = self.lr_scheduler is not None  # so that the next `train` makes another
        if self.lr_scheduler is None and self.args.swa_lr is not None:
            scheduler = super().create_scheduler(num_training_steps, optimizer)
            self.lr_scheduler = swa_schedule(scheduler, self.args, num_training_steps)
        return super().create_scheduler(num_training_steps, optimizer)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters with weight decay: all but norm gains, norm shifts and biases, or all by `decay_all`."""
        undecayed = set() if self.args.decay_all else undecayed_parameters(model)
        return [name for name, _ in model.named_parameters() if name not in undecayed]

    def _get_dataloader(self, *args, is_training: bool = False, **kwargs) -> DataLoader:
        # Evaluations read every sample, and training no last batch of one that batch norms cannot use; transformers (5.24)
        # has `dataloader_drop_last` decide for both.
        given = self.args.dataloader_drop_last
        self.args.dataloader_drop_last = is_training and (given or self._updates.end_with_one_sample())
        try:
            return protect_workers(super()._get_dataloader(*args, is_training=is_training, **kwargs))
        finally:
            self.args.dataloader_drop_last = given

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """The micro-batches of the next update, and the number of its items on all processes (see `UpdateBatches`)."""
        return self._updates.collect(epoch_iterator, num_batches, device)

    # Training

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """Trains as `transformers.Trainer.train` does; a checkpoint to resume from must be whole, and of this model.

        Raises:
            IncompatibleCheckpointError: There is no such checkpoint.
            NonFiniteTrainingError: Too many updates in a row were not finite, or the run has ended with such weights.
            StoppedBySignal: The process got a signal to stop.
            UnusedParametersError: Under DDP, parameters had no part in the loss, although none was expected to.
        """
        check_shared_folder(self.args)
        checkpoint = self._saver.find(resume_from_checkpoint)
        if self._average:
            self._average.checkpoint = checkpoint
        choose_search(self)
        with StopOnSignal(self), unused_parameters_named():
            result = super().train(resume_from_checkpoint=checkpoint, **kwargs)
        if not weights_are_finite(self):
            raise NonFiniteTrainingError(f"Training has ended with weights that are not finite; {remedy(self.args)}")
        broadcast_buffers(self.model)
        self._saver.rotate_last()
        return result

    def training_step(self, model: nn.Module, inputs, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """One forward and backward pass; optimizers whose step depends on the loss get it."""
        if num_items_in_batch is not None:
            # The number that transformers divides the loss by; the same for all micro-batches, unless it is set here.
            self.current_gradient_accumulation_steps = self._updates.divisors[self._micro_batch]
        loss = super().training_step(model, inputs)
        self.nonfinite.add_loss(loss)
        hand_loss_to_optimizer(self, loss)
        self._micro_batch = 0 if self.accelerator.sync_gradients else self._micro_batch + 1
        return loss

    def compute_loss(self, model: nn.Module, inputs, return_outputs: bool = False, num_items_in_batch=None):
        """The mean loss over a batch's items; in training on a subspace, at drawn positions and with the regularizer."""
        compute = partial(mean_loss, self, super().compute_loss, model)
        if self._subspace_training is None or not model.training:
            return compute(inputs, return_outputs)
        return self._subspace_training.loss(compute, inputs, (self.state.global_step, self._micro_batch))

    def _get_grad_norm(self, *args, **kwargs) -> Tensor | float:
        norm = super()._get_grad_norm(*args, **kwargs)  # known only here
        self.nonfinite.end_update(norm if self.accelerator.scaler is None else None)
        return norm

    def _run_epoch(self, *args, **kwargs) -> None:
        # A run that had ended within an epoch, and is resumed: transformers (5.24) makes one update more before it stops.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Logs as transformers does, with measures of the optimizer and the subspace, and the count of non-finite updates."""
        if "learning_rate" in logs:
            nonfinite = {"nonfinite_steps": self.nonfinite.total} if self.nonfinite.total else {}
            points = self._subspace_training.measures() if self._subspace_training else {}
            logs = {**logs, **self.telemetry.collect(), **points, **nonfinite}
        super().log(logs, *args, **kwargs)

    # Evaluation

    def evaluation_loop(self, *args, **kwargs):
        """As in transformers, with `evaluation_weights`, and the first process's buffers and unrounded weights afterwards."""
        broadcast_buffers(self.model)
        with self.evaluation_weights(), keep_precision(self.model):
            return super().evaluation_loop(*args, **kwargs)

    def evaluation_weights(self) -> AbstractContextManager[None]:
        """Gives the model, inside the context, the weights that are evaluated: the centre's, or the averages."""
        use_evaluated_weights(self.optimizer)
        batches = partial(norm_batches, self, RECALIBRATION_SAMPLES)
        return self._derived_weights.for_evaluation(self.model, batches) if self._derived_weights else nullcontext()

    def finalize(self) -> None:
        """Gives the model its final weights for good: those of the subspace's centre, or the averages.

        Norm statistics are taken of all training samples (of a stream, of the first 2,048). A run with neither needs no call.
        """
        if self._derived_weights is not None:
            self._derived_weights.finalize(self.model, norm_batches(self))

    # Saving

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves as transformers does; a checkpoint holds the averages too, where the weights are averaged."""
        if _internal_call and self._average:
            self._saver.attempt(self._average.save, output_dir or self.args.output_dir, write=self.args.should_save)
        self._saver.attempt(super().save_model, output_dir, _internal_call)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        self._saver.write_model(super()._save, output_dir, state_dict)

    def _get_output_dir(self, trial) -> str:
        return self._saver.directory(super()._get_output_dir(trial))

    def _save_checkpoint(self, model: nn.Module, trial) -> None:
        self._saver.save(partial(super()._save_checkpoint, model, trial), run=self._get_output_dir(trial))

    # A disk that refuses one of these files must not end the process, while the others wait for it.

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        self._saver.attempt(super()._save_optimizer_and_scheduler, output_dir)

    def _save_scaler(self, output_dir: str) -> None:
        self._saver.attempt(super()._save_scaler, output_dir)

    def _save_rng_state(self, output_dir: str) -> None:
        self._saver.attempt(super()._save_rng_state, output_dir)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        # A checkpoint is pushed from its final place. Of a subspace, transformers would push control points as the model.
        if not self._saver.staging and self.subspace is None:
            super()._push_from_checkpoint(checkpoint_folder)

    def _load_best_model(self) -> None:
        if not self._saver.best_is_whole():
            self.state.best_model_checkpoint = None
            return
        super()._load_best_model()
        if self._average:
            self._average.load(self.state.best_model_checkpoint, self.model)
