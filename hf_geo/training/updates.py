"""How an update is divided into micro-batches, and how much each one counts.

The gradient of an update is the mean over all its items, on all processes. Items are what a model's loss is a mean over: label
tokens, labelled pixels, or samples.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from accelerate.data_loader import BatchSamplerShard, DataLoaderDispatcher
from accelerate.state import PartialState
from accelerate.utils import find_batch_size
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.trainer_utils import has_length, unwrap_peft_model

from .norms import has_batch_norms

logger = logging.getLogger(__name__)
IGNORED = -100  # the label that torch's and transformers' losses leave out


class UpdateBatches:
    """Collects the micro-batches of a Trainer's updates, such that each sample of an epoch counts once and equally.

    All processes get the same number of micro-batches. A process without samples of its own left runs a batch that does not
    count. Batch norms have no variance of a single sample: where it would end the run, that sample is left out.

    Args:
        trainer: The Trainer.

    Attributes:
        divisors: For each micro-batch of the present update, the number that its mean loss is divided by.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.divisors: Tensor | None = None
        self._counter: ItemCounter | None = None
        self._reported = False

    def count(self, batch: Any) -> Tensor | int:
        """Counts the items that the model's loss over a batch is a mean over."""
        if self._counter is None:
            trainer = self.trainer
            model = trainer.accelerator.unwrap_model(trainer.model)
            self._counter = ItemCounter(model, trainer.label_names, trainer._loss_shifts_labels)
        return self._counter(batch)

    def collect(self, iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Tensor | None]:
        """Returns the next update's micro-batches, none at the end of a stream, and its number of items on all processes."""
        accelerator = self.trainer.accelerator
        batches: list = []
        for batch in iterator:
            batches.append(batch)
            # accelerate's loader reports its end only until it is asked for more.
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
        if not has_length(data) or not self._needs_two_samples():
            return False
        shares = 1 if self.trainer.accelerator.split_batches else args.world_size
        is_single = len(data) > 1 and len(data) % (args.train_batch_size * shares) == 1
        if is_single:
            self._report()
        return is_single

    def _end_epoch(self, batches: list, items: list, num_batches: int) -> None:
        """Removes, in place, the samples of an epoch's last batch that do not count for this process."""
        is_stream = not has_length(self.trainer.train_dataset)
        size = find_batch_size(batches[-1])
        if size is not None:
            loader = self.trainer.callback_handler.train_dataloader
            own = count_own_samples(loader, size, self.trainer.accelerator.gradient_state.remainder)
            if own == 1 and (is_stream or size > 1) and self._needs_two_samples():
                self._report()
                own = 0
            if own == 0 and size == 1 and self._needs_two_samples():  # on all processes
                del batches[-1], items[-1]
            elif own < size:
                batches[-1] = truncate_batch(batches[-1], own or size, size)
                items[-1] = self.count(batches[-1]) if own else 0
        if is_stream and batches:
            # A stream that ends within an update would leave its gradient to the next pass.
            missing = num_batches - len(batches)
            batches += [batches[-1]] * missing
            items += [0] * missing

    def _needs_two_samples(self) -> bool:
        return self.trainer.args.train_batch_size > 1 and has_batch_norms(self.trainer.model)

    def _report(self) -> None:
        if not self._reported:
            self._reported = True
            logger.warning(
                "The last batch of an epoch would be one sample, of which batch norms have no variance: it is left out "
                "(with another --per_device_train_batch_size it would not be)."
            )


class ItemCounter:
    """Counts the items of a batch.

    Integer labels count one by one, except those that the loss ignores; any other batch counts by its samples.

    Args:
        model: The network, not wrapped by an engine.
        label_names: Names of the labels in a batch, as `Trainer.label_names`.
        shifted: Whether the loss predicts each label from those before it, so that the first of a row does not count.
    """

    def __init__(self, model: nn.Module, label_names: Sequence[str], shifted: bool) -> None:
        model = unwrap_peft_model(model)
        config = getattr(model, "config", None)
        # A model without a loss name gets transformers' loss of causal language models, which shifts.
        by_default = getattr(model, "loss_type", "") is None
        causal = type(model).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
        self.shifted = shifted or (by_default and causal and not getattr(config, "is_encoder_decoder", False))
        self.ignored_pixel = getattr(config, "semantic_loss_ignore_index", IGNORED)
        self.names = ("shift_labels", "labels", *label_names)

    def __call__(self, batch: Any) -> Tensor | int:
        name = next((n for n in self.names if isinstance(batch, Mapping) and isinstance(batch.get(n), Tensor)), None)
        labels = batch[name] if name else None
        if labels is None or labels.ndim == 0 or labels.is_floating_point():
            return find_batch_size(batch) or 1
        if labels.ndim == 3 and self.ignored_pixel != IGNORED:  # a map of classes for each image
            return (labels != self.ignored_pixel).sum()
        if self.shifted and name == "labels":
            labels = labels[..., 1:]
        return (labels != IGNORED).sum()


def micro_batch_divisors(items: Sequence[Tensor | int], total: Tensor, processes: int, dtype: torch.dtype) -> Tensor:
    """Computes the divisors of the mean losses of an update's micro-batches; infinite for one without items.

    The processes' gradients are averaged afterwards, so those of micro-batches divided by these numbers add up to the
    gradient of the mean over all items.

    Args:
        items: Numbers of items of this process's micro-batches.
        total: Number of items of the update, over all processes.
        processes: Number of processes.
        dtype: Of the result.

    Returns:
        Shape (micro-batches,).
    """
    counts = torch.stack([torch.as_tensor(count, device=total.device) for count in items])
    return total.clamp(min=1).to(dtype) / (counts * processes)


def count_own_samples(loader: DataLoader, size: int, remainder: int) -> int:
    """Counts the samples at the start of this process's last batch of an epoch that do not repeat earlier ones.

    accelerate gives all processes batches of one size, and fills the last ones up with samples of the first.

    Args:
        loader: The loader as prepared by accelerate.
        size: Samples of the batch.
        remainder: Samples of all processes' last batches, where accelerate dispatches them from the first process.
    """
    if isinstance(loader, DataLoaderDispatcher):
        rank = PartialState().process_index
    else:
        shard = loader.batch_sampler
        # Other samplers know their processes themselves; of a stream that all processes read, the length is not known.
        if not isinstance(shard, BatchSamplerShard) or not hasattr(shard.batch_sampler, "sampler") or shard.drop_last:
            return size
        rank, shares = shard.process_index, 1 if shard.split_batches else shard.num_processes
        remainder = len(shard.batch_sampler.sampler) % (shard.batch_size * shares)
    return min(max(remainder - rank * size, 0), size) if remainder > 0 else size


def truncate_batch(batch: Any, count: int, size: int) -> Any:
    """Returns the first `count` of a batch's `size` samples, in (nested) mappings, lists and tensors."""
    if isinstance(batch, Mapping):
        return type(batch)({key: truncate_batch(value, count, size) for key, value in batch.items()})
    if isinstance(batch, Tensor):
        return batch[:count] if batch.ndim and len(batch) == size else batch
    return batch[:count] if isinstance(batch, list | tuple) and len(batch) == size else batch
