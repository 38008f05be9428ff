"""`GeoTrainingArguments`: transformers' arguments, with the geometry-aware optimizers among the choices."""

import logging
import math
from dataclasses import dataclass
from typing import Literal

from transformers import TrainingArguments
from transformers.hf_argparser import HfArg
from transformers.training_args import OptimizerNames

from hf_geo.optim import Method

from .methods import find_method, known_methods, library_names, nearest_names, parse_optim_args, refuse_adam_flags
from .ranges import check_precision, check_ranges

logger = logging.getLogger(__name__)

DEFAULTS = {f.name: f.default for f in TrainingArguments.__dataclass_fields__.values()}
_PLACEHOLDER = "adamw_torch"


@dataclass
class GeoTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` whose `optim` also accepts `hf_geo.optim.list_optimizers()`, `adam`, `lars`, `lamb`, and
    `timm:NAME` and `torch:NAME` for every optimizer of timm's registry and of torch.optim.

    Differs from transformers in three defaults, which depend on the optimizer: `learning_rate` is the method's own (5e-5
    for transformers' optimizers), `max_grad_norm` is the method's own (1.0 for transformers' optimizers), and weight
    decay reaches norm layers and biases only with `decay_all`. `optim_args` are typed and checked at once, and may name one parameter
    group: "p_bound=2.0,betas=0.9:0.99,geometry.lr=0.2".

    Raises:
        ValueError: An unknown optimizer, `optim_args` its class does not take, or a number out of range.
    """

    optim: str = HfArg(
        default=DEFAULTS["optim"],
        help=f"The optimizer: {', '.join(known_methods())}, timm:NAME or torch:NAME for one of timm's registry or "
        "torch.optim, or any of transformers' own names. Whichever it is, weight decay is --weight_decay, 0 by default.",
    )
    learning_rate: float | None = HfArg(
        default=None,
        help="The initial learning rate; the optimizer's own default when not given; inf for ALI-G without a bound.",
    )
    max_grad_norm: float | None = HfArg(
        default=None, help="Largest gradient norm, 0 for no clipping; the optimizer's own default when not given."
    )
    optim_args: str | None = HfArg(
        default=None, help="Optimizer settings, such as 'p_bound=2.0' or, for one parameter group, 'geometry.lr=0.2'."
    )
    milestones: list[float] | None = HfArg(  # noqa: RUF009
        default=None,
        help="Epochs after which the learning rate is multiplied by --gamma: a step schedule (after --warmup_steps), "
        "in place of --lr_scheduler_type.",
    )
    gamma: float = HfArg(default=0.1, help="Factor of the learning rate at each milestone.")
    swa_start: float | None = HfArg(
        default=None,
        help="Stochastic weight averaging: from this share of training on (0.75, say), the weights at each epoch's end "
        "are averaged. The average is evaluated and exported.",
    )
    swa_lr: float | None = HfArg(
        default=None, help="Learning rate from --swa_start on; the schedule goes on as it is when not given."
    )
    swa_schedule: Literal["end", "linear", "cyclic"] = HfArg(
        default="end",
        help="How --swa_lr is reached: at --swa_start from whatever the schedule has come to; or, as Izmailov et al. "
        "2018, on a line that leaves the first rate after half of training and ends at nine tenths; or in --swa_cycles.",
    )
    swa_cycles: int | None = HfArg(
        default=None,
        help="With --swa_schedule cyclic: the learning rate falls to 0 by --swa_start, then this many times from "
        "--swa_lr to 0, along half cosines. The weights at each 0 are averaged.",
    )
    ema_decay: float | None = HfArg(
        default=None,
        help="Exponential moving average of the weights, this share of it kept at each update (0.999, say). The "
        "average is evaluated and exported.",
    )
    decay_all: bool = HfArg(default=False, help="Decay norm layers and biases too, as torch's optimizers do.")
    geometry_groups: str = HfArg(
        default="auto",
        help="Which weights get the geometry of methods that have one: auto measures which are scale-invariant, "
        "structure goes by the layers, none takes none, and a regular expression chooses by name.",
    )
    log_geometry: bool = HfArg(
        default=False, help="Log the optimizer's effect on each layer: norms, relative updates, step sizes, angles."
    )
    log_accuracy: bool = HfArg(
        default=False, help="Log the share of right predictions in training, of a classifier, as training_accuracy."
    )
    max_nonfinite_steps: int = HfArg(
        default=20, help="Stop after this many updates in a row whose loss or gradient is not finite."
    )

    def __post_init__(self) -> None:
        check_ranges(self)
        check_precision(self)
        self._check_averaging()
        self._set_direction()
        name = getattr(self.optim, "value", self.optim)
        self._clipping_given = self.max_grad_norm is not None
        self.learning_rate = self._resolve(name, self.learning_rate, self.optim_args)
        # transformers (5.24) refuses a name that it does not know, so it sees another one while it checks the rest.
        self.optim = _PLACEHOLDER if find_method(name) else name
        super().__post_init__()
        self._restore_name(name)
        if self.log_geometry and self.logging_strategy != "steps":
            raise ValueError(f"--log_geometry needs --logging_strategy steps, not {self.logging_strategy.value}.")

    def set_optimizer(
        self, name: str = _PLACEHOLDER, learning_rate: float | None = None, **kwargs
    ) -> "GeoTrainingArguments":
        """As in transformers, for all optimizer names; `learning_rate` and clipping not given are the optimizer's own."""
        name = getattr(name, "value", name)
        learning_rate = self._resolve(name, learning_rate, kwargs.get("args"))
        placeholder = _PLACEHOLDER if find_method(name) else name
        super().set_optimizer(placeholder, learning_rate=learning_rate, **kwargs)
        self._restore_name(name)
        check_ranges(self)
        return self

    def _resolve(self, name: str, learning_rate: float | None, optim_args: str | None) -> float:
        """Checks an optimizer's name and settings, sets its clipping, and returns its learning rate."""
        method = find_method(name)
        theirs = [n.value for n in OptimizerNames]
        if method is None and name not in theirs:
            near = nearest_names(name, [*known_methods(), *theirs, *library_names()])
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ValueError(
                f"Unknown optimizer {name!r}.{hint} From hf_geo: {', '.join(known_methods())}. From transformers: "
                f"{', '.join(theirs)}. Of timm and torch.optim: timm:NAME and torch:NAME."
            )
        if method:
            parse_optim_args(method, optim_args)
        if learning_rate == math.inf and not (method and method.needs_loss):
            raise ValueError(
                f"--learning_rate inf leaves a step without a bound, which {name} cannot take: give a number."
            )
        scheduled = self.lr_scheduler_type != "constant" or self.milestones or self.warmup_steps
        if learning_rate == math.inf and scheduled:
            raise ValueError(
                "--learning_rate inf is nothing to schedule: give --lr_scheduler_type constant and no warm-up."
            )
        self._set_clipping(method)
        if learning_rate is None:
            learning_rate = method.lr if method else DEFAULTS["learning_rate"]
        if learning_rate is None:
            raise ValueError(f"{name} has no learning rate of its own: give --learning_rate.")
        return learning_rate

    def _restore_name(self, name: str) -> None:
        if method := find_method(name):
            self.optim = name
            refuse_adam_flags(method, self)

    def _set_direction(self) -> None:
        """Sets `greater_is_better` where it is not given; transformers takes all but losses as better when greater."""
        if self.metric_for_best_model is None or self.greater_is_better is not None:
            return
        from hf_geo.metrics import find_metric  # loads `evaluate`, which few runs' arguments need

        if metric := find_metric(self.metric_for_best_model):
            self.greater_is_better = metric.higher_is_better

    def _check_averaging(self) -> None:
        if self.swa_start is not None and self.ema_decay is not None:
            raise ValueError("--swa_start and --ema_decay are two averages of the same weights: give one of them.")
        if self.swa_lr is not None and self.swa_start is None:
            raise ValueError("--swa_lr is the learning rate from --swa_start on: give that too.")
        if self.swa_schedule != "end" and self.swa_lr is None:
            raise ValueError(f"--swa_schedule {self.swa_schedule} leads to --swa_lr: give that too.")
        if (self.swa_schedule == "cyclic") != (self.swa_cycles is not None):
            raise ValueError("--swa_schedule cyclic and --swa_cycles need each other: give both or neither.")
        if self.swa_lr is not None and (self.milestones or self.learning_rate in (0, math.inf)):
            given = "--milestones" if self.milestones else f"--learning_rate {self.learning_rate:g}"
            raise ValueError(f"--swa_lr takes the place of a schedule's last part, which {given} leaves no place for.")
        if self.swa_lr is not None and self.lr_scheduler_type in ("reduce_lr_on_plateau", "greedy"):
            raise ValueError(
                f"--swa_lr follows a fixed schedule, which --lr_scheduler_type {self.lr_scheduler_type} is not."
            )

    def _set_clipping(self, method: Method | None) -> None:
        """Sets `max_grad_norm` by the method's policy where it is not given; reports a value that works against the method."""
        policy = method.clipping if method else "allowed"
        if not self._clipping_given:
            self.max_grad_norm = DEFAULTS["max_grad_norm"] if policy == "allowed" else 0.0
        elif self.max_grad_norm > 0 and policy != "allowed":
            effect = {
                "harmful": "the step grows by the factor the gradient shrinks by, beyond the method's own",
                "irrelevant": "the method does not see the gradient's scale, so clipping changes nothing",
                "own": "the method clips each group by itself (grad_clip), after this",
            }[policy]
            log = logger.warning if policy == "harmful" else logger.info
            log(
                "max_grad_norm=%s with %s: %s; --max_grad_norm 0 turns it off.", self.max_grad_norm, method.name, effect
            )
