"""Averages of the weights along training: stochastic weight averaging (SWA) and an exponential moving average (EMA)."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, SequentialLR
from torch.optim.swa_utils import SWALR, get_ema_multi_avg_fn, get_swa_multi_avg_fn
from transformers import TrainerCallback, TrainerState

from hf_geo.checkpoints.compatibility import IncompatibleCheckpointError
from hf_geo.evaluation.norms import recalibrate_norms

from .arguments import GeoTrainingArguments
from .norms import fresh_statistics, local_shard, renew_singular_vectors

AVERAGED = "averaged_weights.safetensors"


class WeightAverage(TrainerCallback):
    """Keeps the running average of a model's trainable weights beside them, in float32 or wider.

    - EMA: `decay * average + (1 - decay) * weights` after every update.
    - SWA (Izmailov et al. 2018, arXiv 1803.05407): the mean of the weights at the end of each epoch, and of the last
      update, after a share of training; or of those at the ends of the cycles of `swa_schedule`.

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
        if self.kind == "SWA" and not _is_averaged(args, state):
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


def swa_schedule(scheduler: LRScheduler, args: GeoTrainingArguments, num_training_steps: int) -> LRScheduler:
    """Makes the schedule that leads to `args.swa_lr` as `args.swa_schedule` says; groups keep the ratios of their rates.

    - "end": `scheduler` up to `args.swa_start`, from there on the constant `args.swa_lr`.
    - "linear": constant after the warm-up, on a line from half of training on, `args.swa_lr` from nine tenths on
      (Izmailov et al. 2018, arXiv 1803.05407).
    - "cyclic": down to 0 at `args.swa_start` along half a cosine, then `args.swa_cycles` times from `args.swa_lr` to 0
      (Wortsman et al. 2021, arXiv 2102.10472; the cycles of Izmailov et al. are straight lines).
    """
    optimizer, start = scheduler.optimizer, math.ceil(args.swa_start * num_training_steps)
    if args.swa_schedule == "end":
        rates = [args.swa_lr * group["initial_lr"] / args.learning_rate for group in optimizer.param_groups]
        return SequentialLR(optimizer, [scheduler, SWALR(optimizer, rates, anneal_epochs=0)], [start])
    known = {"steps": num_training_steps, "warmup": args.get_warmup_steps(num_training_steps)}
    known["last"] = args.swa_lr / args.learning_rate
    if args.swa_schedule == "linear":
        return LambdaLR(optimizer, functools.partial(_line_factor, **known))
    return LambdaLR(optimizer, functools.partial(_cycle_factor, **known, start=start, cycles=args.swa_cycles))


def _line_factor(step: int, steps: int, warmup: int, last: float) -> float:
    """The factor of the learning rate at an update: a linear warm-up, 1, a line from half of training on, then `last`."""
    passed = min(max((step / steps - 0.5) / 0.4, 0.0), 1.0)
    return min(1.0, (step + 1) / (warmup + 1)) * (1 + passed * (last - 1))


def _cycle_factor(step: int, steps: int, warmup: int, last: float, start: int, cycles: int) -> float:
    """The factor of the learning rate at an update: a linear warm-up, half a cosine to `start`, then `cycles` from `last`."""
    if step < start:
        height, passed = 1.0, max(step - warmup, 0) / max(start - warmup, 1)
    else:
        height, passed = last, (step - start) * cycles / max(steps - start, 1) % 1
    return min(1.0, (step + 1) / (warmup + 1)) * height * (1 + math.cos(math.pi * passed)) / 2


def _is_averaged(args: GeoTrainingArguments, state: TrainerState) -> bool:
    """Whether SWA averages the weights that an update has led to."""
    steps, start = state.max_steps, args.swa_start * state.max_steps
    if args.swa_schedule == "cyclic":
        first = math.ceil(start)
        ends = {first + math.ceil(cycle * (steps - first) / args.swa_cycles) for cycle in range(args.swa_cycles + 1)}
        return state.global_step in ends
    ended = float(state.epoch).is_integer() or state.global_step == steps
    return ended and state.global_step > start


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
