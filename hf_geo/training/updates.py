"""The micro-batches of an update, and what divides each one's loss."""

import logging
from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import find_batch_size
from torch import Tensor
from transformers import Trainer
from transformers.trainer_utils import has_length

from .norms import has_batch_norms
from .ragged import distinct_samples, first_samples
from .shares import ItemCounter, micro_batch_divisors

logger = logging.getLogger(__name__)


class UpdateBatches:
    """Collects the micro-batches of a Trainer's updates, such that each sample of an epoch counts once and alike.

    All processes get the same number of micro-batches. A process that has no samples of its own left runs a batch that does
    not count. Where batch norms, which have no variance of one sample, would end the run, that sample is left out.

    Args:
        trainer: Whose batches these are.

    Attributes:
        divisors: For each micro-batch of the present update, what its mean loss is divided by.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.divisors: Tensor | None = None
        self._counter: ItemCounter | None = None
        self._reported = False

    def count(self, batch: Any) -> Tensor | int:
        """The number of items that the model's loss over a batch is a mean over."""
        if self._counter is None:
            trainer = self.trainer
            model = trainer.accelerator.unwrap_model(trainer.model)
            self._counter = ItemCounter(model, trainer.label_names, trainer._loss_shifts_labels)
        return self._counter(batch)

    def collect(self, iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Tensor | None]:
        """The next update's micro-batches, none at the end of a stream, and its number of items over all processes."""
        accelerator = self.trainer.accelerator
        batches: list = []
        for batch in iterator:
            batches.append(batch)
            # At its end, accelerate's loader tells of it only until it is asked for more.
            if len(batches) == num_batches or accelerator.gradient_state.end_of_dataloader:
                break
        items = [self.count(batch) for batch in batches]
        if batches and accelerator.gradient_state.end_of_dataloader:
            self._end_epoch(batches, items, num_batches)
        if not batches:
            return [], None
        total = accelerator.reduce(torch.as_tensor(sum(items), device=device), reduction="sum")
        dtype = torch.promote_types(next(self.trainer.model.parameters()).dtype, torch.float32)
        self.divisors = micro_batch_divisors(items, total, accelerator.num_processes, dtype)
        return batches, total

    def end_with_one_sample(self) -> bool:
        """Whether epochs end with a single sample, of all processes together, that batch norms cannot use."""
        args, data = self.trainer.args, self.trainer.train_dataset
        if not has_length(data) or not self._need_two():
            return False
        together = 1 if self.trainer.accelerator.split_batches else args.world_size
        single = len(data) > 1 and len(data) % (args.train_batch_size * together) == 1
        if single:
            self._report()
        return single

    def _end_epoch(self, batches: list, items: list, num_batches: int) -> None:
        """Takes what is no sample of this process's own out of its last batch of an epoch, in place."""
        stream = not has_length(self.trainer.train_dataset)
        size = find_batch_size(batches[-1])
        if size is not None:
            loader = self.trainer.callback_handler.train_dataloader
            own = distinct_samples(loader, size, self.trainer.accelerator.gradient_state.remainder)
            if own == 1 and (stream or size > 1) and self._need_two():
                self._report()
                own = 0
            if own == 0 and size == 1 and self._need_two():  # on all processes
                del batches[-1], items[-1]
            elif own < size:
                batches[-1] = first_samples(batches[-1], own or size, size)
                items[-1] = self.count(batches[-1]) if own else 0
        if stream and batches:
            # A stream that ends within an update would leave its gradient to the next pass.
            missing = num_batches - len(batches)
            batches += [batches[-1]] * missing
            items += [0] * missing

    def _need_two(self) -> bool:
        return self.trainer.args.train_batch_size > 1 and has_batch_norms(self.trainer.model)

    def _report(self) -> None:
        if not self._reported:
            self._reported = True
            logger.warning(
                "The last batch of an epoch would be one sample, of which batch norms have no variance: it is left out "
                "(with another --per_device_train_batch_size it would not be)."
            )
