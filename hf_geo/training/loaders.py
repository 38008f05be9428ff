"""What a Trainer's data loaders need besides what transformers gives them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch.utils.data import DataLoader
from transformers import TrainingArguments

from .signals import ignore_stop_signals


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
