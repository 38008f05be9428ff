"""From training arguments to the optimizer and its schedule, for our Trainer and for anybody's."""

import functools
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, broadcast_object_list
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import SchedulerType

from hf_geo.optim import create_optimizer, get_method, scale_invariant_parameters

from .arguments import GeoTrainingArguments
from .loss import least_loss
from .methods import (
    check_parameters,
    find_method,
    parse_optim_args,
    refuse_unknown_modules,
    split_module_settings,
)

SAMPLES = 8  # to measure with; more would cost time and show nothing new


def make_optimizer(
    args: TrainingArguments,
    model: nn.Module,
    *,
    geometry: str,
    samples: Callable[[], DataLoader] | None = None,
    **grouping,
) -> torch.optim.Optimizer:
    """Makes the optimizer that `args.optim` names, with its parameter groups.

    Args:
        args: `optim` is a registered name; `learning_rate`, `weight_decay` and `optim_args` are used.
        model: The network, before any engine wraps it.
        geometry: Which weights get the method's geometry, as `create_optimizer` takes it; "auto" measures it.
        samples: Makes a loader of training data to measure on; without it nothing is measured, and ALI-G's
            `lower_bound=auto` is refused.
        **grouping: Further arguments of `create_optimizer`, by which it finds the weights with a geometry.

    Raises:
        ValueError: A setting the method does not take, or an engine under which the method would be wrong.
    """
    refuse_engine(args)
    method = get_method(args.optim)
    args, _ = split_module_settings(args, model)
    settings, group_settings = parse_optim_args(method, args.optim_args)
    if settings.get("lower_bound") == "auto":
        batch = samples and sample_batch(samples())
        settings["lower_bound"] = least_loss(args.label_smoothing_factor, model, batch)
    if samples is not None and geometry == "auto" and method.geometry:
        grouping["invariant"] = measure_geometry(model, samples())
    return create_optimizer(
        method.name,
        model,
        lr=args.learning_rate,
        weight_decay=args.weight_decay,
        group_settings=group_settings,
        **settings,
        geometry=geometry,
        **grouping,
    )


def refuse_engine(args: TrainingArguments, name: str | None = None) -> None:
    """Refuses engines that hide whole weights or single gradients.

    Args:
        args: The training arguments.
        name: What needs the weights, for the message; the optimizer where not given.

    Raises:
        ValueError: DeepSpeed, FSDP with flattened parameters, or `nn.DataParallel` on several GPUs.
    """
    name = name or getattr(args.optim, "value", args.optim)
    if args.n_gpu > 1:
        raise ValueError(
            f"{args.n_gpu} GPUs are visible but one process was started, which would put the model into nn.DataParallel; "
            f"start one process a GPU: accelerate launch --num_processes {args.n_gpu} SCRIPT ... (or show one GPU in CUDA_VISIBLE_DEVICES)."
        )
    kind = PartialState().distributed_type
    if kind == DistributedType.DEEPSPEED:
        raise ValueError(
            f"{name} needs whole weights, which DeepSpeed's ZeRO flattens and splits: use DDP or FSDP2 (configs/accelerate/fsdp2.yaml)."
        )
    if kind == DistributedType.FSDP and AcceleratorState().fsdp_plugin.fsdp_version == 1:
        raise ValueError(
            f"{name} needs whole weights, which FSDP version 1 flattens: set fsdp_version: 2 (configs/accelerate/fsdp2.yaml)."
        )


def measure_geometry(model: nn.Module, loader: DataLoader) -> dict[str, tuple[int, ...]]:
    """Measures on the first samples which weights are scale-invariant; the first process measures for all.

    Args:
        model: The network, before any engine wraps it.
        loader: The training data; its order and random numbers are left alone.

    Raises:
        RuntimeError: On all processes, where the first one could not measure; the message says why.
    """
    result: list[Any] = [None]
    if PartialState().is_main_process:
        try:
            result = [scale_invariant_parameters(model, sample_batch(loader), progress=True)]
        except Exception as error:  # raised below, after the other processes have it too
            result = [error]
    broadcast_object_list(result)
    if isinstance(result[0], Exception):
        raise RuntimeError(
            f"Which weights are scale-invariant could not be measured: {result[0]} "
            "(--geometry_groups structure goes by the network's structure instead.)"
        ) from result[0]
    return result[0]


