"""`AdversarialTrainer`: a `GeoTrainer` for a generator and a discriminator."""

import logging
import shutil
from contextlib import nullcontext
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn

from hf_geo.checkpoints.disk import try_write
from hf_geo.evaluation.images import COLUMNS, SAMPLES, write_grid
from hf_geo.optim import get_method, list_optimizers

from ..trainer import GeoTrainer

logger = logging.getLogger(__name__)


class AdversarialTrainer(GeoTrainer):
    """Trains two networks against each other: an update is one step of the discriminator, then one of the generator.

    One optimizer has the parameters of both; a parameter without a gradient takes no part in its step. So schedules,
    checkpoints and logs are those of any other run, and `--optim_args discriminator.lr=...` sets one network's settings.

    Both steps are on the same classes. The discriminator's is on the images of latent variables z, the generator's on those
    of -z, which has the same distribution, so that a sample's one draw serves both. Each step's gradient is the mean over
    the samples of all micro-batches and processes. The loss of the log is the discriminator's; the generator's is beside it.

    A method that counts steps by groups, such as timm's LAMB, counts two an update.

    After each evaluation, a grid of samples from fixed latent variables is written to `figures/samples`.

    Differs from the authors' code: there, the generator's step draws latent variables anew.

    Args:
        *args, **kwargs: As for `GeoTrainer`. The model has the sub-modules `generator` and `discriminator`; its loss is the
            discriminator's where a batch has `pixel_values`, else the generator's. Batches also have `latents`.

    Raises:
        ValueError: FSDP or DeepSpeed, a subspace, or an optimizer whose step size follows the loss.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ValueError(
                "FSDP and DeepSpeed divide one network's weights and step, and here two networks step in turn: use DDP."
            )
        name = self.args.optim
        if name in list_optimizers() and get_method(name).needs_loss:
            raise ValueError(
                f"{name} takes steps for a loss that falls to zero, and no loss of two networks against each other does: "
                "choose another --optim."
            )
        if self.subspace is not None:
            raise ValueError(
                "A subspace is of one network with one loss, not of two against each other: leave --subspace out."
            )
        self._batches: list[dict[str, Tensor]] = []  # of the generator's step
        self._generator_loss = torch.zeros((), device=self.args.device)
        self._updates_logged = 0

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """Trains as `GeoTrainer.train` does; a new run removes the samples of an earlier one from its folder."""
        if not resume_from_checkpoint and self.is_world_process_zero():
            shutil.rmtree(Path(self.args.output_dir, SAMPLES), ignore_errors=True)
        return super().train(resume_from_checkpoint, **kwargs)

    def training_step(self, model: nn.Module, inputs, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """One pass of the discriminator; at the end of an update its step, and then the generator's passes."""
        others = {name: value for name, value in inputs.items() if name != "pixel_values"}
        self._batches.append({**others, "latents": -inputs["latents"]})
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            batches, self._batches = self._batches, []
            self._step_discriminator(model)
            self._backward_generator(model, batches)
        return loss

    def _step_discriminator(self, model: nn.Module) -> None:
        # The generator's images are not detached: DDP expects gradients of all parameters.
        self.accelerator.unwrap_model(model).generator.zero_grad()
        norm = self._clip_grad_norm(model) if self.args.max_grad_norm > 0 else None
        norm = transformers.Trainer._get_grad_norm(self, model, norm)
        if self.accelerator.scaler is None:
            self.nonfinite.add_loss(torch.as_tensor(norm))
        self.control = self.callback_handler.on_pre_optimizer_step(self.args, self.state, self.control)
        self.optimizer.step()
        self.control = self.callback_handler.on_optimizer_step(self.args, self.state, self.control)
        model.zero_grad()

    def _backward_generator(self, model: nn.Module, batches: list[dict[str, Tensor]]) -> None:
        """Leaves the generator's gradients, and none of the discriminator's, for the Trainer's own step."""
        for i, batch in enumerate(batches):
            self.current_gradient_accumulation_steps = self._updates.divisors[i]
            is_last = i == len(batches) - 1
            with nullcontext() if is_last else self.accelerator.no_sync(model):
                loss = transformers.Trainer.training_step(self, model, batch)
            self.nonfinite.add_loss(loss)
            self._generator_loss += loss
        self._updates_logged += 1
        self.accelerator.unwrap_model(model).discriminator.zero_grad()

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Logs as `GeoTrainer` does, with the generator's mean loss since the last time."""
        if "learning_rate" in logs and self._updates_logged:
            mean = self.accelerator.reduce(self._generator_loss / self._updates_logged, reduction="mean").item()
            logs = {**logs, "generator_loss": mean}
            self._generator_loss, self._updates_logged = torch.zeros_like(self._generator_loss), 0
        super().log(logs, *args, **kwargs)

    def prediction_step(self, model: nn.Module, inputs, *args, **kwargs):
        """As in transformers; the outputs are the generated images and the real ones, (fake, real)."""
        loss, images, labels = super().prediction_step(model, inputs, *args, **kwargs)
        return loss, None if images is None else (images, inputs["pixel_values"]), labels

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        """Evaluates as `GeoTrainer` does, and writes a grid of samples: a row a class, a column a draw of latent variables."""
        metrics = super().evaluate(*args, **kwargs)
        with self.evaluation_weights():
            if self.is_world_process_zero():
                path = Path(self.args.output_dir, SAMPLES, f"step-{self.state.global_step:07d}.png")
                model = self.accelerator.unwrap_model(self.model)
                failure = try_write(lambda: write_grid(model, path, columns=COLUMNS, seed=self.args.seed))
                if failure:
                    logger.warning(
                        "The picture of samples at update %d is left out: %s.", self.state.global_step, failure
                    )
        return metrics
