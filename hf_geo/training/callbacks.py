"""Callbacks around a Trainer's epochs and steps: the data's epoch and splits, and measures of each weight's update."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from hf_geo.checkpoints.compatibility import IncompatibleCheckpointError


class NoClassifierError(ValueError):
    """Predictions are to be counted, but the model is no classifier."""


class SetEpochCallback(TrainerCallback):
    """Calls `set_epoch` of the training data, where it has one, as an epoch begins.

    transformers (5.24) and accelerate (1.15) do so for one process only, and not in the epoch in which a run is resumed.
    """

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs) -> None:
        if hasattr(train_dataloader.dataset, "set_epoch"):
            train_dataloader.dataset.set_epoch(int(state.epoch or 0))


class EvaluationModeCallback(TrainerCallback):
    """Ends every epoch, and so training, with the weights that schedule-free optimizers evaluate."""

    def on_epoch_end(self, args, state, control, optimizer=None, **kwargs) -> None:
        use_evaluated_weights(optimizer)


def use_evaluated_weights(optimizer: torch.optim.Optimizer | None) -> None:
    """Gives the model the weights that a schedule-free optimizer evaluates (Defazio et al. 2024, arXiv 2405.15682).

    In training it holds others, which the next training step gives back. transformers (5.24) does this for evaluations alone,
    and on whatever weights the model then has: so it has to be done before averages take their place, and before saving.
    """
    if hasattr(optimizer, "eval"):  # as accelerate's wrapper has, which passes it on
        optimizer.eval()


class SameDataCallback(TrainerCallback, ExportableState):
    """Refuses to resume from a checkpoint whose run divided its data differently.

    Such a run could be evaluated on samples that it was trained on. Each checkpoint's `trainer_state.json` holds the settings.

    Args:
        settings: The settings that decide which samples are trained on, by the names of their options.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = dict(settings)

    def state(self) -> dict[str, Any]:
        """The settings, in the form in which transformers saves a callback's state."""
        return {"args": {"settings": self.settings}, "attributes": {}}

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        saved = state.stateful_callbacks.get(type(self).__name__, self.state())["args"]["settings"]
        for name, value in saved.items():
            if value != self.settings.get(name):
                raise IncompatibleCheckpointError(
                    f"The checkpoint's run had --{name} {value} and this one has {self.settings.get(name)}, which may evaluate "
                    "samples that were trained on: resume with the checkpoint's value, or start a new run."
                )


