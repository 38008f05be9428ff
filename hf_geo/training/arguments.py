"""`GeoTrainingArguments`: transformers' arguments, with the geometry-aware optimizers among the choices."""

import difflib
import logging
from dataclasses import dataclass, field, fields
from typing import Literal

from transformers import TrainingArguments
from transformers.training_args import OptimizerNames

from hf_geo.subspaces import SubspaceConfig

from .baselines import find_method, known_methods
from .optim_args import parse_optim_args
from .ranges import check_ranges

logger = logging.getLogger(__name__)

DEFAULTS = {f.name: f.default for f in TrainingArguments.__dataclass_fields__.values()}
_HELP = {f.name: f.metadata for f in fields(SubspaceConfig)}
STAND_IN = "adamw_torch"  # what transformers' own checks see in place of a name they do not know


@dataclass
class GeoTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` whose `optim` also accepts `hf_geo.optim.list_optimizers()`, `adam`, `lars` and `lamb`.

    Differs from transformers in three defaults, which depend on the optimizer: `learning_rate` is the method's own (5e-5
    for transformers' optimizers), `max_grad_norm` is what the method needs (1.0 for transformers' optimizers), and weight
    decay never reaches norm layers and biases. `optim_args` are typed and checked at once, and may name one parameter
    group: "p_bound=2.0,betas=0.9:0.99,geometry.lr=0.2".

    Raises:
        ValueError: An unknown optimizer, `optim_args` its class does not take, or a number out of range.
    """

    optim: str = field(
        default=DEFAULTS["optim"],
        metadata={"help": f"The optimizer: {', '.join(known_methods())}, or any of transformers' own names."},
    )
    learning_rate: float | None = field(
        default=None,
        metadata={"help": "The initial learning rate; the optimizer's own default when not given."},
    )
    max_grad_norm: float | None = field(
        default=None,
        metadata={"help": "Largest gradient norm, 0 for no clipping; what the optimizer needs when not given."},
    )
    optim_args: str | None = field(
        default=None,
        metadata={"help": "Optimizer settings, such as 'p_bound=2.0' or, for one parameter group, 'geometry.lr=0.2'."},
    )
    milestones: list[float] | None = field(
        default=None,
        metadata={
            "help": "Epochs after which the learning rate is multiplied by --gamma: a step schedule (after --warmup_steps), "
            "in place of --lr_scheduler_type."
        },
    )
    gamma: float = field(default=0.1, metadata={"help": "Factor of the learning rate at each milestone."})
    swa_start: float | None = field(
        default=None,
        metadata={
            "help": "Stochastic weight averaging: from this share of training on (0.75, say), the weights at each epoch's end "
            "are averaged. The average is evaluated and exported."
        },
    )
    swa_lr: float | None = field(
        default=None,
        metadata={"help": "Constant learning rate from --swa_start on; the schedule goes on as it is when not given."},
    )
    ema_decay: float | None = field(
        default=None,
        metadata={
            "help": "Exponential moving average of the weights, this share of it kept at each update (0.999, say). The "
            "average is evaluated and exported."
        },
    )
    geometry_groups: str = field(
        default="auto",
        metadata={
            "help": "Which weights get the geometry of methods that have one: auto measures which are scale-invariant, "
            "structure goes by the layers, none takes none, and a regular expression chooses by name."
        },
    )
    log_geometry: bool = field(
        default=False,
        metadata={"help": "Log what the optimizer does to each layer: norms, relative updates, step sizes, angles."},
    )
    max_nonfinite_steps: int = field(
        default=20,
        metadata={"help": "Stop after this many updates in a row whose loss or gradient is not finite."},
    )

    def __post_init__(self) -> None:
        name = getattr(self.optim, "value", self.optim)
        self._check_name(name)
        ours = name in known_methods()
        if self.learning_rate is None:
            self.learning_rate = find_method(name).lr if ours else DEFAULTS["learning_rate"]
        if ours:
            parse_optim_args(find_method(name), self.optim_args)
        check_ranges(self)
        self._set_clipping(name if ours else None)
        self._check_averaging()
        self._set_direction()
        self.optim = STAND_IN if ours else name
        super().__post_init__()
        if ours:
            self.optim = name
        if self.log_geometry and self.logging_strategy != "steps":
            raise ValueError(
                f"--log_geometry measures at logging steps: it needs --logging_strategy steps, not {self.logging_strategy.value}."
            )

    @staticmethod
    def _check_name(name: str) -> None:
        theirs = [n.value for n in OptimizerNames]
        if name not in theirs and name not in known_methods():
            near = difflib.get_close_matches(str(name), [*known_methods(), *theirs], n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"Unknown optimizer {name!r}.{hint} From hf_geo: {', '.join(known_methods())}. From transformers: {', '.join(theirs)}."
            )

    def _set_direction(self) -> None:
        """Sets `greater_is_better` where it is not given; transformers takes all but losses as better when greater."""
        if self.metric_for_best_model is None or self.greater_is_better is not None:
            return
        from hf_geo.metrics import find_metric  # loads `evaluate`, which few runs' arguments need

        if metric := find_metric(self.metric_for_best_model):
            self.greater_is_better = metric.higher_is_better

    def _check_averaging(self) -> None:
        if self.swa_start is not None and not 0 <= self.swa_start < 1:
            raise ValueError(f"--swa_start is a share of training, from 0 to below 1; got {self.swa_start}.")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"--ema_decay is a share between 0 and 1; got {self.ema_decay}.")
        if self.swa_start is not None and self.ema_decay is not None:
            raise ValueError("--swa_start and --ema_decay are two averages of the same weights: give one of them.")
        if self.swa_lr is not None and self.swa_start is None:
            raise ValueError("--swa_lr is the learning rate from --swa_start on: give that too.")
        if self.swa_lr is not None and not self.swa_lr > 0:
            raise ValueError(f"--swa_lr is a learning rate above 0; got {self.swa_lr}.")
        if self.swa_lr is not None and self.lr_scheduler_type in ("reduce_lr_on_plateau", "greedy"):
            raise ValueError(
                f"--swa_lr follows a fixed schedule, which --lr_scheduler_type {self.lr_scheduler_type} is not."
            )

    def _set_clipping(self, name: str | None) -> None:
        """Resolves `max_grad_norm` by the method's policy, and says so where the user's value works against it."""
        policy = find_method(name).clipping if name else "allowed"
        self._clipping_given = self.max_grad_norm is not None
        if not self._clipping_given:
            self.max_grad_norm = DEFAULTS["max_grad_norm"] if policy == "allowed" else 0.0
        elif self.max_grad_norm > 0 and policy != "allowed":
            effect = {
                "harmful": "the step grows by the factor the gradient shrinks by, beyond the method's own",
                "irrelevant": "the method does not see the gradient's scale, so clipping changes nothing",
                "own": "the method clips each group by itself (grad_clip), after this",
            }[policy]
            log = logger.warning if policy == "harmful" else logger.info
            log("max_grad_norm=%s with %s: %s; --max_grad_norm 0 turns it off.", self.max_grad_norm, name, effect)

    def set_optimizer(
        self, name: str = STAND_IN, learning_rate: float | None = None, **kwargs
    ) -> "GeoTrainingArguments":
        """As in transformers, for all optimizer names; `learning_rate` and clipping not given are the optimizer's own."""
        name = getattr(name, "value", name)
        self._check_name(name)
        ours = name in known_methods()
        if learning_rate is None:
            learning_rate = find_method(name).lr if ours else DEFAULTS["learning_rate"]
        if ours:
            parse_optim_args(find_method(name), kwargs.get("args"))
        if not self._clipping_given:
            self.max_grad_norm = None
        self._set_clipping(name if ours else None)
        super().set_optimizer(STAND_IN if ours else name, learning_rate=learning_rate, **kwargs)
        if ours:
            self.optim = name
        return self


@dataclass
class SubspaceArguments:
    """Training a subspace of networks instead of one."""

    _argument_group_name = "Subspace"

    subspace: Literal["line", "curve", "simplex"] | None = field(
        default=None, metadata={"help": "Train a line, a curve or a simplex of networks instead of a single one."}
    )
    num_points: int | None = field(default=None, metadata=_HELP["num_points"])
    layerwise: bool = field(default=False, metadata=_HELP["layerwise"])
    subspace_beta: float = field(default=1.0, metadata=_HELP["beta"])
    subspace_parameters: str = field(default="all", metadata=_HELP["parameters"])
    subspace_samples: int = field(default=1, metadata=_HELP["num_samples"])

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
        return SubspaceConfig(
            kind=self.subspace,
            num_points=self.num_points,
            layerwise=self.layerwise,
            beta=self.subspace_beta,
            parameters=self.subspace_parameters,
            num_samples=self.subspace_samples,
        )


@dataclass
class RunArguments:
    """The run as a whole."""

    _argument_group_name = "Run"

    task: str | None = field(
        default=None, metadata={"help": "image-classification or causal-lm. Default: told from the data set."}
    )
    overwrite: bool = field(
        default=False, metadata={"help": "Replace what an earlier run left in --output_dir, its checkpoints included."}
    )
    fallback_dir: str | None = field(
        default=None,
        metadata={
            "help": "Where the result goes when the disk of --output_dir refuses it: full, read-only, over quota."
        },
    )
