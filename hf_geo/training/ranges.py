"""Ranges of the training arguments, checked before a model is loaded."""

import math
from collections.abc import Callable
from typing import Any

from transformers import TrainingArguments
from transformers.utils import is_torch_bf16_gpu_available, is_torch_xla_available

_LARGEST_SEED = 2**32 - 1  # NumPy's; torch takes larger ones


def _whole(least: int) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value >= least, f"a whole number of at least {least}"


_SHARE = (lambda value: 0 <= value <= 1, "a number from 0 to 1")
_BELOW_ONE = (lambda value: 0 <= value < 1, "a number from 0 to below 1")
_SIZE = (lambda value: math.isfinite(value) and value >= 0, "a finite number of at least 0")
_POSITIVE = (lambda value: math.isfinite(value) and value > 0, "a finite number above 0")
_SEED = (lambda value: 0 <= value <= _LARGEST_SEED, f"a whole number from 0 to {_LARGEST_SEED}")

# Ranges that transformers does not check, or checks only after the model is loaded.
RANGES = {
    "learning_rate": (lambda value: value >= 0, "a number of at least 0"),
    "weight_decay": _SIZE,
    "max_grad_norm": _SIZE,
    "gamma": _POSITIVE,
    "swa_start": (lambda value: 0 <= value < 1, "a share of training, from 0 to below 1"),
    "swa_lr": _POSITIVE,
    "swa_cycles": _whole(1),
    "ema_decay": (lambda value: 0 < value < 1, "a share between 0 and 1"),
    "adam_beta1": _BELOW_ONE,
    "adam_beta2": _BELOW_ONE,
    "adam_epsilon": _SIZE,
    "label_smoothing_factor": _SHARE,
    "num_train_epochs": _POSITIVE,
    "max_steps": (lambda value: value == -1 or value >= 1, "at least 1, or -1 to train for --num_train_epochs"),
    "warmup_steps": _SIZE,
    "per_device_train_batch_size": _whole(1),
    "per_device_eval_batch_size": _whole(1),
    "gradient_accumulation_steps": _whole(1),
    "eval_accumulation_steps": _whole(1),
    "dataloader_num_workers": _whole(0),
    "dataloader_prefetch_factor": _whole(1),
    "save_total_limit": _whole(1),
    "max_nonfinite_steps": _whole(1),
    "logging_steps": _POSITIVE,
    "save_steps": _POSITIVE,
    "eval_steps": _POSITIVE,
    "eval_delay": _SIZE,
    "seed": _SEED,
    "data_seed": _SEED,
}


def check_precision(args: TrainingArguments) -> None:
    """Raises `ValueError` for bfloat16 where there is no GPU for it and nothing says that the CPU is meant."""
    option = "bf16" if args.bf16 else "bf16_full_eval"
    allowed = args.use_cpu or is_torch_bf16_gpu_available() or is_torch_xla_available()
    if getattr(args, option) and not allowed:
        raise ValueError(f"--{option} true needs a GPU with bfloat16: give --use_cpu true too, or leave {option} out.")


def check_ranges(args: Any) -> None:
    """Raises `ValueError` for the first of `RANGES` that a number of the training arguments is outside of.

    Args:
        args: Training arguments; missing ones and None are not checked.
    """
    for name, (fits, takes) in RANGES.items():
        value = getattr(args, name, None)
        if isinstance(value, int | float) and not fits(value):
            raise ValueError(f"--{name} is {takes}, not {value}.")
    milestones = args.milestones or []
    if any(not after > before for before, after in zip([0.0, *milestones], milestones, strict=False)):
        raise ValueError(f"--milestones are epochs above 0 in rising order, not {' '.join(map(str, milestones))}.")
