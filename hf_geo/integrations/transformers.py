"""The optimizers' names in transformers' own Trainer, for `--optim fromage` in any script."""

import functools
import logging
from typing import Any

import torch
import transformers
from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.training_args import OptimizerNames

from hf_geo.optim import Method, list_optimizers
from hf_geo.training.loss import hand_loss_to_optimizer
from hf_geo.training.methods import (
    apply_module_settings,
    find_method,
    known_methods,
    library_names,
    refuse_adam_flags,
    split_module_settings,
)
from hf_geo.training.optimizers import make_optimizer, optimizer_class
from hf_geo.training.trainer import GeoTrainer

logger = logging.getLogger(__name__)


def register_transformers() -> None:
    """Makes `optim="fromage"` and all other names that `GeoTrainer` knows work in `transformers.Trainer` and its subclasses.

    Call it before the script parses its arguments. Two public methods of `Trainer` are extended for good:
    `get_optimizer_cls_and_kwargs` knows the names, and `training_step` hands the loss to methods that need it. A learning
    rate or `max_grad_norm` left at its default becomes the method's own, and a log line says so. Weights with a geometry
    are found by module structure. Calling it again only adds methods that were registered since.

    Raises:
        RuntimeError: A transformers whose optimizer names cannot be extended.
    """
    _add_names()
    theirs, step = Trainer.get_optimizer_cls_and_kwargs, Trainer.training_step
    if hasattr(step, "hf_geo"):
        return

    @functools.wraps(theirs)
    def get_optimizer_cls_and_kwargs(args: TrainingArguments, model=None) -> tuple[Any, dict[str, Any]]:
        method = find_method(args.optim)
        if method is None:
            return theirs(args, model)
        refuse_adam_flags(method, args)
        _use_own_defaults(args, method)
        if method.name not in list_optimizers():
            for module in split_module_settings(args, model)[1]:
                raise ValueError(
                    f"optim_args sets {module!r} apart, which {method.name} takes from hf_geo.GeoTrainer only."
                )
            return optimizer_class(args, model)
        # If this is no optimizer class, transformers calls factory()(model, **kwargs), with kwargs that subclasses extend.
        return (lambda: functools.partial(_make_optimizer, args, model)), {}

    @functools.wraps(step)
    def training_step(self, *args, **kwargs):
        loss = step(self, *args, **kwargs)
        if not isinstance(self, GeoTrainer):  # GeoTrainer does it itself
            hand_loss_to_optimizer(self, loss)
        return loss

    training_step.hf_geo = True
    Trainer.get_optimizer_cls_and_kwargs = staticmethod(get_optimizer_cls_and_kwargs)
    Trainer.training_step = training_step


def _make_optimizer(
    args: TrainingArguments,
    named_model: nn.Module | None,
    trained_model: nn.Module,
    /,
    *,
    params: Any = None,
    model: Any = None,
    optimizer_dict: Any = None,
) -> torch.optim.Optimizer:
    """Makes the optimizer of a Trainer, whose subclass may have chosen the parameters or the model.

    Args:
        args: The Trainer's arguments.
        named_model: The model given to `get_optimizer_cls_and_kwargs`. sentence-transformers gives its loss, which holds
            the model and may have weights of its own.
        trained_model: The Trainer's model, used if none was given.
        params, model, optimizer_dict: Keys under which transformers lets subclasses pass parameters, parameter groups or
            another model.
    """
    network = trained_model if named_model is None else named_model
    given = next((value for value in (params, model, optimizer_dict) if value is not None), None)
    if isinstance(given, nn.Module):
        network, given = given, None
    if given is not None:
        given = list(given)
        given = given if given and isinstance(given[0], dict) else [{"params": given}]
    optimizer = make_optimizer(args, network, geometry="structure", caller_groups=given)
    apply_module_settings(optimizer, network, args)
    return optimizer


def _add_names() -> None:
    """Adds the names to the enum `OptimizerNames`, against which transformers checks `optim`."""
    for name in (*known_methods(), *library_names()):
        if name in OptimizerNames._value2member_map_:
            continue
        member = str.__new__(OptimizerNames, name)
        member._name_, member._value_ = name.upper(), name
        # Pickled as plain text, so that saved arguments (training_args.bin) open where these names are not registered.
        member.__reduce_ex__ = lambda protocol, name=name: (str, (name,))
        OptimizerNames._member_map_[member._name_] = member
        OptimizerNames._value2member_map_[name] = member
        OptimizerNames._member_names_.append(member._name_)
        if OptimizerNames(name) is not member or member not in list(OptimizerNames):
            raise RuntimeError(
                f"The optimizer names of transformers {transformers.__version__} cannot be extended: use hf_geo.GeoTrainer, or a release "
                "of transformers that hf_geo was tested with."
            )


def _use_own_defaults(args: TrainingArguments, method: Method) -> None:
    """Sets the learning rate and clipping to the method's own if the script left them at its defaults."""
    defaults = {f.name: f.default for f in type(args).__dataclass_fields__.values()}
    wanted = {"learning_rate": method.lr} if method.lr is not None else {}
    if method.clipping != "allowed":
        wanted["max_grad_norm"] = 0.0
    for name, value in wanted.items():
        if getattr(args, name) == defaults[name]:
            logger.warning(
                "%s=%s is the script's default; with %s it becomes %s.", name, defaults[name], method.name, value
            )
            setattr(args, name, value)
