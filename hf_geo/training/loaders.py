"""What a Trainer's data loaders need besides what transformers gives them."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments
from transformers.trainer_pt_utils import find_batch_size
from transformers.trainer_utils import has_length

from .norms import has_batch_norms
from .signals import ignore_stop_signals

logger = logging.getLogger(__name__)


def make_loader(make: Callable[..., DataLoader], args: TrainingArguments, *inputs: Any, drop_last: bool) -> DataLoader:
    """A loader made by transformers, whose workers a signal to the whole job does not end before the Trainer has saved.

    Args:
        make: transformers' method.
        args: The Trainer's arguments, of which the method reads `dataloader_drop_last`.
        inputs: Arguments of the method.
        drop_last: Whether the last batch is left out if it is smaller.
    """
    with _setting(args, "dataloader_drop_last", drop_last):
        loader = make(*inputs)
    inner = getattr(loader, "base_dataloader", loader)  # accelerate's stands around the one that starts workers
    if inner.num_workers:
        inner.worker_init_fn = partial(ignore_stop_signals, inner.worker_init_fn)
    return loader


@contextmanager
def _setting(args: TrainingArguments, name: str, value: Any) -> Iterator[None]:
    before = getattr(args, name)
    setattr(args, name, value)
    try:
        yield
    finally:
        setattr(args, name, before)


class SingleSamples:
    """Leaves out a last batch of one sample where batch norms, which have no variance of it, would end the run.

    Args:
        trainer: Whose batches these are.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self._reported = False

    def end_an_epoch(self) -> bool:
        """Whether the last batch of every epoch would be one sample; several processes fill theirs up."""
        args, data = self.trainer.args, self.trainer.train_dataset
        if not has_length(data) or args.world_size > 1 or not self._matter(self.trainer.model):
            return False
        single = len(data) > 1 and len(data) % args.train_batch_size == 1
        if single:
            self._report()
        return single

    def without(self, batches: list[Any]) -> list[Any]:
        """The batches of a stream but those of one sample, which are its last."""
        if has_length(self.trainer.train_dataset) or not self._matter(self.trainer.model):
            return batches
        kept = [batch for batch in batches if find_batch_size(batch) != 1]
        if len(kept) < len(batches):
            self._report()
        return kept

    def _matter(self, model: nn.Module) -> bool:
        return self.trainer.args.train_batch_size > 1 and has_batch_norms(model)

    def _report(self) -> None:
        if not self._reported:
            self._reported = True
            logger.warning(
                "The last batch of an epoch would be one sample, of which batch norms have no variance: it is left out "
                "(with another --per_device_train_batch_size it would not be)."
            )
