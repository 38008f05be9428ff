"""Several networks that answer the same batches: positions of a subspace, or models of their own."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call, vmap

from hf_geo.subspaces import Subspace

from .batches import inputs_of, logits_of
from .norms import Statistics, collect, running_statistics

_SMALL = 3_000_000  # parameters up to which a GPU is kept busier by several positions in one call


class Models:
    """Independent models, which answer in evaluation mode."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.models = models

    def logits(self, batch: Any) -> list[Tensor]:
        """Each model's logits for a batch."""
        found = []
        for model in self.models:
            args, kwargs = inputs_of(model, batch)
            found.append(logits_of(model(*args, **kwargs)))
        return found


class Positions:
    """Networks at positions of one subspace, each with norm statistics of its own.

    The model's own statistics stay as they are; its position is that of the last call.

    Args:
        subspace: Whose model runs.
        coefficients: (networks, num_points), or (networks, num_layers, num_points).
        batched: Whether all run in one batched call (`torch.func.vmap`); default: small networks on a GPU, which single
            calls are too short to fill.
    """

    def __init__(self, subspace: Subspace, coefficients: Tensor, batched: bool | None = None) -> None:
        self.subspace, self.model = subspace, subspace.model
        self.coefficients = coefficients
        parameters = list(self.model.parameters())
        small = sum(p.numel() for p in parameters) <= _SMALL * subspace.config.num_points
        self.batched = (parameters[0].is_cuda and small) if batched is None else batched
        # A row a network.
        self.statistics: Statistics = {
            name: t.expand(len(coefficients), *t.shape).clone() for name, t in running_statistics(self.model).items()
        }

    def recalibrate(self, loader: Iterable, max_batches: int | None) -> int:
        """Takes every network's norm statistics in one pass over the loader; returns the number of samples."""
        return collect(self.model, self.statistics, self.logits, loader, max_batches)

    def logits(self, batch: Any) -> list[Tensor]:
        """Each network's logits for a batch."""
        args, kwargs = inputs_of(self.model, batch)

        def run(coefficients: Tensor, statistics: Statistics) -> Tensor:
            self.subspace.move_to(coefficients)
            return logits_of(functional_call(self.model, statistics, args, kwargs))

        if self.batched:
            return list(vmap(run)(self.coefficients, self.statistics).unbind())
        rows = [{name: t[i] for name, t in self.statistics.items()} for i in range(len(self.coefficients))]
        return [run(c, row) for c, row in zip(self.coefficients, rows, strict=True)]
