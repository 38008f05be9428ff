"""Several networks that are evaluated on the same batches: positions of a subspace, or independent models."""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from hf_geo.subspaces import Subspace

from .batches import inputs_of, logits_of
from .moments import MomentCollector, Moments
from .norms import Statistics, collect, running_statistics

logger = logging.getLogger(__name__)
_SMALL = 3_000_000  # parameters: networks up to this size cannot keep a GPU busy one at a time


class Models:
    """Independent models, in evaluation mode."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.models = models

    def logits(self, batch: Any) -> list[Tensor]:
        """Each model's logits for a batch."""
        inputs = [inputs_of(model, batch) for model in self.models]
        return [logits_of(model(*args, **kwargs)) for model, (args, kwargs) in zip(self.models, inputs, strict=True)]


class Positions:
    """Networks at positions of one subspace, each with its own norm statistics.

    The model's statistics stay unchanged; its position is that of the last call.

    Args:
        subspace: The subspace.
        coefficients: (networks, num_points), or (networks, num_layers, num_points).
        batched: Whether to evaluate all networks in one call (`torch.func.vmap`); by default small networks on a GPU. It
            becomes False after the first call that vmap cannot make.
        point_statistics: The norm statistics of each control point's own network. A network at a control point keeps
            them; any other starts from their weighted mean. By default all start from the model's.
    """

    def __init__(
        self,
        subspace: Subspace,
        coefficients: Tensor,
        batched: bool | None = None,
        point_statistics: Sequence[Statistics] | None = None,
    ) -> None:
        self.subspace, self.model = subspace, subspace.model
        self.coefficients = coefficients
        parameters = list(self.model.parameters())
        small = sum(p.numel() for p in parameters) <= _SMALL * subspace.config.num_points
        self.batched = (parameters[0].is_cuda and small) if batched is None else batched
        # One row for each network.
        self.statistics: Statistics = {
            name: t.expand(len(coefficients), *t.shape).clone() for name, t in running_statistics(self.model).items()
        }
        self._fixed = torch.zeros(len(coefficients), dtype=torch.bool)
        if point_statistics is not None:
            self._fixed = (coefficients == 1).any(-1)
            for name, rows in self.statistics.items():
                weights = coefficients.to(rows.device, torch.float32).view(*coefficients.shape, *[1] * (rows.ndim - 1))
                own = [point[name].to(rows.device) for point in point_statistics]
                rows.copy_(sum(weights[:, i] * value for i, value in enumerate(own)))

    def recalibrate(self, loader: Iterable, max_batches: int | None) -> int:
        """Recalibrates every network in one pass over the loader, and returns the number of samples."""

        def add(batch: Any, moments: Moments, collector: MomentCollector) -> Moments:
            def run(coefficients: Tensor, statistics: Statistics, moments: Moments) -> Moments:
                return collector.add(moments, lambda: self._output(batch, coefficients, statistics))

            batched = self._try_vmap(run, moments)
            if batched is not None:
                return batched
            networks = zip(self.coefficients, self._rows(self.statistics), self._rows(moments), strict=True)
            rows = [run(*network) for network in networks]
            return {name: torch.stack([row[name] for row in rows]) for name in moments}

        before = {name: rows.clone() for name, rows in self.statistics.items()}
        samples = collect(self.model, self.statistics, (len(self.coefficients),), add, loader, max_batches)
        for name, rows in self.statistics.items():
            rows[self._fixed] = before[name][self._fixed]
        return samples

    def logits(self, batch: Any) -> list[Tensor]:
        """Each network's logits for a batch."""

        def run(coefficients: Tensor, statistics: Statistics) -> Tensor:
            return logits_of(self._output(batch, coefficients, statistics))

        batched = self._try_vmap(run)
        if batched is not None:
            return list(batched.unbind())
        return [run(c, s) for c, s in zip(self.coefficients, self._rows(self.statistics), strict=True)]

    def _output(self, batch: Any, coefficients: Tensor, statistics: Statistics) -> Any:
        args, kwargs = inputs_of(self.model, batch)
        self.subspace.move_to(coefficients)
        return functional_call(self.model, statistics, args, kwargs)

    def _try_vmap(self, run: Callable, *more: dict[str, Tensor]) -> Any | None:
        """Runs all networks in one call; returns None if they have to run one by one."""
        if not self.batched:
            return None
        try:
            return vmap(run)(self.coefficients, self.statistics, *more)
        except Exception as error:  # of any type, where vmap has no rule; a mistake in the model raises again below
            self.batched = False
            reason = next(iter(str(error).splitlines()), "")
            logger.warning("Positions are evaluated one by one: vmap raised %s: %s", type(error).__name__, reason)
            return None

    def _rows(self, stacked: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        return [{name: t[i] for name, t in stacked.items()} for i in range(len(self.coefficients))]
