"""The loss of a whole update for ALI-G in Lightning, whose closure returns the loss of the last micro-batch only."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

try:
    from lightning.pytorch import Callback
except ImportError:
    from pytorch_lightning import Callback


class LossOfUpdateCallback(Callback):
    """Gives ALI-G the loss that belongs to the gradient of an update: `Trainer(callbacks=[LossOfUpdateCallback()])`.

    It is the mean over micro-batches (`accumulate_grad_batches`) and processes. With `precision="16-mixed"` Lightning
    passes an optimizer no loss at all, so the callback is needed there too. Optimizers that take no loss are not affected,
    nor is manual optimization, in which the module calls `step` itself.
    """

    def __init__(self) -> None:
        self._total: Tensor | None = None
        self._hooks: list[Any] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Replaces the closure of optimizers that take a loss by one that returns the update's loss."""

        def with_loss_of_update(
            optimizer: Optimizer, args: tuple, kwargs: dict[str, Any]
        ) -> tuple[tuple, dict[str, Any]]:
            _, *given = args
            closure = given[0] if given else kwargs.get("closure")

            def loss_of_update() -> Tensor | float:
                if closure is not None:
                    closure()  # runs the last micro-batch
                if self._total is None:  # every training_step returned None, so there is no gradient either
                    return 0.0
                return trainer.strategy.reduce(self._total, reduce_op="mean")

            return (optimizer,), {"closure": loss_of_update}

        if pl_module.automatic_optimization:
            takers = [optimizer for optimizer in trainer.optimizers if hasattr(optimizer, "set_loss")]
            self._hooks = [optimizer.register_step_pre_hook(with_loss_of_update) for optimizer in takers]

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Removes the hooks from the optimizers."""
        for hook in self._hooks:
            hook.remove()

    def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Optimizer) -> None:
        """Starts the sum of the next update."""
        self._total = None

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        """Adds a micro-batch's loss, which Lightning has divided by their number and scaled for float16."""
        loss = loss.detach().to(torch.promote_types(loss.dtype, torch.float32))
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None:
            loss = loss / scaler.get_scale()
        self._total = loss if self._total is None else self._total + loss
