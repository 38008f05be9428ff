"""Losses, gradients and weights that are not finite: counted, logged, and the end of a run that does not recover."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainerCallback

from hf_geo.checkpoints.listing import list_checkpoints
from hf_geo.optim import get_method, list_optimizers

from .arguments import GeoTrainingArguments
from .norms import local_shard


class NonFiniteTrainingError(RuntimeError):
    """Training has led to weights, or to a row of losses or gradients, that are not finite."""


class NonFiniteUpdates(TrainerCallback):
    """Counts the updates whose loss or gradient is not finite, and ends training after too many of them in a row.

    Counting stays on the device. The counts are read when the log is written and every `max_nonfinite_steps` updates, so a
    run may go on for as many more before it stops. With float16 only the loss counts: loss scaling expects gradients that
    overflow.

    Args:
        gather: Concatenates a tensor along its first axis over all processes, as `Accelerator.gather`.

    Attributes:
        total: Such updates since training began, over all processes, as last read.
        longest: The longest row of them, likewise.

    Raises:
        NonFiniteTrainingError: During training: `args.max_nonfinite_steps` updates in a row were not finite.
    """

    def __init__(self, gather: Callable[[Tensor], Tensor]) -> None:
        self._gather = gather
        self._reset()

    def _reset(self) -> None:
        self.total = self.longest = 0
        self._finite: Tensor | None = None  # so far in this update
        self._counts: Tensor | None = None  # in all, in the row at hand, in the longest row

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self._reset()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        limit = args.max_nonfinite_steps
        if control.should_log or state.global_step % limit == 0:
            self.read()
            if self.longest >= limit:
                raise NonFiniteTrainingError(
                    f"The loss or its gradient was not finite in {limit} updates in a row (--max_nonfinite_steps), noticed "
                    f"at update {state.global_step}; {remedy(args)}"
                )

    on_epoch_end = on_step_end

    def add_loss(self, loss: Tensor) -> None:
        """Takes the loss of one micro-batch."""
        finite = loss.detach().isfinite().all()
        self._finite = finite if self._finite is None else self._finite & finite

    def end_update(self, norm: Tensor | float | None) -> None:
        """Takes the norm of the update's gradient; None where loss scaling deals with overflow."""
        finite, self._finite = self._finite, None
        if norm is not None:
            norm = norm.full_tensor() if isinstance(norm, DTensor) else torch.as_tensor(norm)
            finite = finite & norm.detach().isfinite().to(finite.device)
        bad = (~finite).long()
        total, row, longest = torch.zeros(3, device=bad.device).long() if self._counts is None else self._counts
        row = (row + 1) * bad
        self._counts = torch.stack([total + bad, row, torch.maximum(row, longest)])

    def read(self) -> None:
        """Brings the numbers to the host."""
        if self._counts is not None:
            self.total, _, self.longest = self._gather(self._counts[None]).amax(0).tolist()


def weights_are_finite(trainer: Trainer) -> bool:
    """Whether the weights of a Trainer's model are finite, the same on all processes."""
    found = all_finite(trainer.model_wrapped).to(trainer.args.device)
    return bool(trainer.accelerator.gather(found[None]).all())


def all_finite(model: nn.Module) -> Tensor:
    """Whether no trained weight is infinite or NaN, and no buffer NaN, as a 0-dim tensor; of shards, this process's own."""
    checks = list(_checks(model))
    return torch.stack([check.to(checks[0].device) for check in checks]).all() if checks else torch.tensor(True)


def _checks(model: nn.Module) -> Iterator[Tensor]:
    for parameter in model.parameters():
        if parameter.requires_grad:
            yield local_shard(parameter).isfinite().all()
    for buffer in model.buffers():
        if buffer.is_floating_point():
            yield ~local_shard(buffer).isnan().any()  # a mask of attention may hold -inf


def remedy(args: GeoTrainingArguments) -> str:
    """Says, as the end of a message, which checkpoint is left of a run that is not finite, and what to try."""
    kept = next(reversed(list_checkpoints(args.output_dir)), None)
    last = f"the last checkpoint with finite ones is {kept.name}" if kept else "there is no checkpoint"
    return f"{last}. If it is not the data, try {' or '.join(advice(args))}."


def advice(args: GeoTrainingArguments) -> list[str]:
    """Lists what may keep this optimizer's training finite, most likely first, as parts of a sentence."""
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
