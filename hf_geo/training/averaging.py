"""Averages of the weights along training: stochastic weight averaging (SWA) and an exponential moving average (EMA)."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn
from transformers import TrainerCallback

from hf_geo.checkpoints.compatibility import IncompatibleCheckpointError
from hf_geo.evaluation.norms import recalibrate_norms

from .arguments import GeoTrainingArguments
from .norms import fresh_statistics, local_shard, renew_singular_vectors

AVERAGED = "averaged_weights.safetensors"


class WeightAverage(TrainerCallback):
    """Keeps the running average of a model's trainable weights beside them, in float32 or wider.

    - EMA: `decay * average + (1 - decay) * weights` after every update.
    - SWA (Izmailov et al. 2018, arXiv 1803.05407): the mean of the weights at the end of each epoch, and of the last
      update, after a share of training.

    Evaluations are of the averages once there are some, and `finalize` gives them to the model. Norm statistics are taken
    anew for them.

    Args:
        args: `ema_decay`, or `swa_start`, is given.

    Attributes:
        checkpoint: The folder that the next `train` resumes from; None for a new run.
    """

    def __init__(self, args: GeoTrainingArguments) -> None:
        self.kind = kind_of_average(args)
        self._update = get_swa_multi_avg_fn() if self.kind == "SWA" else get_ema_multi_avg_fn(args.ema_decay)
        self.checkpoint: str | None = None
        self._reset()

    def _reset(self) -> None:
        self.averages: dict[str, Tensor] = {}
        self.count = 0
        self.is_final = False

    def on_train_begin(self, args, state, control, model=None, **kwargs) -> None:
        if self.checkpoint or state.global_step == 0:
            self._reset()  # the averages of an earlier `train`
        if self.checkpoint:
            self.load(self.checkpoint, model)

    def on_step_end(self, args, state, control, model=None, **kwargs) -> None:
        if self.kind == "SWA":
            ended = float(state.epoch).is_integer() or state.global_step == state.max_steps
            if not ended or state.global_step <= args.swa_start * state.max_steps:
                return
        weights = {name: _widen(p) for name, p in _trainable(model).items()}
        if self.count:
            own, new = ([local_shard(t) for t in tensors.values()] for tensors in (self.averages, weights))
            self._update(own, new, self.count)
        else:
            self.averages = {name: tensor.clone() for name, tensor in weights.items()}
        self.count += 1

    @contextmanager
    def for_evaluation(self, model: nn.Module, batches: Callable[[], Iterable]) -> Iterator[None]:
        """Gives the model, inside the context, the averages in place of its weights.

        Args:
            model: The model in training.
            batches: Makes a loader of training samples, for norm statistics.
        """
        if not self.count or self.is_final:
            yield
            return
        own = {name: p.detach().clone() for name, p in _trainable(model).items()}
        _assign(model, self.averages)
        try:
            with fresh_statistics(model, batches):
                yield
        finally:
            _assign(model, own)

    def finalize(self, model: nn.Module, batches: Iterable) -> None:
        """Gives the model the averages for good, with norm statistics and singular vectors of them."""
        if self.count:
            _assign(model, self.averages)
            renew_singular_vectors(model)
            recalibrate_norms(model, batches)
        self.is_final = True

    def save(self, folder: str | Path, write: bool) -> None:
        """Writes the averages into a checkpoint's folder; every process takes part, those that `write` write."""
        whole = {name: t.full_tensor() if isinstance(t, DTensor) else t for name, t in self.averages.items()}
        if write:
            Path(folder).mkdir(parents=True, exist_ok=True)
            whole = {name: t.cpu().contiguous() for name, t in whole.items()}
            save_file(whole, Path(folder, AVERAGED), metadata={"kind": self.kind, "count": str(self.count)})

    def load(self, folder: str | Path, model: nn.Module) -> None:
        """Continues with the averages of a checkpoint that `check_same_average` has accepted.

        Raises:
            IncompatibleCheckpointError: They are of other weights.
        """
        weights, saved = _trainable(model), load_file(Path(folder, AVERAGED))
        self.count = int(_metadata(folder)["count"])
        if self.count and set(saved) != set(weights):
            name = sorted(set(saved) ^ set(weights))[0]
            where = "only there" if name in saved else "not there"
            raise IncompatibleCheckpointError(
                f"The averages of the checkpoint {folder} are of other weights: {name!r} is {where}."
            )
        self.averages = {name: _shard_like(saved[name], weights[name]) for name in weights} if self.count else {}


def kind_of_average(args: GeoTrainingArguments) -> str | None:
    """Returns "SWA", "EMA", or None where the weights are not averaged."""
    return "SWA" if args.swa_start is not None else "EMA" if args.ema_decay is not None else None


def check_same_average(checkpoint: str | Path, args: GeoTrainingArguments) -> None:
    """Raises `IncompatibleCheckpointError` where a checkpoint averages its weights otherwise than the run that resumes from it."""
    ours, saved = kind_of_average(args), _metadata(checkpoint).get("kind")
    if ours != saved:
        names = [kind or "no average" for kind in (saved, ours)]
        raise IncompatibleCheckpointError(
            f"The checkpoint {Path(checkpoint).name} keeps {names[0]} of the weights and this run {names[1]}: resume with "
            "the same --swa_start or --ema_decay, or start a new run."
        )


def _metadata(checkpoint: str | Path) -> dict[str, str]:
    path = Path(checkpoint, AVERAGED)
    if not path.is_file():
        return {}
    with safe_open(path, framework="pt") as stored:
        return stored.metadata()


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _widen(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))  # half precision would lose small steps


def _shard_like(whole: Tensor, parameter: nn.Parameter) -> Tensor:
    whole = whole.to(parameter.device)
    if isinstance(parameter, DTensor):
        return distribute_tensor(whole, parameter.device_mesh, parameter.placements)
    return whole


@torch.no_grad()
def _assign(model: nn.Module, values: dict[str, Tensor]) -> None:
    for name, parameter in _trainable(model).items():
        parameter.copy_(values[name])
