"""What an evaluation during training needs of a model: norm statistics of its weights, on every process, in its precision."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.utils.data import Dataset, IterableDataset, Subset
from transformers import Trainer
from transformers.trainer_utils import has_length

from hf_geo.evaluation.norms import recalibrate_norms, running_statistics

POWER_ITERATIONS = 30  # of singular vectors that have to be found anew
RECALIBRATION_SAMPLES = 2048  # for an evaluation during training; at the end all training samples are used


@contextmanager
def fresh_statistics(model: nn.Module, batches: Callable[[], Iterable]) -> Iterator[None]:
    """Gives the model, inside the context, norm statistics and singular vectors of its present weights.

    Args:
        model: Any module.
        batches: Makes a loader of training samples; called only if there are statistics to take.
    """
    statistics = running_statistics(model)
    vectors = {(id(norm), name): v for norm, _ in _spectral_norms(model) for name, v in norm.named_buffers()}
    kept = {name: buffer.clone() for name, buffer in (statistics | vectors).items()}
    renew_singular_vectors(model)
    if statistics:
        recalibrate_norms(model, batches())
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in (statistics | vectors).items():
                buffer.copy_(kept[name])


@torch.no_grad()
def renew_singular_vectors(model: nn.Module) -> None:
    """Gives spectral norms the largest singular vectors of their present weights, which in training they follow step by step."""
    for norm, weights in _spectral_norms(model):
        was_training = norm.training
        norm.train()
        for _ in range(POWER_ITERATIONS):
            norm(weights.original)
        norm.train(was_training)


def _spectral_norms(model: nn.Module) -> list[tuple[nn.Module, ParametrizationList]]:
    """The spectral norms of a model, each with the weights that it alone parametrizes."""
    lists = (module for module in model.modules() if isinstance(module, ParametrizationList) and len(module) == 1)
    return [(weights[0], weights) for weights in lists if isinstance(weights[0], _SpectralNorm)]


def broadcast_buffers(model: nn.Module) -> None:
    """Gives every process the buffers of the first one, whose norm statistics are saved and exported.

    DDP does so before each forward pass of training, so the statistics differ again after the last one.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    for buffer in model.buffers():
        if not isinstance(buffer, DTensor):
            # As bytes, because gloo supports only some dtypes; the whole storage, because elements of a view may overlap.
            memory = torch.empty(0, dtype=torch.uint8, device=buffer.device).set_(buffer.untyped_storage())
            dist.broadcast(memory, 0)


def local_shard(tensor: Tensor) -> Tensor:
    """The part of a sharded tensor that this process has; any other tensor as it is."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def has_batch_norms(model: nn.Module) -> bool:
    """Whether the model has batch norms, whose statistics of a single sample may be undefined."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


@contextmanager
def keep_precision(model: nn.Module) -> Iterator[None]:
    """Undoes, at the end of the context, a cast of the model, as for an evaluation in half precision."""
    parameters = [(parameter, parameter.data) for parameter in model.parameters()]
    buffers = [(module, name, b) for module in model.modules() for name, b in module._buffers.items() if b is not None]
    try:
        yield
    finally:
        for parameter, data in parameters:
            parameter.data = data
        for module, name, buffer in buffers:
            module._buffers[name] = buffer


def norm_batches(trainer: Trainer, samples: int | None = None) -> Iterable:
    """Makes a loader of training samples to take norm statistics of.

    Args:
        trainer: Whose training data are read.
        samples: How many; all of them when not given, of a stream `RECALIBRATION_SAMPLES`.
    """
    dataset = trainer.train_dataset
    if samples is None:
        samples = len(dataset) if has_length(dataset) else RECALIBRATION_SAMPLES
    loader = trainer.get_test_dataloader(some_samples(dataset, samples))
    return loader if has_length(loader) else iter(loader)


def some_samples(dataset: Dataset, count: int) -> Dataset:
    """Selects at most `count` samples of a data set in a fixed random order; of a stream, the first.

    The result hides `set_epoch`: reading it in the middle of an epoch must not move the training data to another one.
    """
    if not has_length(dataset):
        return _Beginning(dataset, count)
    chosen = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:count]
    return Subset(dataset, chosen.tolist())


class _Beginning(IterableDataset):
    """The first samples of a stream, at most `count` in each worker."""

    def __init__(self, stream: IterableDataset, count: int) -> None:
        self.stream, self.count = stream, count

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(self.stream, self.count)
