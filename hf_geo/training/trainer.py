"""`GeoTrainer`: transformers' Trainer that builds the geometry-aware optimizers."""

import logging
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
import transformers
from accelerate.optimizer import AcceleratedOptimizer
from safetensors.torch import save_model as save_weights
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel
from transformers.trainer_utils import has_length

from hf_geo.checkpoints.compatibility import check_same_model, check_same_optimizer
from hf_geo.optim import get_method, list_optimizers
from hf_geo.optim.param_groups import undecayed_parameters
from hf_geo.subspaces import Subspace, SubspaceConfig

from .arguments import GeoTrainingArguments
from .averaging import WeightAverage, check_same_average, kind_of_average
from .baselines import BASELINES, baseline_cls_and_kwargs
from .callbacks import GeometryTelemetry, SetEpochCallback
from .checks import check_combination, check_shared_folder
from .loaders import make_loader
from .loss import hand_over_loss
from .nonfinite import NonFiniteTrainingError, NonFiniteUpdates, all_finite, remedy
from .norms import RECALIBRATION_SAMPLES, broadcast_buffers, keep_precision, some_samples
from .optimizers import make_optimizer
from .saving import CheckpointSaver
from .schedules import milestone_schedule, swa_schedule
from .signals import StopOnSignal
from .subspaces import SubspaceTraining
from .updates import UpdateBatches

logger = logging.getLogger(__name__)
_SCALED = "loss_is_scaled_for_ga"


