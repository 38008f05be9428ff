"""Training on a subspace inside a Trainer: where each batch is run, what is added to its loss, and the centre."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from hf_geo.evaluation.norms import recalibrate_norms
from hf_geo.subspaces import Subspace, draw_generator, split_batch

from .norms import fresh_statistics

PENALTY = -1  # in place of a process's number, in the key of draws that all processes share


class SubspaceTraining:
    """The positions and losses of a run on a subspace.

    Draws are keyed by (seed, update, micro-batch, process), so that a resumed run needs nothing saved for them.

    Args:
        subspace: Attached to the model that is trained.
        seed: The run's.
        rank: This process's number; processes draw independently unless the subspace's settings share the draws.
    """

    def __init__(self, subspace: Subspace, seed: int, rank: int) -> None:
        self.subspace = subspace
        self.seed = seed
        self.rank = 0 if subspace.config.shared_draws else rank
        self.settled = False

    def loss(
        self,
        compute: Callable[[Mapping], Tensor],
        inputs: Mapping[str, Any],
        key: tuple[int, int],
        count: Callable[[Mapping], Tensor | int],
    ) -> Tensor:
        """The mean loss over a batch's items, its samples divided over the drawn positions.

        Args:
            compute: From a part of the batch to the mean loss over its items.
            inputs: The batch.
            key: Number of the update, and of the micro-batch within it.
            count: From a part of the batch to its number of items.
        """
        generator = draw_generator(self.seed, *key, self.rank)
        parts = split_batch(inputs, self.subspace.config.num_samples)
        items = [count(part) for part in parts]
        whole = torch.as_tensor(sum(items)).clamp(min=1)
        losses = []
        for part, own in zip(parts, items, strict=True):
            self.subspace.sample(generator)
            losses.append(compute(part) * own / whole)
        return sum(losses[1:], losses[0])

    def penalty(self, key: tuple[int, int]) -> Tensor | float:
        """The weighted regularizer of a pair of control points that all processes draw alike."""
        beta = self.subspace.config.beta
        return beta * self.subspace.regularizer(generator=draw_generator(self.seed, *key, PENALTY)) if beta else 0.0

    @contextmanager
    def evaluated(self, model: nn.Module, loader: Callable[[], Iterable]) -> Iterator[None]:
        """The model at the centre, with norm statistics of that point, for an evaluation; they are put back afterwards.

        Args:
            model: The subspace's.
            loader: Makes a loader of training samples; called only if there are statistics to take.
        """
        self.subspace.set_centre()
        with nullcontext() if self.settled else fresh_statistics(model, loader):
            yield

    def settle(self, model: nn.Module, loader: Iterable) -> None:
        """Moves the model to the centre for good, with norm statistics of that point, as it will be exported."""
        self.subspace.set_centre()
        recalibrate_norms(model, loader)
        self.settled = True
