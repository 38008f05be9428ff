"""`GeoTrainer`: transformers' Trainer that builds the geometry-aware optimizers."""

import torch
from torch import nn
from transformers import Trainer

from hf_geo.optim import list_optimizers
from hf_geo.optim.param_groups import undecayed_parameters

from .arguments import GeoTrainingArguments
from .loss import hand_over_loss
from .optimizers import make_optimizer


class GeoTrainer(Trainer):
    """A `transformers.Trainer` for which `args.optim` may name any of `hf_geo.optim.list_optimizers()`.

    Everything else is transformers' own, with one correction for all optimizers: parameters of norm layers and biases
    get no weight decay, whatever the layers are called.
    """

    args: GeoTrainingArguments

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Builds the optimizer once, from `args.optim`, `args.learning_rate`, `args.weight_decay` and `args.optim_args`."""
        if self.optimizer is None and self.args.optim in list_optimizers():
            self.optimizer = make_optimizer(self.args, self.model if model is None else model)
        return super().create_optimizer(model)

    def training_step(self, *args, **kwargs) -> torch.Tensor:
        """One forward and backward pass, whose loss the optimizer is told where its step depends on it."""
        loss = super().training_step(*args, **kwargs)
        hand_over_loss(self, loss)
        return loss

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters that weight decay applies to: all but norm gains, norm shifts and biases."""
        undecayed = undecayed_parameters(model)
        return [name for name, _ in model.named_parameters() if name not in undecayed]
