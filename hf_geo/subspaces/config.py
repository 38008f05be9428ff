"""The settings of a subspace."""

import math
import re
from dataclasses import dataclass, field

from .shapes import SHAPES, Shape


@dataclass(frozen=True)
class SubspaceConfig:
    """Settings of a subspace (Wortsman et al. 2021, arXiv 2102.10472).

    Raises:
        ValueError: A setting is out of range, or does not fit the kind.
    """

    kind: str = field(default="line", metadata={"help": "line, curve (quadratic Bezier) or simplex."})
    num_points: int | None = field(
        default=None,
        metadata={"help": "Control points: a line has 2, a curve 3, a simplex 2 or more (default 3)."},
    )
    layerwise: bool = field(default=False, metadata={"help": "Draw a position for every layer instead of one for all."})
    beta: float = field(
        default=1.0,
        metadata={"help": "Factor of the squared cosine of two points in the loss; 0 leaves it out."},
    )
    parameters: str = field(
        default="all",
        metadata={
            "help": "Which parameters have control points: all, trainable (says the same: frozen ones never have), "
            "or a regular expression searched for in their names."
        },
    )
    num_samples: int = field(default=1, metadata={"help": "Positions a training batch is split over."})
    shared_draws: bool = field(
        default=False, metadata={"help": "Whether all processes train at the same position instead of each at its own."}
    )
    jitter: float = field(
        default=0.01,
        metadata={"help": "Size of a later control point's random offset from the first, relative to each tensor's."},
    )
    fixed_ends: bool = field(
        default=False, metadata={"help": "Train only the bend of a curve: mode connectivity (Garipov et al. 2018)."}
    )
    penalize_bend: bool = field(
        default=False,
        metadata={"help": "Whether a curve's bend too is pushed away from its ends, one of the three pairs a batch."},
    )

    def __post_init__(self) -> None:
        if self.kind not in SHAPES:
            raise ValueError(f"A subspace is a {', a '.join(SHAPES)}; there is no kind {self.kind!r}.")
        if self.num_points is None:
            object.__setattr__(self, "num_points", self.shape.default_points)
        if not self.shape.allows(self.num_points):
            raise ValueError(f"A {self.kind} has {self.shape.requirement} control points, not {self.num_points}.")
        if not (math.isfinite(self.beta) and self.beta >= 0):
            raise ValueError(f"beta is a finite number, zero or more; got {self.beta}.")
        if not (math.isfinite(self.jitter) and self.jitter > 0):
            raise ValueError(f"jitter is a finite number above zero; got {self.jitter}.")
        if self.num_samples < 1:
            raise ValueError(f"num_samples is one or more; got {self.num_samples}.")
        if self.penalize_bend and self.kind != "curve":
            raise ValueError(f"penalize_bend is for the bend of a curve; a {self.kind} has none.")
        if self.fixed_ends and self.kind != "curve":
            raise ValueError(f"fixed_ends leaves the bend of a curve to train; a {self.kind} has none.")
        try:
            re.compile(self.parameters)
        except re.error as error:
            raise ValueError(
                f"parameters is 'all', 'trainable' or a regular expression; {self.parameters!r} is none: {error}."
            ) from error

    @property
    def shape(self) -> Shape:
        return SHAPES[self.kind]

    def selects(self, name: str) -> bool:
        """Whether the parameter of this name gets control points, if it is trainable."""
        return self.parameters in ("all", "trainable") or re.search(self.parameters, name) is not None

    def check_point(self, index: int) -> None:
        """Raises `ValueError` if there is no control point of this number."""
        if index not in range(self.num_points):
            raise ValueError(f"A {self.kind} of {self.num_points} points has no control point {index!r}.")
