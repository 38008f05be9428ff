"""The loss that belongs to an update's gradient, for optimizers whose step depends on it."""

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import Trainer

EARLY = 10  # updates whose loss a Trainer's optimizer is handed on the host


class LossOfUpdate:
    """Adds up the losses of an update's micro-batches; called, returns their mean over the processes.

    The value is that of the averaged gradient the optimizer steps along. Calling costs one all-reduce of a scalar, and
    nothing is read on the host. It is a closure for `optimizer.step` in a loop of one's own:

        loss_of_update = LossOfUpdate(accelerator)
        for batch in loader:
            with accelerator.accumulate(model):
                loss = model(**batch).loss
                accelerator.backward(loss)
                loss_of_update.add(loss / accelerator.gradient_accumulation_steps)
                optimizer.step(loss_of_update)
                optimizer.zero_grad()

    Args:
        accelerator: The loop's accelerator, which knows when an update ends and what other processes there are.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self._total: Tensor | None = None
        self._complete = True

    def add(self, loss: Tensor) -> None:
        """Adds one micro-batch's loss, scaled for accumulation as for the backward pass, but not for float16.

        The first loss after an update has ended begins a new sum, also when the update was skipped on overflow.
        """
        loss = loss.detach().to(torch.promote_types(loss.dtype, torch.float32))
        self._total = loss if self._complete or self._total is None else self._total + loss
        self._complete = self.accelerator.sync_gradients

    def __call__(self) -> Tensor:
        """The loss of the update, a 0-dim tensor, the same on all processes.

        Raises:
            RuntimeError: No loss was added.
        """
        if self._total is None:
            raise RuntimeError("No loss was added for this update: call add(loss) after each backward pass.")
        return self.accelerator.reduce(self._total, reduction="mean")


def _loss_to_hand_over(trainer: Trainer) -> Tensor:
    """The loss of the update; of the first few on the host, where the optimizer looks whether it can use such losses."""
    loss = trainer._loss_of_update()
    return loss.cpu() if trainer.state.global_step < EARLY else loss


def hand_over_loss(trainer, loss: Tensor) -> None:
    """Gives a Trainer's optimizer, if it takes one, the loss of each update.

    Args:
        trainer: A `transformers.Trainer`, whose `training_step` has just returned `loss`.
        loss: What it returned: scaled for accumulation, not for float16.
    """
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)  # accelerate's wrapper forwards no hooks
    if not hasattr(optimizer, "set_loss"):
        return
    if getattr(trainer, "_loss_of_update", None) is None:
        trainer._loss_of_update = LossOfUpdate(trainer.accelerator)
    if getattr(trainer, "_loss_taker", None) is not optimizer:  # a new trial of a search makes a new optimizer
        optimizer.register_step_pre_hook(lambda opt, args, kwargs: opt.set_loss(_loss_to_hand_over(trainer)))
        trainer._loss_taker = optimizer
    trainer._loss_of_update.add(loss)
