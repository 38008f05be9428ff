"""`GeoTrainer`: transformers' Trainer that builds the geometry-aware optimizers."""

import torch
from torch import nn
from transformers import Trainer
from transformers.trainer_utils import get_last_checkpoint

from hf_geo.optim import get_method, list_optimizers
from hf_geo.optim.param_groups import undecayed_parameters

from .arguments import GeoTrainingArguments
from .loss import hand_over_loss
from .optimizers import make_optimizer, measure_geometry
from .resume import check_same_model, check_same_optimizer
from .telemetry import GeometryTelemetry


class GeoTrainer(Trainer):
    """A `transformers.Trainer` for which `args.optim` may name any of `hf_geo.optim.list_optimizers()`.

    The rest is transformers' own, with three corrections for all optimizers: norm layers and biases get no weight decay
    whatever they are called, each parameter group's learning rate is logged, and a checkpoint of another model or
    optimizer is refused instead of half loaded.
    """

    args: GeoTrainingArguments

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.telemetry = GeometryTelemetry(layers=self.args.log_geometry)
        self.add_callback(self.telemetry)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Builds the optimizer once, from `args.optim`, `args.learning_rate`, `args.weight_decay` and `args.optim_args`."""
        if self.optimizer is None and self.args.optim in list_optimizers():
            self.optimizer = self._make_optimizer(self.model if model is None else model)
        optimizer = super().create_optimizer(model)
        optimizer.register_load_state_dict_pre_hook(check_same_optimizer)
        return optimizer

    def _make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        geometry = {"geometry": self.args.geometry_groups}
        if (
            get_method(self.args.optim).geometry
            and self.args.geometry_groups == "auto"
            and self.train_dataset is not None
        ):
            geometry["invariant"] = measure_geometry(model, self.get_train_dataloader())
        return make_optimizer(self.args, model, **geometry)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """Trains as `transformers.Trainer.train` does; a checkpoint to resume from must be of this model."""
        checkpoint = (
            get_last_checkpoint(self.args.output_dir) if resume_from_checkpoint is True else resume_from_checkpoint
        )
        if checkpoint:
            check_same_model(self.model, checkpoint)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def training_step(self, *args, **kwargs) -> torch.Tensor:
        """One forward and backward pass, whose loss the optimizer is told where its step depends on it."""
        loss = super().training_step(*args, **kwargs)
        hand_over_loss(self, loss)
        return loss

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Logs as transformers does, with what the optimizer did since the last log."""
        if "learning_rate" in logs:
            logs = {**logs, **self.telemetry.collect()}
        super().log(logs, *args, **kwargs)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters that weight decay applies to: all but norm gains, norm shifts and biases."""
        undecayed = undecayed_parameters(model)
        return [name for name, _ in model.named_parameters() if name not in undecayed]
