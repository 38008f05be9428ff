"""`GeoTrainingArguments`: transformers' arguments, with the geometry-aware optimizers among the choices."""

import difflib
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import TrainingArguments
from transformers.training_args import OptimizerNames

from .methods import find_method, known_methods, parse_optim_args

logger = logging.getLogger(__name__)

DEFAULTS = {f.name: f.default for f in TrainingArguments.__dataclass_fields__.values()}
_PLACEHOLDER = "adamw_torch"


@dataclass
class GeoTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` whose `optim` also accepts `hf_geo.optim.list_optimizers()`, `adam`, `lars` and `lamb`.

    Differs from transformers in three defaults, which depend on the optimizer: `learning_rate` is the method's own (5e-5
    for transformers' optimizers), `max_grad_norm` is the method's own (1.0 for transformers' optimizers), and weight
    decay reaches norm layers and biases only with `decay_all`. `optim_args` are typed and checked at once, and may name one parameter
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
        metadata={
            "help": "The initial learning rate; the optimizer's own default when not given; inf for ALI-G without a bound."
        },
    )
    max_grad_norm: float | None = field(
        default=None,
        metadata={"help": "Largest gradient norm, 0 for no clipping; the optimizer's own default when not given."},
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
    swa_schedule: Literal["end", "linear"] = field(
        default="end",
        metadata={
            "help": "How --swa_lr is reached: at --swa_start from whatever the schedule has come to; or, as Izmailov et al. "
            "2018, on a line that leaves the first rate after half of training and ends at nine tenths."
        },
    )
    ema_decay: float | None = field(
        default=None,
        metadata={
            "help": "Exponential moving average of the weights, this share of it kept at each update (0.999, say). The "
            "average is evaluated and exported."
        },
    )
    decay_all: bool = field(
        default=False, metadata={"help": "Decay norm layers and biases too, as torch's optimizers do."}
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
        metadata={"help": "Log the optimizer's effect on each layer: norms, relative updates, step sizes, angles."},
    )
    log_accuracy: bool = field(
        default=False,
        metadata={"help": "Log the share of right predictions in training, of a classifier, as training_accuracy."},
    )
    max_nonfinite_steps: int = field(
        default=20, metadata={"help": "Stop after this many updates in a row whose loss or gradient is not finite."}
    )

    def __post_init__(self) -> None:
        check_ranges(self)
        self._check_averaging()
        self._set_direction()
        name = getattr(self.optim, "value", self.optim)
        self._clipping_given = self.max_grad_norm is not None
        self.learning_rate = self._resolve(name, self.learning_rate, self.optim_args)
        # transformers (5.24) refuses a name that it does not know, so it sees another one while it checks the rest.
        self.optim = _PLACEHOLDER if name in known_methods() else name
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
        placeholder = _PLACEHOLDER if name in known_methods() else name
        super().set_optimizer(placeholder, learning_rate=learning_rate, **kwargs)
        self._restore_name(name)
        return self

    def _resolve(self, name: str, learning_rate: float | None, optim_args: str | None) -> float:
        """Checks an optimizer's name and settings, sets its clipping, and returns its learning rate."""
        ours = name in known_methods()
        theirs = [n.value for n in OptimizerNames]
        if name not in theirs and not ours:
            near = difflib.get_close_matches(str(name), [*known_methods(), *theirs], n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"Unknown optimizer {name!r}.{hint} From hf_geo: {', '.join(known_methods())}. From transformers: {', '.join(theirs)}."
            )
        if ours:
            parse_optim_args(find_method(name), optim_args)
        if learning_rate == math.inf and not (ours and find_method(name).needs_loss):
            raise ValueError(
                f"--learning_rate inf leaves a step without a bound, which {name} cannot take: give a number."
            )
        scheduled = self.lr_scheduler_type != "constant" or self.milestones or self.warmup_steps
        if learning_rate == math.inf and scheduled:
            raise ValueError(
                "--learning_rate inf is nothing to schedule: give --lr_scheduler_type constant and no warm-up."
            )
        self._set_clipping(name if ours else None)
        if learning_rate is not None:
            return learning_rate
        return find_method(name).lr if ours else DEFAULTS["learning_rate"]

    def _restore_name(self, name: str) -> None:
        if name in known_methods():
            self.optim = name

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
        if self.swa_schedule == "linear" and self.swa_lr is None:
            raise ValueError("--swa_schedule linear leads to --swa_lr: give that too.")
        if self.swa_lr is not None and (self.milestones or self.learning_rate == 0):
            given = "--milestones" if self.milestones else "--learning_rate 0"
            raise ValueError(f"--swa_lr takes the place of a schedule's last part, which {given} leaves no place for.")
        if self.swa_lr is not None and self.lr_scheduler_type in ("reduce_lr_on_plateau", "greedy"):
            raise ValueError(
                f"--swa_lr follows a fixed schedule, which --lr_scheduler_type {self.lr_scheduler_type} is not."
            )

    def _set_clipping(self, name: str | None) -> None:
        """Sets `max_grad_norm` by the method's policy where it is not given; reports a value that works against the method."""
        policy = find_method(name).clipping if name else "allowed"
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


_LARGEST_SEED = 2**32 - 1  # NumPy's; torch takes larger ones


def _whole(least: int) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value >= least, f"a whole number of at least {least}"


_SHARE = (lambda value: 0 <= value <= 1, "a number from 0 to 1")
_BELOW_ONE = (lambda value: 0 <= value < 1, "a number from 0 to below 1")
_SIZE = (lambda value: math.isfinite(value) and value >= 0, "a finite number of at least 0")
_POSITIVE = (lambda value: math.isfinite(value) and value > 0, "a finite number above 0")
_SEED = (lambda value: 0 <= value <= _LARGEST_SEED, f"a whole number from 0 to {_LARGEST_SEED}")

# Ranges that transformers does not check, or checks only after the model is loaded.
RANGES = {
    "learning_rate": (lambda value: value >= 0, "a number of at least 0"),
    "weight_decay": _SIZE,
    "max_grad_norm": _SIZE,
    "gamma": _POSITIVE,
    "swa_start": (lambda value: 0 <= value < 1, "a share of training, from 0 to below 1"),
    "swa_lr": _POSITIVE,
    "ema_decay": (lambda value: 0 < value < 1, "a share between 0 and 1"),
    "adam_beta1": _BELOW_ONE,
    "adam_beta2": _BELOW_ONE,
    "adam_epsilon": _SIZE,
    "label_smoothing_factor": _SHARE,
    "num_train_epochs": _POSITIVE,
    "max_steps": (lambda value: value == -1 or value >= 1, "at least 1, or -1 to train for --num_train_epochs"),
    "warmup_steps": _SIZE,
    "per_device_train_batch_size": _whole(1),
    "per_device_eval_batch_size": _whole(1),
    "gradient_accumulation_steps": _whole(1),
    "eval_accumulation_steps": _whole(1),
    "dataloader_num_workers": _whole(0),
    "dataloader_prefetch_factor": _whole(1),
    "save_total_limit": _whole(1),
    "max_nonfinite_steps": _whole(1),
    "logging_steps": _POSITIVE,
    "save_steps": _POSITIVE,
    "eval_steps": _POSITIVE,
    "eval_delay": _SIZE,
    "seed": _SEED,
    "data_seed": _SEED,
}


def check_ranges(args: Any) -> None:
    """Raises `ValueError` for the first of `RANGES` that a number of the training arguments is outside of.

    Args:
        args: Training arguments; missing ones and None are not checked.
    """
    for name, (fits, takes) in RANGES.items():
        value = getattr(args, name, None)
        if isinstance(value, int | float) and not fits(value):
            raise ValueError(f"--{name} is {takes}, not {value}.")
    milestones = args.milestones or []
    if any(not after > before for before, after in zip([0.0, *milestones], milestones, strict=False)):
        raise ValueError(f"--milestones are epochs above 0 in rising order, not {' '.join(map(str, milestones))}.")
