"""Random generators keyed by the step, and batches split over positions."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def draw_generator(*key: int) -> torch.Generator:
    """Makes a CPU generator that depends on `key` alone, such as (seed, global step, rank, micro-step).

    So a resumed run repeats the draws of an unbroken one, and no generator state has to be saved.
    """
    digest = hashlib.blake2b(repr(tuple(int(k) for k in key)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def split_batch(batch: Any, num_chunks: int) -> list[Any]:
    """Splits a batch along its first axis, one chunk a position.

    Args:
        batch: A tensor, or tensors in (nested) mappings, tuples and lists; anything without a first axis is repeated.
        num_chunks: At most this many chunks, of sizes that differ by at most one.

    Raises:
        ValueError: The tensors disagree about the batch size, or there is none.
    """
    sizes = {tensor.shape[0] for tensor in _tensors(batch) if tensor.ndim}
    if len(sizes) != 1:
        raise ValueError(f"A batch is split along the first axis its tensors share; they have sizes {sorted(sizes)}.")
    return _split(batch, min(num_chunks, sizes.pop()))


def _split(value: Any, num_chunks: int) -> list[Any]:
    if isinstance(value, Tensor) and value.ndim:
        return list(value.tensor_split(num_chunks))
    if isinstance(value, Mapping) and value:
        parts = [_split(v, num_chunks) for v in value.values()]
        return [dict(zip(value, chunk, strict=True)) for chunk in zip(*parts, strict=True)]
    if isinstance(value, tuple | list) and value:
        make = getattr(value, "_make", type(value))  # of a named tuple, whose class takes its fields one by one
        return [make(chunk) for chunk in zip(*(_split(v, num_chunks) for v in value), strict=True)]
    return [value] * num_chunks


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from (t for v in value.values() for t in _tensors(v))
    elif isinstance(value, tuple | list):
        yield from (t for v in value for t in _tensors(v))
