"""The samples that a process's last batch of an epoch holds for the first time, without those that fill it up."""

from collections.abc import Mapping
from typing import Any

from accelerate.data_loader import BatchSamplerShard, DataLoaderDispatcher
from accelerate.state import PartialState
from torch import Tensor
from torch.utils.data import DataLoader


def distinct_samples(loader: DataLoader, size: int, remainder: int) -> int:
    """How many samples at the start of this process's last batch of an epoch are its own.

    accelerate gives all processes batches of one size, and fills the last ones up with samples of the first.

    Args:
        loader: As accelerate has prepared it.
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
        rank, together = shard.process_index, 1 if shard.split_batches else shard.num_processes
        remainder = len(shard.batch_sampler.sampler) % (shard.batch_size * together)
    return min(max(remainder - rank * size, 0), size) if remainder > 0 else size


def first_samples(batch: Any, count: int, size: int) -> Any:
    """The first `count` of a batch's `size` samples, in (nested) mappings, lists and tensors."""
    if isinstance(batch, Mapping):
        return type(batch)({key: first_samples(value, count, size) for key, value in batch.items()})
    if isinstance(batch, Tensor):
        return batch[:count] if batch.ndim and len(batch) == size else batch
    return batch[:count] if isinstance(batch, list | tuple) and len(batch) == size else batch
