"""Losses and gradients that are no numbers: counted, shown, and the end of a run that does not get over them."""

import logging
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import Trainer

from hf_geo.checkpoints.store import checkpoints
from hf_geo.optim import get_method, list_optimizers

from .arguments import GeoTrainingArguments

logger = logging.getLogger(__name__)


class NonFiniteTraining(RuntimeError):
    """Training has led to weights, or to a row of losses or gradients, that are not finite."""


class FiniteTraining(Trainer):
    """A Trainer that stops after `args.max_nonfinite_steps` updates in a row whose loss or gradient is not finite.

    Checkpoints of weights that are not finite are not written, so the last one there is can be used. The log gets
    `nonfinite_steps`, how many such updates there were since `train` began, as soon as there is one.

    Counting stays on the device. It is read when the log is written and every `max_nonfinite_steps` updates, so a run may
    go on for as many more before it stops. With float16 a gradient that overflows is the loss scaling's business: there
    only the loss counts.
    """

    args: GeoTrainingArguments

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._nonfinite = NonFiniteUpdates()

    def train(self, *args, **kwargs):
        """Trains; see the class.

        Raises:
            NonFiniteTraining: There were too many such updates in a row, or the run has ended with such weights.
        """
        self._nonfinite = NonFiniteUpdates()
        result = super().train(*args, **kwargs)
        if not self._weights_are_finite():
            raise NonFiniteTraining(f"Training has ended with weights that are not finite; {self._what_to_do()}")
        return result

    def training_step(self, *args, **kwargs) -> Tensor:
        loss = super().training_step(*args, **kwargs)
        self._nonfinite.add_loss(loss)
        return loss

    def _get_grad_norm(self, *args, **kwargs) -> Tensor | float:
        norm = super()._get_grad_norm(*args, **kwargs)
        self._nonfinite.end_update(norm if self.accelerator.scaler is None else None)
        return norm

    def _maybe_log_save_evaluate(self, *args, **kwargs) -> None:
        limit = self.args.max_nonfinite_steps
        if self.control.should_log or self.state.global_step % limit == 0:
            self._nonfinite.read(self.accelerator.gather)
            if self._nonfinite.longest >= limit:
                raise NonFiniteTraining(
                    f"The loss or its gradient was not finite in {limit} updates in a row (--max_nonfinite_steps), noticed "
                    f"at update {self.state.global_step}; {self._what_to_do()}"
                )
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        if "learning_rate" in logs and self._nonfinite.total:
            logs = {**logs, "nonfinite_steps": self._nonfinite.total}
        super().log(logs, *args, **kwargs)

    def _save_checkpoint(self, *args, **kwargs) -> None:
        if self._weights_are_finite():
            super()._save_checkpoint(*args, **kwargs)
        else:
            logger.warning(
                "No checkpoint of update %d: its weights are not finite. Those there are stay.", self.state.global_step
            )

    def _weights_are_finite(self) -> bool:
        found = all_finite(self.model_wrapped).to(self.args.device)
        return bool(self.accelerator.gather(found[None]).all())

    def _what_to_do(self) -> str:
        kept = next(reversed(checkpoints(self.args.output_dir)), None)
        last = f"the last checkpoint with finite ones is {kept.name}" if kept else "there is no checkpoint"
        return f"{last}. If it is not the data, try {' or '.join(advice(self.args))}."


class NonFiniteUpdates:
    """Counts, on the device, the updates whose loss or gradient is not finite.

    `total` and `longest` (the longest row of them) are the numbers as last read, over all processes.
    """

    def __init__(self) -> None:
        self.total = self.longest = 0
        self._finite: Tensor | None = None  # so far in this update
        self._counts: Tensor | None = None  # in all, in the row at hand, in the longest row

    def add_loss(self, loss: Tensor) -> None:
        """Takes the loss of one micro-batch."""
        finite = loss.detach().isfinite().all()
        self._finite = finite if self._finite is None else self._finite & finite

    def end_update(self, norm: Tensor | float | None) -> None:
        """Takes the norm of the update's gradient; None if it says nothing."""
        finite, self._finite = self._finite, None
        if norm is not None:
            norm = norm.full_tensor() if isinstance(norm, DTensor) else torch.as_tensor(norm)
            finite = finite & norm.detach().isfinite().to(finite.device)
        bad = (~finite).long()
        total, row, longest = torch.zeros(3, device=bad.device).long() if self._counts is None else self._counts
        row = (row + 1) * bad
        self._counts = torch.stack([total + bad, row, torch.maximum(row, longest)])

    def read(self, gather) -> None:
        """Brings the numbers to the host.

        Args:
            gather: Concatenates a tensor along its first axis over all processes, as `Accelerator.gather`.
        """
        if self._counts is not None:
            self.total, _, self.longest = gather(self._counts[None]).amax(0).tolist()


def all_finite(model: nn.Module) -> Tensor:
    """Whether no trained weight is infinite or NaN, and no buffer NaN, as a 0-dim tensor; of shards, this process's own."""
    checks = list(_checks(model))
    return torch.stack([check.to(checks[0].device) for check in checks]).all() if checks else torch.tensor(True)


def _checks(model: nn.Module) -> Iterator[Tensor]:
    for parameter in model.parameters():
        if parameter.requires_grad:
            yield _local(parameter).isfinite().all()
    for buffer in model.buffers():
        if buffer.is_floating_point():
            yield ~_local(buffer).isnan().any()  # a mask of attention may hold -inf


def _local(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def advice(args: GeoTrainingArguments) -> list[str]:
    """What may keep this optimizer's training finite, most likely first, as parts of a sentence."""
    tips = [f"a lower --learning_rate (it was {args.learning_rate:g})"]
    method = get_method(args.optim) if args.optim in list_optimizers() else None
    if method and method.geometry_lr != 1:
        tips.append(
            f"a lower geometry.lr in --optim_args (by default {method.geometry_lr:g} times the rate of other weights)"
        )
    if method and method.instead_of_decay:
        tips.append(f"{method.instead_of_decay} in --optim_args, which bounds the weights")
    if args.max_grad_norm == 0 and (method is None or method.clipping == "allowed"):
        tips.append("--max_grad_norm 1")
    if not args.warmup_steps:
        tips.append("--warmup_steps")
    if args.fp16:
        tips.append("--bf16 in place of --fp16")
    return tips