class GeoTrainer(transformers.Trainer):
    """A `transformers.Trainer` for which `args.optim` may name any of `hf_geo.optim.list_optimizers()`.

    The rest is transformers' own, with corrections for all optimizers:

    - An update's gradient is the mean over its samples (or tokens), however they are divided over micro-batches and
      processes; so is the logged loss.
    - Every process evaluates the network that the first one saves, and evaluations read every sample.
    - Norm layers and biases get no weight decay whatever they are called; each parameter group's learning rate is logged.
    - A checkpoint is complete or absent, and loaded whole, or refused where it is of another model or optimizer.
    - A signal to stop ends the run with a checkpoint (`StopOnSignal`), and so does a row of updates that are not finite,
      without one (`NonFiniteUpdates`).

    Args:
        *args, **kwargs: As for `transformers.Trainer`; `args` are `GeoTrainingArguments`.
        subspace: Train a line, curve or simplex of networks: a `Subspace` attached to the model, or the settings of one
            whose points start around the model. Every batch is run at a drawn position, evaluations at the centre.

    Raises:
        TypeError: `args` are no `GeoTrainingArguments`.
        ValueError: Settings that contradict each other, such as a subspace with `model_init`, or milestones on a stream.
    """

    args: GeoTrainingArguments
    loss_is_scaled_for_ga = False  # transformers divides every loss, by what `training_step` says

    def __init__(self, *args, subspace: Subspace | SubspaceConfig | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        check_combination(self, subspace)
        self.telemetry = GeometryTelemetry(layers=self.args.log_geometry)
        self.nonfinite = NonFiniteUpdates(self.accelerator.gather)
        self._average = WeightAverage(self.args) if kind_of_average(self.args) else None
        for callback in (self.telemetry, self.nonfinite, SetEpochCallback(), self._average):
            if callback:
                self.add_callback(callback)
        if isinstance(subspace, SubspaceConfig):
            subspace = Subspace.attach(self.model, subspace, seed=self.args.seed)
        self.subspace = subspace
        self._on_subspace = subspace and SubspaceTraining(subspace, self.args.seed, self.args.process_index)
        self._stand_in = self._on_subspace or self._average  # what is evaluated in place of the weights in training
        self._saver = CheckpointSaver(self)
        self._updates = UpdateBatches(self)
        self._micro_batch = 0
        # Losses of models that do not divide by the number of items would be multiplied by the processes.
        self.args.average_tokens_across_devices = False
        if subspace and subspace.config.num_samples > 1 and self.args.ddp_broadcast_buffers is None:
            # DDP would overwrite buffers between the forwards of one backward.
            self.accelerator.ddp_handler.broadcast_buffers = False

    # Optimizer and schedule

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Builds the optimizer once, from `args.optim`, `args.learning_rate`, `args.weight_decay` and `args.optim_args`."""
        if self.optimizer is None and self.args.optim in list_optimizers():
            model = self.model if model is None else model
            measure = self.args.geometry_groups == "auto" and self.train_dataset is not None
            batches = self.get_train_dataloader() if measure and get_method(self.args.optim).geometry else None
            self.optimizer = make_optimizer(self.args, model, geometry=self.args.geometry_groups, batches=batches)
        optimizer = super().create_optimizer(model)
        # What an earlier `train` had accelerate wrap is checked already; the stand-in of DeepSpeed is no optimizer.
        if isinstance(optimizer, torch.optim.Optimizer) and not isinstance(optimizer, AcceleratedOptimizer):
            optimizer.register_load_state_dict_pre_hook(check_same_optimizer)
        return optimizer

    @staticmethod
    def get_optimizer_cls_and_kwargs(args: GeoTrainingArguments, model: PreTrainedModel | None = None):
        """As in transformers, and for the baselines it has no name for."""
        if args.optim in BASELINES:
            return baseline_cls_and_kwargs(args)
        return transformers.Trainer.get_optimizer_cls_and_kwargs(args, model)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        """Builds the schedule once: a step schedule where `args.milestones` are given, else transformers' own."""
        if self.lr_scheduler is None and self.args.milestones:
            updates = math.ceil(len(self.get_train_dataloader()) / self.args.gradient_accumulation_steps)
            optimizer = optimizer or self.optimizer
            self.lr_scheduler = milestone_schedule(optimizer, self.args, updates, num_training_steps)
            self._created_lr_scheduler = True  # so that the next `train` makes another
        made = self.lr_scheduler is None
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        if made and self.args.swa_lr is not None:
            scheduler = self.lr_scheduler = swa_schedule(scheduler, self.args, num_training_steps)
        return scheduler

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters that weight decay applies to: all but norm gains, norm shifts and biases."""
        undecayed = undecayed_parameters(model)
        return [name for name, _ in model.named_parameters() if name not in undecayed]

    # Data

    def get_train_dataloader(self) -> DataLoader:
        """As in transformers, without a last batch of one sample where batch norms need two."""
        drop_last = self.args.dataloader_drop_last or self._updates.end_with_one_sample()
        return make_loader(super().get_train_dataloader, self.args, drop_last=drop_last)

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None) -> DataLoader:
        """As in transformers, with every sample also where `dataloader_drop_last` is set, which is for training."""
        return make_loader(super().get_eval_dataloader, self.args, eval_dataset, drop_last=False)

    def get_test_dataloader(self, test_dataset: Dataset) -> DataLoader:
        """As `get_eval_dataloader`."""
        return make_loader(super().get_test_dataloader, self.args, test_dataset, drop_last=False)

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """The micro-batches of the next update, and the number of its items on all processes (see `UpdateBatches`)."""
        return self._updates.collect(epoch_iterator, num_batches, device)

    # Training

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """Trains as `transformers.Trainer.train` does; a checkpoint to resume from must be whole, and of this model.

        Raises:
            IncompatibleCheckpointError: There is no such checkpoint.
            NonFiniteTrainingError: Too many updates in a row were not finite, or the run has ended with such weights.
            Stopped: The process got a signal to stop.
        """
        check_shared_folder(self.args)
        checkpoint = self._saver.find(resume_from_checkpoint)
        if checkpoint:
            check_same_model(self.model, checkpoint)
            check_same_average(checkpoint, self.args)
        if self._average:
            self._average.checkpoint = checkpoint
        with StopOnSignal(self):
            result = super().train(resume_from_checkpoint=checkpoint, **kwargs)
        if not self._weights_are_finite():
            raise NonFiniteTrainingError(f"Training has ended with weights that are not finite; {remedy(self.args)}")
        broadcast_buffers(self.model)
        # What a kill has kept from being removed goes now.
        last = os.path.join(self.args.output_dir, f"checkpoint-{self.state.global_step}")
        self._saver.rotate(self.args.output_dir, [self.state.best_model_checkpoint, last])
        return result

    def training_step(self, model: nn.Module, inputs, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """One forward and backward pass, whose loss the optimizer is told where its step depends on it."""
        if num_items_in_batch is not None:  # of the whole update, for which transformers divides the loss by this
            self.current_gradient_accumulation_steps = self._updates.divisors[self._micro_batch]
        loss = super().training_step(model, inputs)
        self.nonfinite.add_loss(loss)
        hand_over_loss(self, loss)
        self._micro_batch = 0 if self.accelerator.sync_gradients else self._micro_batch + 1
        return loss

    def compute_loss(self, model: nn.Module, inputs, return_outputs: bool = False, num_items_in_batch=None):
        """The mean loss over a batch's items; in training on a subspace, at drawn positions and with the regularizer.

        Also where a model or `compute_loss_func` divides by the number of items: it gets the batch's own.
        """
        if self._on_subspace is None or not model.training:
            return self._mean_loss(model, inputs, return_outputs)
        key = (self.state.global_step, self._micro_batch)
        loss = self._on_subspace.loss(partial(self._mean_loss, model), inputs, key, self._updates.count)
        return loss + self._on_subspace.penalty(key)

    def _mean_loss(self, model: nn.Module, inputs, return_outputs: bool = False):
        items, training = torch.as_tensor(self._updates.count(inputs)), model.training
        given = self.args.n_gpu <= 1 and ("labels" in inputs or "shift_labels" in inputs)
        number = items.clamp(min=1) if given else None
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=number)
        loss = torch.where(items.to(loss.device) > 0, loss, 0.0)  # the mean over no items is no number
        if training and self.compute_loss_func is not None and not hasattr(transformers.Trainer, _SCALED):
            # transformers 5.17 never divides the loss of a `compute_loss_func`.
            loss = loss / self.current_gradient_accumulation_steps
        return (loss, outputs) if return_outputs else loss

    def _get_grad_norm(self, *args, **kwargs) -> Tensor | float:
        # The only place that knows the norm of an update's gradient.
        norm = super()._get_grad_norm(*args, **kwargs)
        self.nonfinite.end_update(norm if self.accelerator.scaler is None else None)
        return norm

    def _run_epoch(self, *args, **kwargs) -> None:
        # A run that is resumed where it had ended: transformers would train one update more before it notices.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Logs as transformers does, with what the optimizer did since the last log and how many updates were not finite."""
        if "learning_rate" in logs:
            nonfinite = {"nonfinite_steps": self.nonfinite.total} if self.nonfinite.total else {}
            logs = {**logs, **self.telemetry.collect(), **nonfinite}
        super().log(logs, *args, **kwargs)

    # Evaluation

    def evaluation_loop(self, *args, **kwargs):
        """As in transformers; a subspace is evaluated at its centre, and averaged weights in place of the present ones.

        All processes evaluate the network that the first one would save. With `bf16_full_eval` or `fp16_full_eval` the
        model has its own precision again afterwards.
        """
        broadcast_buffers(self.model)
        with self.evaluation_weights(), keep_precision(self.model):
            return super().evaluation_loop(*args, **kwargs)

    def evaluation_weights(self) -> AbstractContextManager[None]:
        """While it is entered, the model is the one that is evaluated: at the centre, or with the averages."""
        if self._stand_in is None:
            return nullcontext()
        return self._stand_in.evaluated(self.model, lambda: self._norm_loader(RECALIBRATION_SAMPLES))

    def settle(self) -> None:
        """Ends training on a subspace or with averaged weights; nothing to do for a run without either.

        The model stays at the centre or has the averages from now on, with norm statistics of all training samples (of a
        stream, of the first 2,048).
        """
        if self._stand_in is not None:
            known = has_length(self.train_dataset)
            samples = len(self.train_dataset) if known else RECALIBRATION_SAMPLES
            self._stand_in.settle(self.model, self._norm_loader(samples))

    def _norm_loader(self, samples: int) -> Iterable:
        loader = self.get_test_dataloader(some_samples(self.train_dataset, samples))
        return loader if has_length(loader) else iter(loader)

    # Saving

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves as transformers does; a checkpoint holds the averages too, where the weights are averaged."""
        if _internal_call and self._average:
            folder = output_dir or self.args.output_dir
            self._saver.attempt(os.makedirs, folder, exist_ok=True)
            self._saver.attempt(self._average.save, folder, write=self.args.should_save)
        self._saver.attempt(super().save_model, output_dir, _internal_call)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        # Under a model's older names on the Hub, where it has such (a ViT's), transformers takes from a checkpoint only
        # what happens to be called the same: it resumes, or goes back to the best, with the rest left.
        if not (self._saver.staging and isinstance(self.model, PreTrainedModel)):
            return super()._save(output_dir, state_dict)
        if self.args.should_save:
            self.model.save_pretrained(output_dir, state_dict=state_dict, save_original_format=False)
            if self.args.process_index > 0:  # of which `save_pretrained` (transformers 5.24) takes no weights
                save_weights(self.model, os.path.join(output_dir, "model.safetensors"), metadata={"format": "pt"})
            if self.processing_class is not None:
                self.processing_class.save_pretrained(output_dir)

    def _get_output_dir(self, trial) -> str:
        return self._saver.directory(super()._get_output_dir(trial))

    def _save_checkpoint(self, model: nn.Module, trial) -> None:
        if not self._weights_are_finite():
            logger.warning(
                "No checkpoint of update %d: its weights are not finite. Those there are stay.", self.state.global_step
            )
            return
        broadcast_buffers(self.model)  # so that this run goes on with what a resumed one would
        self._saver.save(partial(super()._save_checkpoint, model, trial), run=self._get_output_dir(trial))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        self._saver.attempt(super()._save_optimizer_and_scheduler, output_dir)

    def _save_scaler(self, output_dir: str) -> None:
        self._saver.attempt(super()._save_scaler, output_dir)

    def _save_rng_state(self, output_dir: str) -> None:
        self._saver.attempt(super()._save_rng_state, output_dir)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if not self._saver.staging:  # it is pushed from its place
            super()._push_from_checkpoint(checkpoint_folder)

    def _load_best_model(self) -> None:
        if not self._saver.best_is_whole():
            self.state.best_model_checkpoint = None
            return
        super()._load_best_model()
        if self._average:
            self._average.load(self.state.best_model_checkpoint, self.model)

    def _weights_are_finite(self) -> bool:
        found = all_finite(self.model_wrapped).to(self.args.device)
        return bool(self.accelerator.gather(found[None]).all())
