"""The rows and the problem that torch_contract.py tests optimizers by."""

import copy
import functools
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ExponentialLR, LinearLR, LRScheduler, ReduceLROnPlateau, StepLR
from torch.testing._internal.common_optimizers import (
    ErrorOptimizerInput,
    OptimizerInfo,
    OptimizerInput,
    get_error_inputs_for_all_optims,
)

from hf_geo import optim

DUPLICATES = "a param group cannot have duplicate parameters"  # an error here, see above
NO_PARAMS = "Tensor lr must be 1-element"  # torch looks at lr before params, which are None in that row
SPHERE = {"grassmann": True, "momentum": 0.9, "grad_clip": 0.1, "lr": 0.05}
SETTINGS: dict[type[Optimizer], list[dict[str, Any]]] = {
    optim.Fromage: [{}, {"lr": 0.05}, {"p_bound": 2.0}],
    optim.AliG: [{"lr": 0.01}, {"lr": 0.01, "momentum": 0.9}, {"lr": 0.01, "max_norm": 6.0}, {"lr": 0.01, "adjusted_momentum": True, "momentum": 0.5}],
    optim.AdamSRT: [{"lr": 0.01}, {"lr": 0.01, "channel_dims": [-1]}, {"lr": 0.01, "channel_dims": [], "weight_decay": 0.1}],
    optim.AdamS: [{"lr": 0.01}, {"lr": 0.01, "channel_dims": [-1]}, {"lr": 0.01, "channel_dims": []}],
    optim.SGDMRT: [{}, {"momentum": 0.9}, {"momentum": 0.9, "channel_dims": [], "weight_decay": 0.1}],
    optim.SGDG: [{}, {"momentum": 0.9, "nesterov": True}, {"weight_decay": 0.1}],
    optim.AdamG: [{}, {"momentum": 0.9, "dampening": 0.5}, {"weight_decay": 0.1}],
}  # fmt: skip


def inputs_of(cls: type[Optimizer], device: Any = None, dtype: Any = None) -> list[OptimizerInput]:
    """Fresh settings at each call, as a tensor learning rate is changed in place."""
    rates = [{"lr": torch.full(shape, 1e-3)} for shape in ((), (1,))]
    return [OptimizerInput(None, copy.deepcopy(kwargs), str(kwargs)) for kwargs in [*SETTINGS[cls], *rates]]


def error_inputs(device: Any, dtype: Any) -> list[ErrorOptimizerInput]:
    rows = get_error_inputs_for_all_optims(device, dtype)
    return [row for row in rows if row.optimizer_error_input.desc not in (DUPLICATES, NO_PARAMS)]


OPTIM_DB = [
    OptimizerInfo(
        cls,
        optim_inputs_func=functools.partial(inputs_of, cls),
        optim_error_inputs_func=error_inputs,
        scheduler_inputs=(
            [lambda opt: StepLR(opt, gamma=0.9, step_size=10)],
            [lambda opt: LinearLR(opt, start_factor=0.4, total_iters=4)],
            [lambda opt: ExponentialLR(opt, gamma=0.9), lambda opt: ReduceLROnPlateau(opt)],
        ),
        supported_impls=(),
        supports_complex=False,
        step_requires_closure=cls is optim.AliG,
    )
    for cls in SETTINGS
]


class Problem:
    """Least squares of a weight and a bias."""

    def __init__(self, start: list[torch.Tensor] | None = None, contiguous: bool = True) -> None:
        if start is None:
            start = [torch.randn(10, 5, 2)[..., 0], torch.randn(10, 2)[..., 0]]
            start = [t.clone(memory_format=torch.contiguous_format) if contiguous else t for t in start]
        self.params = [Parameter(t.detach()) for t in start]
        self.input = torch.linspace(-1, 1, 5)

    def twin(self) -> "Problem":
        return Problem([p.detach().clone() for p in self.params])

    def given(self, named: bool) -> list:
        return [(f"name{i}", p) for i, p in enumerate(self.params)] if named else self.params

    def loss(self) -> torch.Tensor:
        return (self.params[0].mv(self.input) + self.params[1]).square().sum()

    def steps(self, optimizer: Optimizer, number: int, schedulers: tuple[LRScheduler, ...] = ()) -> None:
        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = self.loss()
            loss.backward()
            return loss

        for _ in range(number):
            loss = optimizer.step(closure)
            for scheduler in schedulers:
                scheduler.step(*[loss] if isinstance(scheduler, ReduceLROnPlateau) else [])
