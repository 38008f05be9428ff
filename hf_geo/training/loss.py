"""The mean loss of a micro-batch, and of the update that it is a part of, for optimizers whose step depends on it."""

import logging
import math
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn
from transformers import Trainer

logger = logging.getLogger(__name__)
EARLY = 10  # the first updates, whose loss is handed over on the host


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
        accelerator: The loop's accelerator, which knows when an update ends, and the other processes.
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


def mean_loss(trainer: Trainer, compute: Callable, model: nn.Module, inputs: Any, return_outputs: bool = False):
    """Computes the mean loss over a batch's items, 0 where it has none.

    A model or `compute_loss_func` that divides by a number of items gets the batch's own.

    Args:
        trainer: A `GeoTrainer`.
        compute: transformers' `compute_loss`.
        model: The network, wrapped for training.
        inputs: The batch.
        return_outputs: Whether to return the model's outputs too.
    """
    items, is_training = torch.as_tensor(trainer._updates.count(inputs)), model.training
    is_labelled = trainer.args.n_gpu <= 1 and ("labels" in inputs or "shift_labels" in inputs)
    number = items.clamp(min=1) if is_labelled else None
    labels = inputs.get("labels")
    loss, outputs = compute(model, inputs, return_outputs=True, num_items_in_batch=number)
    if is_training and trainer.args.log_accuracy:
        trainer.telemetry.add_predictions(outputs.get("logits"), labels)
    loss = torch.where(items.to(loss.device) > 0, loss, 0.0)  # the mean over no items is not a number
    if is_training:
        loss = loss / missing_divisor(trainer)
    return (loss, outputs) if return_outputs else loss


def smoothing_floor(factor: float, classes: int) -> float:
    """The least cross-entropy with smoothed labels: the entropy of their distribution, at which the network gives just that.

    Of C classes the right one has the probability 1 - factor + factor / C, and every other one factor / C.

    Args:
        factor: In [0, 1], as `label_smoothing_factor`.
        classes: The number C.
    """
    other = factor / classes
    probabilities = [1 - factor + other, *([other] * (classes - 1))]
    return -sum(p * math.log(p) for p in probabilities if p > 0)


def least_loss(smoothing: float, model: nn.Module, batch: Any) -> float:
    """Computes the least value of a classifier's loss under label smoothing; the batch shows how many classes it scores.

    Args:
        smoothing: The `label_smoothing_factor`.
        model: The classifier, before any engine wraps it.
        batch: A batch as in training; None if there is none.

    Raises:
        ValueError: Labels are not smoothed, or there is no batch.
    """
    if not smoothing or batch is None:
        raise ValueError(
            "lower_bound=auto is the least loss under label smoothing: give --label_smoothing_factor to a GeoTrainer with "
            "training data, or lower_bound a number."
        )
    was_training, device = model.training, next(model.parameters()).device
    with torch.no_grad():
        classes = model.eval()(**send_to_device(batch, device))["logits"].shape[-1]
    model.train(was_training)
    floor = smoothing_floor(smoothing, classes)
    logger.info("With label smoothing %s and %d classes the loss is at least %.6g.", smoothing, classes, floor)
    return floor


def missing_divisor(trainer: Trainer) -> Tensor | int:
    """What a loss in training has still to be divided by, because transformers does not; 1 for releases that do.

    transformers 5.17, which has no `loss_is_scaled_for_ga`, never divides the loss of a `compute_loss_func`.
    """
    if trainer.compute_loss_func is None or hasattr(Trainer, "loss_is_scaled_for_ga"):
        return 1
    return trainer.current_gradient_accumulation_steps


def hand_loss_to_optimizer(trainer: Trainer, loss: Tensor) -> None:
    """Gives a Trainer's optimizer, if it takes one, the loss of each update.

    Args:
        trainer: A `transformers.Trainer`, whose `training_step` has just returned `loss`.
        loss: The returned loss: scaled for accumulation, not for float16.
    """
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)  # accelerate's wrapper forwards no hooks
    if not hasattr(optimizer, "set_loss"):
        return
    if getattr(trainer, "_loss_of_update", None) is None:
        trainer._loss_of_update = LossOfUpdate(trainer.accelerator)
    # A new trial of a hyperparameter search makes a new optimizer.
    if getattr(trainer, "_optimizer_with_loss", None) is not optimizer:
        optimizer.register_step_pre_hook(lambda opt, args, kwargs: opt.set_loss(_loss_of_update(trainer)))
        trainer._optimizer_with_loss = optimizer
    trainer._loss_of_update.add(loss)


def _loss_of_update(trainer: Trainer) -> Tensor:
    """The loss of the update; of the first few on the host, where the optimizer checks that it can use such losses."""
    loss = trainer._loss_of_update()
    return loss.cpu() if trainer.state.global_step < EARLY else loss
