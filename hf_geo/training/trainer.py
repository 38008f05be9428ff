"""`GeoTrainer`: transformers' Trainer that builds the geometry-aware optimizers."""

import functools
import math
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from torch.optim.lr_scheduler import SequentialLR
from torch.optim.swa_utils import SWALR
from transformers import PreTrainedModel
from transformers.trainer_utils import has_length

from hf_geo.checkpoints.compatibility import check_same_model, check_same_optimizer
from hf_geo.optim import get_method, list_optimizers
from hf_geo.optim.param_groups import undecayed_parameters
from hf_geo.subspaces import Subspace, SubspaceConfig

from .arguments import GeoTrainingArguments
from .averaging import WeightAverage, check_same_average, kind_of_average
from .baselines import BASELINES, baseline_cls_and_kwargs
from .callbacks import TellEpoch
from .loss import hand_over_loss
from .nonfinite import FiniteTraining
from .norms import RECALIBRATION_SAMPLES, some_samples
from .optimizers import make_optimizer, measure_geometry, refuse_engine
from .saving import WholeCheckpoints
from .signals import GracefulStop
from .subspaces import SubspaceTraining
from .telemetry import GeometryTelemetry


class GeoTrainer(GracefulStop, FiniteTraining, WholeCheckpoints):
    """A `transformers.Trainer` for which `args.optim` may name any of `hf_geo.optim.list_optimizers()`.

    The rest is transformers' own, with corrections for all optimizers: norm layers and biases get no weight decay whatever
    they are called, each parameter group's learning rate is logged, a checkpoint is complete or not there, and it is loaded
    whole, or refused where it is of another model or optimizer. A run that is told to stop does so with a checkpoint
    (`GracefulStop`), and one that is lost in infinities stops too (`FiniteTraining`).

    Args:
        *args, **kwargs: As for `transformers.Trainer`; `args` are `GeoTrainingArguments`.
        subspace: Train a line, curve or simplex of networks: a `Subspace` attached to the model, or the settings of one
            whose points start around the model. Every batch is run at a drawn position, evaluations at the centre.

    Raises:
        TypeError: `args` are no `GeoTrainingArguments`.
        ValueError: A subspace with `model_init`, or milestones on a stream.
    """

    args: GeoTrainingArguments

    def __init__(self, *args, subspace: Subspace | SubspaceConfig | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._check_arguments(subspace)
        self.telemetry = GeometryTelemetry(layers=self.args.log_geometry)
        self.add_callback(self.telemetry)
        self.add_callback(TellEpoch())
        if isinstance(subspace, SubspaceConfig):
            subspace = Subspace.attach(self.model, subspace, seed=self.args.seed)
        self.subspace = subspace
        self._on_subspace = subspace and SubspaceTraining(subspace, self.args.seed, self.args.process_index)
        self._average = WeightAverage(self.args) if kind_of_average(self.args) else None
        if self._average:
            self.add_callback(self._average)
        self._stand_in = self._on_subspace or self._average  # what is evaluated in place of the weights in training
        self._micro_batch = 0
        if subspace and subspace.config.num_samples > 1 and self.args.ddp_broadcast_buffers is None:
            # DDP would overwrite buffers between the forwards of one backward.
            self.accelerator.ddp_handler.broadcast_buffers = False

    def _check_arguments(self, subspace: Subspace | SubspaceConfig | None) -> None:
        if not isinstance(self.args, GeoTrainingArguments):
            raise TypeError(f"GeoTrainer takes GeoTrainingArguments, not {type(self.args).__name__}.")
        if self.args.optim in list_optimizers():
            refuse_engine(self.args)  # also where the engine would bring its own optimizer
        average = kind_of_average(self.args)
        if average:
            refuse_engine(self.args, average)
        if average and subspace is not None:
            raise ValueError(
                f"{average} and a subspace are two ways to one better network: leave out --subspace, or --swa_start and --ema_decay."
            )
        if self.args.log_geometry and self.is_deepspeed_enabled:
            raise ValueError(
                "--log_geometry reads whole gradients, which DeepSpeed hides: use DDP or FSDP2, or leave it out."
            )
        if subspace is not None and self.model_init is not None:
            raise ValueError(
                "A subspace belongs to one model, which model_init would replace: give GeoTrainer the model."
            )
        samples = getattr(subspace, "config", subspace).num_samples if subspace is not None else 1
        if samples > 1 and self.args.gradient_checkpointing:
            raise ValueError(
                f"Gradient checkpointing runs the network again at the last of a batch's {samples} positions, which is wrong "
                "for the others: use one position a batch (--subspace_samples 1), or no checkpointing."
            )
        if self.train_dataset is not None and not has_length(self.train_dataset):
            if self.args.milestones:
                raise ValueError(
                    "--milestones are epochs, and a stream has no known length: choose an --lr_scheduler_type."
                )
            if average == "SWA":
                raise ValueError("--swa_start averages epochs, and a stream has no known length: choose --ema_decay.")

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Builds the optimizer once, from `args.optim`, `args.learning_rate`, `args.weight_decay` and `args.optim_args`."""
        if self.optimizer is None and self.args.optim in list_optimizers():
            self.optimizer = self._make_optimizer(self.model if model is None else model)
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
        return WholeCheckpoints.get_optimizer_cls_and_kwargs(args, model)

    def _make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        geometry = {"geometry": self.args.geometry_groups}
        if (
            get_method(self.args.optim).geometry
            and self.args.geometry_groups == "auto"
            and self.train_dataset is not None
        ):
            geometry["invariant"] = measure_geometry(model, self.get_train_dataloader())
        return make_optimizer(self.args, model, **geometry)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        """Builds the schedule once: a step schedule where `args.milestones` are given, else transformers' own."""
        if self.lr_scheduler is None and self.args.milestones:
            epoch = math.ceil(len(self.get_train_dataloader()) / self.args.gradient_accumulation_steps)
            warmup = self.args.get_warmup_steps(num_training_steps)
            steps = [milestone * epoch for milestone in self.args.milestones]
            factor = functools.partial(step_factor, steps=steps, gamma=self.args.gamma, warmup=warmup)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, factor)
            self._created_lr_scheduler = True  # so that the next `train` makes another
        made = self.lr_scheduler is None
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        if made and self.args.swa_lr is not None:
            scheduler = self.lr_scheduler = swa_schedule(scheduler, self.args, num_training_steps)
        return scheduler

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """Trains as `transformers.Trainer.train` does; a checkpoint to resume from must be whole, and of this model.

        Raises:
            UnfitCheckpoint: There is no such checkpoint.
        """
        checkpoint = self.find_checkpoint(resume_from_checkpoint)
        if checkpoint:
            check_same_model(self.model, checkpoint)
            check_same_average(checkpoint, self.args)
        return super().train(resume_from_checkpoint=checkpoint, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves as transformers does, but checkpoints under the names by which the model loads them again.

        transformers writes them under a model's older names on the Hub, where it has such (a ViT's), and then takes from
        a checkpoint only what happens to be called the same: it resumes, or goes back to the best, with the rest left.
        """
        if _internal_call and self._average:
            folder = output_dir or self.args.output_dir
            os.makedirs(folder, exist_ok=True)
            self._average.save(folder, write=self.args.should_save)
        if not _internal_call or not isinstance(self.model, PreTrainedModel):
            return super().save_model(output_dir, _internal_call)
        self.model.save_pretrained = functools.partial(self.model.save_pretrained, save_original_format=False)
        try:
            super().save_model(output_dir, _internal_call)
        finally:
            del self.model.save_pretrained

    def training_step(self, *args, **kwargs) -> torch.Tensor:
        """One forward and backward pass, whose loss the optimizer is told where its step depends on it."""
        loss = super().training_step(*args, **kwargs)
        hand_over_loss(self, loss)
        self._micro_batch = 0 if self.accelerator.sync_gradients else self._micro_batch + 1
        return loss

    def compute_loss(self, model: nn.Module, inputs, return_outputs: bool = False, num_items_in_batch=None):
        """The model's loss; while training on a subspace, at positions drawn for the batch and with the regularizer."""
        if self._on_subspace is None or not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        key = (self.state.global_step, self._micro_batch)
        # Where the loss is over all of the update's items, transformers does not divide it by the micro-batches.
        scaled = self.compute_loss_func is not None or (
            num_items_in_batch is not None and self.model_accepts_loss_kwargs
        )
        compute = functools.partial(super().compute_loss, model, num_items_in_batch=num_items_in_batch)
        penalty = self._on_subspace.penalty(key) / (self.current_gradient_accumulation_steps if scaled else 1)
        return self._on_subspace.loss(compute, inputs, key, sums=scaled) + penalty

    def evaluation_loop(self, *args, **kwargs):
        """As in transformers; a subspace is evaluated at its centre, and averaged weights in place of the present ones."""
        with self.as_evaluated():
            return super().evaluation_loop(*args, **kwargs)

    def as_evaluated(self) -> AbstractContextManager[None]:
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

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint and self._average:
            self._average.load(checkpoint, self.model)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self._average:
            self._average.load(self.state.best_model_checkpoint, self.model)

    def _norm_loader(self, samples: int) -> Iterable:
        loader = self.get_test_dataloader(some_samples(self.train_dataset, samples))
        return loader if has_length(loader) else iter(loader)

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Logs as transformers does, with what the optimizer did since the last log."""
        if "learning_rate" in logs:
            logs = {**logs, **self.telemetry.collect()}
        super().log(logs, *args, **kwargs)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters that weight decay applies to: all but norm gains, norm shifts and biases."""
        undecayed = undecayed_parameters(model)
        return [name for name, _ in model.named_parameters() if name not in undecayed]


def step_factor(step: int, steps: list[float], gamma: float, warmup: int) -> float:
    """What a step schedule multiplies the learning rate by: a linear warm-up, then `gamma` for each of `steps` passed."""
    return min(1.0, (step + 1) / (warmup + 1)) * gamma ** sum(step >= passed for passed in steps)


def swa_schedule(
    scheduler: torch.optim.lr_scheduler.LRScheduler, args: GeoTrainingArguments, num_training_steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The schedule, and from `args.swa_start` on the constant `args.swa_lr`; groups keep the ratios of their rates."""
    optimizer = scheduler.optimizer
    rates = [args.swa_lr * group["initial_lr"] / args.learning_rate for group in optimizer.param_groups]
    constant = SWALR(optimizer, rates, anneal_epochs=0)
    return SequentialLR(optimizer, [scheduler, constant], [math.ceil(args.swa_start * num_training_steps)])
