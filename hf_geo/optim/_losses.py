"""Checks of ALI-G's loss: it has to be one number, and should be above zero."""

import logging
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


class LossWatch:
    """Warns once of losses for which no step is taken: the first negative one, or zeros from the start."""

    def __init__(self) -> None:
        self.seen = 0
        self.all_zero = True
        self.warned = False

    def check(self, loss: Tensor) -> None:
        """Checks the loss of a step, unless it lies on an accelerator, whose work this would wait for."""
        if torch.compiler.is_compiling() or self.warned or not loss.is_cpu:
            return
        value = loss.tolist()
        self.seen += 1
        self.all_zero &= value == 0
        if value < 0:
            found = f"the loss of step {self.seen} is negative ({value:.4g})"
        elif self.all_zero and self.seen == FIRST:
            found = f"the first {FIRST} losses are all 0"
        else:
            return
        self.warned = True
        logger.warning(
            "AliG takes no step if the loss is 0 or negative, as its step is proportional to the loss, and %s. It is for "
            "losses whose least value is 0, such as cross-entropy; for objectives of either sign, such as those of policy "
            "optimization (GRPO, PPO), choose another optimizer.",
            found,
        )
