"""The optimizers' names in transformers' own Trainer: any script's `--optim fromage`."""

import functools
import logging
from typing import Any

import transformers
from transformers import Trainer, TrainingArguments
from transformers.training_args import OptimizerNames

from hf_geo.optim import get_method, list_optimizers
from hf_geo.training.loss import hand_over_loss
from hf_geo.training.optimizers import make_optimizer
from hf_geo.training.trainer import GeoTrainer

logger = logging.getLogger(__name__)


def register_transformers() -> None:
    """Makes `optim="fromage"` and the other registered names work in `transformers.Trainer` and its subclasses.

    Call it before the script parses its arguments. Two public methods of `Trainer` are extended for good:
    `get_optimizer_cls_and_kwargs` knows the names, and `training_step` tells loss-dependent methods the loss. A
    learning rate or `max_grad_norm` left at its default becomes the method's own, and a log line says so. Weights with
    a geometry are found by module structure. Calling it again changes nothing, except that methods registered since
    are added.

    Raises:
        RuntimeError: A transformers whose optimizer names cannot be extended.
    """
    _add_names()
    theirs, step = Trainer.get_optimizer_cls_and_kwargs, Trainer.training_step
    if hasattr(step, "hf_geo"):
        return

    @functools.wraps(theirs)
    def get_optimizer_cls_and_kwargs(args: TrainingArguments, model=None) -> tuple[Any, dict[str, Any]]:
        if args.optim not in list_optimizers():
            return theirs(args, model)
        _use_own_defaults(args)
        # transformers calls what is not an optimizer class as factory()(model, **kwargs)
        return (lambda: functools.partial(make_optimizer, args, geometry="structure")), {}

    @functools.wraps(step)
    def training_step(self, *args, **kwargs):
        loss = step(self, *args, **kwargs)
        if not isinstance(self, GeoTrainer):  # which does it by itself
            hand_over_loss(self, loss)
        return loss

    training_step.hf_geo = True
    Trainer.get_optimizer_cls_and_kwargs = staticmethod(get_optimizer_cls_and_kwargs)
    Trainer.training_step = training_step


def _add_names() -> None:
    """Adds the registered names to `OptimizerNames`, which transformers checks `optim` against and offers no door to."""
    for name in list_optimizers():
        if name in OptimizerNames._value2member_map_:
            continue
        member = str.__new__(OptimizerNames, name)
        member._name_, member._value_ = name.upper(), name
        OptimizerNames._member_map_[member._name_] = member
        OptimizerNames._value2member_map_[name] = member
        OptimizerNames._member_names_.append(member._name_)
        if OptimizerNames(name) is not member or member not in list(OptimizerNames):
            raise RuntimeError(
                f"The optimizer names of transformers {transformers.__version__} cannot be extended: use hf_geo.GeoTrainer, or a release "
                "of transformers that hf_geo was tested with."
            )


def _use_own_defaults(args: TrainingArguments) -> None:
    """Gives `args` the method's learning rate and clipping where the script left its own defaults."""
    method = get_method(args.optim)
    defaults = {f.name: f.default for f in type(args).__dataclass_fields__.values()}
    wanted = {"learning_rate": method.lr}
    if method.clipping != "allowed":
        wanted["max_grad_norm"] = 0.0
    for name, value in wanted.items():
        if getattr(args, name) == defaults[name]:
            logger.warning(
                "%s=%s is the script's default; with %s it becomes %s.", name, defaults[name], method.name, value
            )
            setattr(args, name, value)
