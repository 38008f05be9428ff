"""Optimizers the papers compared with that transformers has no name for: Adam with L2 regularization, LARS and LAMB."""

from typing import Any

import torch
from timm.optim import Lamb, Lars
from transformers import TrainingArguments

from hf_geo.optim import Method, Paper, get_method, list_optimizers

from .optim_args import parse_optim_args
from .optimizers import refuse_engine

ADAM = Paper(
    "kingma2015adam",
    "Adam: A Method for Stochastic Optimization",
    ("Kingma, Diederik P.", "Ba, Jimmy"),
    "International Conference on Learning Representations",
    2015,
    "1412.6980",
)
LARS = Paper(
    "you2017large",
    "Large Batch Training of Convolutional Networks",
    ("You, Yang", "Gitman, Igor", "Ginsburg, Boris"),
    "arXiv",
    2017,
    "1708.03888",
)
LAMB = Paper(
    "you2020large",
    "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes",
    ("You, Yang", "Li, Jing", "Reddi, Sashank", "Hseu, Jonathan", "Kumar, Sanjiv", "Bhojanapalli, Srinadh"),
    "International Conference on Learning Representations",
    2020,
    "1904.00962",
)

# transformers' adamw_torch decays weights apart from the gradient; Adam's weight decay is part of it.
BASELINES = {
    method.name: method
    for method in (
        Method("adam", torch.optim.Adam, ADAM, lr=1e-3),
        Method("lars", Lars, LARS, lr=1.0, settings={"momentum": 0.9}),
        # The Trainer clips already, where --max_grad_norm asks for it.
        Method("lamb", Lamb, LAMB, lr=1e-3, settings={"max_grad_norm": None}),
    )
}


def known_methods() -> list[str]:
    """Names of the registered methods and of the baselines."""
    return [*list_optimizers(), *BASELINES]


def find_method(name: str) -> Method:
    """The row of a registered method or a baseline.

    Raises:
        ValueError: Unknown name.
    """
    return BASELINES.get(name) or get_method(name)


def baseline_cls_and_kwargs(args: TrainingArguments) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """What `Trainer.get_optimizer_cls_and_kwargs` returns for a baseline; the Trainer makes the groups.

    Raises:
        ValueError: A setting of one group, or an engine that hides the norms of weights from LARS and LAMB.
    """
    method = BASELINES[args.optim]
    if method.name != "adam":
        refuse_engine(args)
    settings, group_settings = parse_optim_args(method, args.optim_args)
    if group_settings:
        raise ValueError(
            f"optim_args sets {next(iter(group_settings))!r} apart, but {method.name} treats all weights alike."
        )
    return method.cls, {"lr": args.learning_rate, **method.settings, **settings}