def sample_batch(loader: DataLoader) -> Any:
    """Makes a batch of the first few samples."""
    return loader.collate_fn(load_samples(loader.dataset))


def load_samples(dataset: Iterable) -> list[Any]:
    """Loads the first few samples of a data set or a stream."""
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        return [dataset[i] for i in range(min(SAMPLES, len(dataset)))]
    return list(itertools.islice(dataset, SAMPLES))


def optimizer_class(
    args: TrainingArguments, model: nn.Module | None
) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """Returns the class and arguments of another library's optimizer, without the settings of single modules.

    Raises:
        ValueError: A setting of one group, weight decay that the method has not, a tensor that it cannot update, or an
            engine that hides the whole weights it needs.
    """
    args, _ = split_module_settings(args, model)
    method = find_method(args.optim)
    if method is None:
        refuse_unknown_modules(args)
        return Trainer.get_optimizer_cls_and_kwargs(args, model)
    if method.whole_weights:
        refuse_engine(args)
    if not method.shardable and PartialState().distributed_type == DistributedType.FSDP:
        raise ValueError(
            f"{method.name} does not work on sharded weights: use DDP in place of FSDP, or another --optim."
        )
    check_parameters(method, args, model)
    settings, group_settings = parse_optim_args(method, args.optim_args)
    if group_settings:
        raise ValueError(
            f"optim_args sets {next(iter(group_settings))!r} apart, which is no module of the model, and {method.name} makes no "
            "other groups."
        )
    return method.cls, {"lr": args.learning_rate, **method.settings, **settings}


def make_schedule(
    trainer: Trainer, optimizer: torch.optim.Optimizer, num_training_steps: int
) -> LambdaLR | ReduceLROnPlateau | None:
    """Makes the schedule that `args.milestones` or `args.lr_scheduler_type` ask for, if transformers has none such."""
    if trainer.args.milestones:
        return milestone_schedule(trainer, optimizer, num_training_steps)
    if trainer.args.lr_scheduler_type == SchedulerType.REDUCE_ON_PLATEAU:
        return plateau_schedule(trainer.args, optimizer)
    return None


def milestone_schedule(trainer: Trainer, optimizer: torch.optim.Optimizer, num_training_steps: int) -> LambdaLR:
    """Multiplies the learning rate by `args.gamma` at each epoch of `args.milestones`, after a linear warm-up."""
    args = trainer.args
    updates_per_epoch = math.ceil(len(trainer.get_train_dataloader()) / args.gradient_accumulation_steps)
    steps = [milestone * updates_per_epoch for milestone in args.milestones]
    warmup = args.get_warmup_steps(num_training_steps)
    return LambdaLR(optimizer, functools.partial(milestone_factor, steps=steps, gamma=args.gamma, warmup=warmup))


def milestone_factor(step: int, steps: list[float], gamma: float, warmup: int) -> float:
    """The factor of the learning rate at an update: a linear warm-up, then `gamma` for each of `steps` passed."""
    return min(1.0, (step + 1) / (warmup + 1)) * gamma ** sum(step >= passed for passed in steps)


class PlateauSchedule(ReduceLROnPlateau):
    """torch's `ReduceLROnPlateau` that also multiplies the learning rate by `decay` at every evaluation, down to `min_lr`.

    Args:
        optimizer: The optimizer.
        decay: Above 0, at most 1.
        **kwargs: As for `ReduceLROnPlateau`.

    Raises:
        ValueError: A value out of range.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, decay: float = 1.0, **kwargs: Any) -> None:
        if not 0 < decay <= 1:
            raise ValueError(f"decay is above 0 and at most 1, not {decay}")
        super().__init__(optimizer, **kwargs)
        self.decay = decay

    def step(self, metrics: Any, epoch: int | None = None) -> None:
        for group, least in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
            group["lr"] = max(group["lr"] * self.decay, min(group["lr"], least))
        super().step(metrics, epoch)


def plateau_schedule(args: GeoTrainingArguments, optimizer: torch.optim.Optimizer) -> PlateauSchedule:
    """Makes the schedule `reduce_lr_on_plateau` with `args.lr_scheduler_kwargs`, for the direction of the watched metric.

    Differs from transformers, whose `mode` is "min" whatever the metric.
    """
    mode = "max" if args.greater_is_better else "min"
    return PlateauSchedule(optimizer, **{"mode": mode, **(args.lr_scheduler_kwargs or {})})
