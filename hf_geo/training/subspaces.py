"""Training on a subspace inside a Trainer: its settings, the positions and losses of batches, and the centre."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import Trainer
from transformers.hf_argparser import HfArg

from hf_geo.evaluation.norms import recalibrate_norms
from hf_geo.subspaces import Subspace, SubspaceConfig, draw_generator, split_batch
from hf_geo.subspaces.regularizer import compare_points

from .loss import missing_divisor
from .norms import fresh_statistics

SHARED_DRAW = -1  # in place of a process's number, in the key of draws that all processes share
_HELP = {f.name: f.metadata for f in fields(SubspaceConfig)}


@dataclass
class SubspaceArguments:
    """Training a subspace of networks instead of one."""

    _argument_group_name = "Subspace"

    subspace: Literal["line", "curve", "simplex"] | None = HfArg(
        default=None, help="Train a line, a curve or a simplex of networks instead of a single one."
    )
    num_points: int | None = field(default=None, metadata=_HELP["num_points"])
    layerwise: bool = field(default=False, metadata=_HELP["layerwise"])
    subspace_beta: float = field(default=1.0, metadata=_HELP["beta"])
    subspace_parameters: str = field(default="all", metadata=_HELP["parameters"])
    subspace_samples: int = field(default=1, metadata=_HELP["num_samples"])
    penalize_bend: bool = field(default=False, metadata=_HELP["penalize_bend"])
    subspace_ends: list[str] | None = HfArg(  # noqa: RUF009
        default=None,
        help="Two trained networks, folders or Hub ids, that stay fixed: only the bend of a curve is trained.",
    )

    @property
    def config(self) -> SubspaceConfig | None:
        """The settings of the subspace; None without one.

        Raises:
            ValueError: A setting is out of range, or there is one and no subspace.
        """
        if self.subspace is None:
            stray = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
            if stray:
                raise ValueError(
                    f"--{stray[0]} {getattr(self, stray[0])} is about a subspace, and there is none: "
                    "give --subspace (line, curve or simplex) too, or leave it out."
                )
            return None
        if self.subspace_ends and len(self.subspace_ends) != 2:
            raise ValueError(
                f"--subspace_ends are two networks; got {len(self.subspace_ends)}: {', '.join(self.subspace_ends)}."
            )
        return SubspaceConfig(
            kind=self.subspace,
            num_points=self.num_points,
            layerwise=self.layerwise,
            beta=self.subspace_beta,
            parameters=self.subspace_parameters,
            num_samples=self.subspace_samples,
            penalize_bend=self.penalize_bend,
            fixed_ends=bool(self.subspace_ends),
        )


class SubspaceTraining:
    """The positions and losses of a Trainer's run on a subspace.

    Draws are keyed by (seed, update, micro-batch, process), so that a resumed run needs nothing saved for them. Processes
    draw independently, unless the subspace's settings share the draws.

    Args:
        trainer: A `GeoTrainer`.
        subspace: Attached to the Trainer's model, or the settings of one to attach.
    """

    def __init__(self, trainer: Trainer, subspace: Subspace | SubspaceConfig) -> None:
        args = trainer.args
        if isinstance(subspace, SubspaceConfig):
            subspace = Subspace.attach(trainer.model, subspace, seed=args.seed)
        self.subspace = subspace
        self.seed = args.seed
        self.rank = 0 if subspace.config.shared_draws else args.process_index
        self.is_final = False
        self._trainer = trainer
        if subspace.config.num_samples > 1 and args.ddp_broadcast_buffers is None:
            # DDP would overwrite buffers between the forwards of one backward (pytorch/pytorch#175024).
            trainer.accelerator.ddp_handler.broadcast_buffers = False

    def loss(self, compute: Callable[[Mapping], Tensor], inputs: Mapping[str, Any], key: tuple[int, int]) -> Tensor:
        """The mean loss over a batch's items, its samples divided over the drawn positions, with the regularizer.

        Args:
            compute: From a part of the batch to the mean loss over its items.
            inputs: The batch.
            key: Number of the update, and of the micro-batch within it.
        """
        generator = draw_generator(self.seed, *key, self.rank)
        parts = split_batch(inputs, self.subspace.config.num_samples)
        counts = [self._trainer._updates.count(part) for part in parts]
        total = torch.as_tensor(sum(counts)).clamp(min=1)
        losses = []
        for part, count in zip(parts, counts, strict=True):
            self.subspace.sample(generator)
            losses.append(compute(part) * count / total)
        loss, beta = sum(losses[1:], losses[0]), self.subspace.config.beta
        if not beta:
            return loss
        # All processes draw the same pair of control points.
        regularizer = self.subspace.regularizer(generator=draw_generator(self.seed, *key, SHARED_DRAW))
        return loss + beta * regularizer / missing_divisor(self._trainer)

    def measures(self) -> dict[str, float]:
        """Cosine and L2 distance of every two control points, for the log: `subspace/cosine/0-1` and so on."""
        points = [self.subspace.point_weights(index) for index in range(self.subspace.config.num_points)]
        return {f"subspace/{name}": value for name, value in compare_points(points).items()} if points[0] else {}

    @contextmanager
    def for_evaluation(self, model: nn.Module, batches: Callable[[], Iterable]) -> Iterator[None]:
        """Gives the model, inside the context, the centre's weights and norm statistics.

        Args:
            model: The subspace's.
            batches: Makes a loader of training samples; called only if there are statistics to take.
        """
        self.subspace.set_centre()
        with nullcontext() if self.is_final else fresh_statistics(model, batches):
            yield

    def finalize(self, model: nn.Module, batches: Iterable) -> None:
        """Moves the model to the centre for good, with its norm statistics, as it will be exported."""
        self.subspace.set_centre()
        recalibrate_norms(model, batches)
        self.is_final = True
