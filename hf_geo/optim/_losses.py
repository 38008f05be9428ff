"""Checks of ALI-G's loss: it has to be one number, and should be above zero."""

import logging
import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

logger = logging.getLogger(__name__)

FIRST = 5  # zero losses from the start before the warning; a single one may occur by chance


def as_scalar(loss: Any) -> Tensor:
    """The loss as a 0-dim tensor; raises `TypeError` or `ValueError` unless it is one number."""
    if isinstance(loss, DTensor):
        loss = loss.full_tensor()
    if isinstance(loss, Tensor):
        if loss.numel() != 1:
            raise ValueError(f"AliG needs one loss, but got a tensor of shape {tuple(loss.shape)}: reduce it first.")
        return loss.detach().reshape(())
    if isinstance(loss, bool) or not isinstance(loss, Real):
        raise TypeError(f"AliG needs the loss as a number or a tensor of one, not {loss!r} ({type(loss).__name__}).")
    return torch.tensor(float(loss), dtype=torch.float64)


def check_lower_bound(group: dict[str, Any]) -> None:
    """Makes `group["lower_bound"]` a float; raises `TypeError` or `ValueError` unless it is a finite number."""
    bound = group["lower_bound"]
    if isinstance(bound, bool) or not isinstance(bound, Real):
        raise TypeError(f"lower_bound has to be a number, not {bound!r}.")
    if not math.isfinite(bound):
        raise ValueError(f"lower_bound has to be finite, not {bound}.")
    group["lower_bound"] = float(bound)


class LossWatch:
    """Warns once of losses for which no step is taken: the first one below its bound, or all at it from the start."""

    def __init__(self) -> None:
        self.seen = 0
        self.all_at_bound = True
        self.warned = False

    def check(self, loss: Tensor, bound: float) -> None:
        """Checks the loss of a step, unless it lies on an accelerator, whose work this would wait for."""
        if torch.compiler.is_compiling() or self.warned or not loss.is_cpu:
            return
        value = loss.tolist()
        self.seen += 1
        self.all_at_bound &= value == bound
        if value < bound:
            is_negative = "negative" if bound == 0 else f"below lower_bound={bound:g}"
            found = f"the loss of step {self.seen} is {is_negative} ({value:.4g})"
        elif self.all_at_bound and self.seen == FIRST:
            found = f"the first {FIRST} losses are all {bound:g}"
        else:
            return
        self.warned = True
        logger.warning(
            "AliG takes no step if the loss is at or below its lower bound (%g), as its step is proportional to their "
            "difference, and %s. It is for losses whose least value is known, such as 0 for cross-entropy; for objectives of "
            "either sign, such as those of policy optimization (GRPO, PPO), choose another optimizer.",
            bound,
            found,
        )
