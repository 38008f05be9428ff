"""Learning-rate schedules that transformers does not have: steps at milestones, and SWA's constant rate."""

import functools
import math

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, SequentialLR
from torch.optim.swa_utils import SWALR

from .arguments import GeoTrainingArguments


def milestone_schedule(
    optimizer: torch.optim.Optimizer, args: GeoTrainingArguments, updates_per_epoch: int, num_training_steps: int
) -> LambdaLR:
    """The learning rate times `args.gamma` after each of the epochs `args.milestones`, after a linear warm-up."""
    steps = [milestone * updates_per_epoch for milestone in args.milestones]
    warmup = args.get_warmup_steps(num_training_steps)
    return LambdaLR(optimizer, functools.partial(step_factor, steps=steps, gamma=args.gamma, warmup=warmup))


def step_factor(step: int, steps: list[float], gamma: float, warmup: int) -> float:
    """The factor of the learning rate at an update: a linear warm-up, then `gamma` for each of `steps` passed."""
    return min(1.0, (step + 1) / (warmup + 1)) * gamma ** sum(step >= passed for passed in steps)


def swa_schedule(scheduler: LRScheduler, args: GeoTrainingArguments, num_training_steps: int) -> SequentialLR:
    """The given schedule, then from `args.swa_start` on the constant `args.swa_lr`; groups keep the ratios of their rates."""
    optimizer = scheduler.optimizer
    rates = [args.swa_lr * group["initial_lr"] / args.learning_rate for group in optimizer.param_groups]
    constant = SWALR(optimizer, rates, anneal_epochs=0)
    return SequentialLR(optimizer, [scheduler, constant], [math.ceil(args.swa_start * num_training_steps)])