class GeometryTelemetry(TrainerCallback):
    """Measures, for the Trainer's log, the learning rate of every named parameter group and, if asked, every layer.

    Per weight of two or more axes: `geometry/weight_norm/NAME`, `geometry/grad_norm/NAME` (after clipping),
    `geometry/relative_update/NAME` (norm of the step over the norm of the weight), `geometry/effective_lr/NAME`
    (lr / |w|^2), `geometry/spectral_norm/NAME` and `geometry/spectral_update/NAME` (largest singular value of the weight
    and of the step, as matrices with a row an output), and for weights in the group "geometry" `geometry/angle/NAME`: the
    mean angle, in radians, by which the rows along the first axis turned. Methods with an adaptive step also give
    `geometry/step_size` and `geometry/step_size_unclipped`.

    Measuring keeps a copy of the weights during the logged step; all other steps cost nothing, and values leave the
    device once, when they are logged. `training_accuracy` is the share of right ones among the predictions that
    `add_predictions` got since the last log.

    Args:
        layers: Whether to measure every layer, besides the learning rates.
        reduce: Adds a tensor up over the processes.
    """

    def __init__(self, layers: bool, reduce: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor) -> None:
        self.layers, self.reduce = layers, reduce
        self._right_and_all: torch.Tensor | None = None
        self._before: dict[str, torch.Tensor] = {}
        self._measured: dict[str, Any] = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs) -> None:
        step = state.global_step + 1
        due = step % state.logging_steps == 0 or (step == 1 and args.logging_first_step)
        if self.layers and due:
            weights = {name: p for name, p in model.named_parameters() if p.grad is not None and p.ndim > 1}
            self._before = {name: p.detach().clone() for name, p in weights.items()}

    def on_optimizer_step(self, args, state, control, model=None, optimizer=None, **kwargs) -> None:
        optimizer = getattr(optimizer, "optimizer", optimizer)  # without accelerate's wrapper
        rates = {f"lr/{group['name']}": group["lr"] for group in optimizer.param_groups if "name" in group}
        # A single one is the Trainer's own learning_rate. An update may have several steps, of one network each.
        self._measured.update(rates if len(rates) > 1 else {})
        if not self._before:
            return
        for size in ("step_size", "step_size_unclipped"):
            if getattr(optimizer, size, None) is not None:
                self._measured[f"geometry/{size}"] = getattr(optimizer, size)
        groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in self._before and id(parameter) in groups:
                    values = measure(self._before[name], parameter, parameter.grad, groups[id(parameter)])
                    self._measured.update({f"geometry/{kind}/{name}": value for kind, value in values.items()})
        self._before = {}

    def add_predictions(self, logits: torch.Tensor | None, labels: torch.Tensor | None) -> None:
        """Counts the right predictions of a batch.

        Args:
            logits: (N, classes).
            labels: (N,) class numbers.

        Raises:
            NoClassifierError: The logits are not those of a classifier.
        """
        if logits is None or labels is None or logits.ndim != 2 or labels.shape != logits.shape[:1]:
            raise NoClassifierError("--log_accuracy is for classifiers with one label a sample: leave it out.")
        right = (logits.detach().argmax(-1) == labels).sum()
        counts = torch.stack([right, torch.full_like(right, len(labels))])
        self._right_and_all = counts if self._right_and_all is None else self._right_and_all + counts

    def collect(self) -> dict[str, float]:
        """Returns the values of the last measured step as plain numbers, read from the device in one transfer."""
        measured, self._measured = self._measured, {}
        if self._right_and_all is not None:
            right, count = self.reduce(self._right_and_all)
            measured["training_accuracy"], self._right_and_all = right / count, None
        tensors = {k: v.detach() for k, v in measured.items() if isinstance(v, torch.Tensor)}
        if tensors:
            device = next((t.device for t in tensors.values() if t.device.type != "cpu"), torch.device("cpu"))
            numbers = torch.stack([t.to(device, torch.float32).reshape(()) for t in tensors.values()])
            measured.update(zip(tensors, numbers.tolist(), strict=True))
        return measured


def measure(
    before: torch.Tensor, after: torch.Tensor, grad: torch.Tensor, group: dict[str, Any]
) -> dict[str, torch.Tensor]:
    """Measures one weight's step; returns 0-dim tensors. Sharded weights are gathered first."""
    before, after, grad = (t.full_tensor() if isinstance(t, DTensor) else t for t in (before, after.detach(), grad))
    dtype = torch.promote_types(before.dtype, torch.float32)
    before, after, grad = before.to(dtype), after.to(dtype), grad.to(dtype)
    norm = before.norm()
    values = {
        "weight_norm": norm,
        "grad_norm": grad.norm(),
        "relative_update": (after - before).norm() / norm,
        "effective_lr": group["lr"] / norm.square(),
    }
    values["spectral_norm"], values["spectral_update"] = spectral_norms(before.flatten(1), (after - before).flatten(1))
    if group.get("name", "").rpartition(".")[2] == "geometry":  # of a module with settings of its own too
        # The angle between unit vectors a and b is 2 atan2(|a - b|, |a + b|), exact for small angles unlike acos.
        a, b = (torch.nn.functional.normalize(t.flatten(1), dim=1) for t in (before, after))
        values["angle"] = (2 * torch.atan2((a - b).norm(dim=1), (a + b).norm(dim=1))).mean()
    return values


def spectral_norms(*matrices: torch.Tensor, iterations: int = 20) -> list[torch.Tensor]:
    """Estimates the largest singular values of matrices by power iteration: never above them, but for rounding.

    Args:
        *matrices: Shape (m, n). They start from one vector that is the same in every call.
        iterations: Products with the matrix and its (conjugate) transpose. 20 are within a few per cent where the largest
            singular values lie close together, and exact where they do not.

    Returns:
        0-dim tensors, 0 for a matrix of zeros.
    """
    norms = []
    for matrix in matrices:
        normalize = partial(torch.nn.functional.normalize, dim=0, eps=torch.finfo(matrix.dtype).tiny)
        v = torch.arange(1, matrix.shape[1] + 1, device=matrix.device, dtype=matrix.dtype.to_real()).cos().to(matrix)
        for _ in range(iterations):
            v = matrix.mH @ normalize(matrix @ normalize(v))
        norms.append((matrix @ normalize(v)).norm())
    return norms
