"""The loss that belongs to an update's gradient: the mean over its samples, for optimizers whose step depends on it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import Trainer
from transformers.trainer_pt_utils import find_batch_size

IGNORED = -100  # a label that no loss counts
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


def count_loss_terms(batch: Any, *, shifted: bool) -> Tensor | int | None:
    """The number of terms that a model's loss is the mean of.

    These are the labels that are not -100 (classes, tokens, pixels), or the samples where labels are no integers.

    Args:
        batch: What the model gets, usually a mapping with "labels".
        shifted: Whether the model predicts each token from those before it, so that the first label of a row has no term.

    Returns:
        A 0-dim tensor on the batch's device or a number; None for a batch without any tensor.
    """
    if isinstance(batch, Mapping):
        labels = batch.get("shift_labels")
        if labels is None and isinstance(batch.get("labels"), Tensor):
            labels = batch["labels"][..., 1:] if shifted else batch["labels"]
        if isinstance(labels, Tensor) and not labels.is_floating_point():
            return labels.ne(IGNORED).sum()
    return find_batch_size(batch)


class LossTerms:
    """Counts the terms of an update's loss, so that its gradient is the mean over all of them however they are divided.

    transformers counts for models alone that take the number, and trusts them to use it.

    Args:
        trainer: A `transformers.Trainer`.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def of(self, batch: Any) -> Tensor | int | None:
        """Terms of one micro-batch."""
        return count_loss_terms(batch, shifted=self.trainer._loss_shifts_labels)

    def of_update(self, batches: Sequence[Any], device: torch.device) -> Tensor | None:
        """Terms of an update's micro-batches on all processes; None where they cannot be counted."""
        terms = [self.of(batch) for batch in batches]
        if not terms or None in terms:
            return None
        total, args = torch.as_tensor(sum(terms), device=device), self.trainer.args
        if args.world_size > 1 and args.average_tokens_across_devices:
            return self.trainer.accelerator.reduce(total, reduction="sum")
        return total * args.world_size

    def weighted(self, compute: Callable[[Any], Any], total: Tensor, *, factor: int) -> Callable[[Any], Any]:
        """From a function that returns a micro-batch's mean loss to one that returns its share of the update's loss.

        The shares of an update add up to `factor` times the number of processes, because the processes' gradients are
        averaged.

        Args:
            compute: Returns the loss of a batch, or a pair of the loss and the model's outputs.
            total: Terms of the whole update.
            factor: What the Trainer divides the loss by afterwards.
        """

        def compute_share(batch: Any) -> Any:
            share = self.of(batch) * self.trainer.args.world_size * factor / total  # before labels are taken out
            found = compute(batch)
            return (found[0] * share, found[1]) if isinstance(found, tuple) else found * share

        return compute_share
