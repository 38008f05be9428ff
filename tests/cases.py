"""One row a configuration of an optimizer, and the few steps that the generic tests take with it.

A new method is tested by adding rows here. What a test has to know about a method is a field of its row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hf_geo.optim import get_method
from hf_geo.optim.registry import Method

# Two weights (the second with longer rows), a vector and a scalar.
SHAPES = ((4, 3, 2, 2), (5, 19), (7,), ())


@dataclass(frozen=True)
class Case:
    """A configuration of a registered method.

    Args:
        id: Name of the row.
        name: Registered name of the method.
        settings: Arguments of the class.
        geometry: Settings of the parameter group of the weights (tensors of two axes or more); the rest has its own group.
        equals: A torch optimizer whose steps these are on matrices and vectors (for ALI-G: when the loss is large).
        coupled: Whether one parameter's step depends on all gradients (then a bad one has to stop the whole step).
        projects: Whether a step ends by scaling all parameters together.
        bounded: Whether the learning rate is a number, which schedulers can change.
        unit_rows: Whether each row of a weight lies on the unit sphere after a step.
        momentum: State key of the momentum that is orthogonal, group by group, to the weight after a step.
        second_moment: State key of the second moment kept once a group of weights.
        rotates: Whether turning the groups of a weight and of its gradients turns the trajectory alike.
        shardable: Whether the rule can be computed on shards; otherwise the first step has to refuse them.
    """

    id: str
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    geometry: Mapping[str, Any] = field(default_factory=dict)
    equals: Callable[..., torch.optim.Optimizer] | None = None
    coupled: bool = False
    projects: bool = False
    bounded: bool = True
    unit_rows: bool = False
    momentum: str | None = None
    second_moment: str | None = None
    rotates: bool = False
    shardable: bool = True

    def __str__(self) -> str:
        return self.id

    @property
    def method(self) -> Method:
        return get_method(self.name)

    def groups(self, params: Sequence[Tensor]) -> list[dict[str, Any]]:
        weights = {"params": [p for p in params if p.ndim > 1], **self.geometry}
        rest = {"params": [p for p in params if p.ndim <= 1]}
        return [group for group in (weights, rest) if group["params"]]

    def make(self, params: Sequence[Tensor], **settings: Any) -> torch.optim.Optimizer:
        return self.method.cls(self.groups(params), **{**self.settings, **settings})

    def step(self, optimizer: torch.optim.Optimizer, loss: float | Tensor = 2.0) -> Any:
        return optimizer.step(lambda: loss) if self.method.needs_loss else optimizer.step()

    def rows(self, weight: Tensor) -> Tensor:
        """A weight as (groups, elements of a group)."""
        per_row = self.geometry.get("grassmann") or self.geometry.get("channel_wise")
        dims = self.geometry.get("channel_dims", [0] if per_row else range(weight.ndim))
        others = [d for d in range(weight.ndim) if d not in dims]
        return weight.detach().permute(*dims, *others).reshape(torch.Size(weight.shape[d] for d in dims).numel(), -1)


CHANNEL = {"channel_wise": True}
LAYER = {"channel_dims": []}
PAIRS = {"channel_dims": [0, 1]}  # the kernels of a convolution; single elements of a matrix
ON_SPHERE = {"grassmann": True, "lr": 0.05}
CLIPPED = {"grassmann": True, "lr": 0.2, "grad_clip": 0.1}
ORTHOGONAL = {**CLIPPED, "omega": 0.1}

ALIG = partial(Case, name="alig", coupled=True)
ADAM_SRT = partial(Case, name="adamsrt", second_moment="exp_avg_sq")
ADAM_S = partial(Case, name="adams", second_moment="exp_avg_sq")
SGD_MRT = partial(Case, name="sgdmrt")
TRANSPORTED_ADAM = partial(ADAM_SRT, momentum="exp_avg", rotates=True)
TRANSPORTED_SGD = partial(SGD_MRT, momentum="momentum_buffer", rotates=True)
NESTEROV = {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
SGD_G = partial(Case, name="sgdg", settings=NESTEROV, unit_rows=True, momentum="momentum_buffer", rotates=True)
ADAM_G = partial(SGD_G, name="adamg", momentum="exp_avg", second_moment="exp_avg_sq")

_SGD, _ADAM = torch.optim.SGD, torch.optim.Adam
_HEAVY = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}
_DAMPED = {**_HEAVY, "dampening": 0.1}

CASES = (
    Case("fromage", "fromage"),
    Case("fromage_bound", "fromage", {"lr": 0.2, "p_bound": 1.5}),
    ALIG("alig", settings={"lr": 0.05}, equals=partial(_SGD, lr=0.05)),
    ALIG(
        "alig_momentum",
        settings={"lr": 0.05, "momentum": 0.9},
        equals=partial(_SGD, lr=0.05, momentum=0.9, nesterov=True),
    ),
    ALIG("alig_adjusted", settings={"lr": 0.05, "momentum": 0.9, "adjusted_momentum": True}),
    ALIG("alig_ball", settings={"lr": 0.05, "momentum": 0.9, "max_norm": 6.0}, projects=True),
    ALIG("alig_unbounded", bounded=False),
    ALIG("alig_groups", settings={"lr": 0.001, "momentum": 0.9}, geometry={"lr": 0.05, "momentum": 0.5}),
    ADAM_SRT("adamsrt_plain", settings={"weight_decay": 0.01}, equals=partial(_ADAM, weight_decay=0.01)),
    ADAM_SRT("adamsrt_pairs", settings={"lr": 0.01}, geometry=PAIRS, equals=partial(_ADAM, lr=0.01)),
    TRANSPORTED_ADAM("adamsrt_channel", settings={"lr": 0.01}, geometry=CHANNEL),
    TRANSPORTED_ADAM("adamsrt_layer", settings={"lr": 0.01, "betas": (0.8, 0.99)}, geometry=LAYER),
    TRANSPORTED_ADAM("adamsrt_decay", settings={"lr": 0.01, "weight_decay": 0.01}, geometry=CHANNEL),
    ADAM_SRT("adamsrt_no_rt", settings={"lr": 0.01, "rt": False}, geometry=CHANNEL, rotates=True),
    ADAM_S("adams_pairs", settings={"lr": 0.01, "eps": 1e-3}, geometry=PAIRS, equals=partial(_ADAM, lr=0.01, eps=1e-3)),
    ADAM_S("adams_channel", settings={"lr": 0.01}, geometry=CHANNEL, rotates=True),
    ADAM_S("adams_layer", settings={"lr": 0.01, "weight_decay": 0.01}, geometry=LAYER, rotates=True),
    SGD_MRT("sgdmrt_plain", settings=_HEAVY, equals=partial(_SGD, **_HEAVY)),
    SGD_MRT("sgdmrt_pairs", settings=_HEAVY, geometry=PAIRS, equals=partial(_SGD, **_HEAVY)),
    SGD_MRT("sgdmrt_no_momentum", settings={"lr": 0.05}, geometry=CHANNEL, equals=partial(_SGD, lr=0.05), rotates=True),
    TRANSPORTED_SGD("sgdmrt_channel", settings={"lr": 0.05, "momentum": 0.9}, geometry=CHANNEL),
    TRANSPORTED_SGD("sgdmrt_layer", settings=_DAMPED, geometry=LAYER),
    Case("sgdg_plain", "sgdg", NESTEROV, equals=partial(_SGD, **NESTEROV)),
    SGD_G("sgdg", geometry=ON_SPHERE),
    SGD_G("sgdg_clipped", geometry=CLIPPED),
    SGD_G("sgdg_orthogonal", geometry=ORTHOGONAL, shardable=False),
    Case("adamg_plain", "adamg", _DAMPED, equals=partial(_SGD, **_DAMPED)),
    ADAM_G("adamg", geometry=ON_SPHERE),
    ADAM_G("adamg_clipped", geometry=CLIPPED),
    ADAM_G("adamg_orthogonal", geometry=ORTHOGONAL, shardable=False),
)
# Rows that take another row's path with other settings. Tests of what no setting changes leave them out.
_VARIANTS = """
    fromage alig_unbounded alig_groups adamsrt_pairs adamsrt_channel adamsrt_layer adamsrt_no_rt adams_pairs adams_layer
    sgdmrt_pairs sgdmrt_no_momentum sgdmrt_channel sgdg_clipped adamg_plain adamg adamg_orthogonal
"""
PATHS = tuple(case for case in CASES if case.id not in _VARIANTS.split())
FUSED = (False, True) if find_spec("triton") else (False,)
each_case = pytest.mark.parametrize("case", CASES, ids=str)
each_path = pytest.mark.parametrize("case", PATHS, ids=str)
each_bounded_path = pytest.mark.parametrize("case", [case for case in PATHS if case.bounded], ids=str)


def make_params(
    shapes: Sequence[tuple[int, ...]] = SHAPES, *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64).to(dtype)) for s in shapes]


def make_gradient(param: Tensor, index: int, step: int) -> Tensor:
    """A gradient that depends on the parameter's place and the step alone, with the parameter's shape and dtype."""
    generator = torch.Generator().manual_seed(2**31 + 1000 * step + index)
    return torch.randn(param.shape, generator=generator, dtype=torch.float64).to(param.dtype)


def make_loss(step: int) -> float:
    """Losses for which ALI-G's step on `SHAPES` is now at its bound of 0.05, now below it."""
    return 2.5 * (1 + 3 * step % 7)


def drive(case: Case, optimizer: torch.optim.Optimizer, params: Sequence[Tensor], steps: int, start: int = 0) -> None:
    """Takes `steps` steps with the gradients and losses number `start` and on."""
    for number in range(start, start + steps):
        for index, param in enumerate(params):
            param.grad = make_gradient(param, index, number)
        case.step(optimizer, make_loss(number))


def clones(params: Sequence[Tensor]) -> list[nn.Parameter]:
    return [nn.Parameter(p.detach().clone(memory_format=torch.preserve_format)) for p in params]


def copy_values(source: Sequence[Tensor], target: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for new, old in zip(source, target, strict=True):
            old.copy_(new)


def assert_same(actual: Sequence[Tensor], expected: Sequence[Tensor], rtol: float = 0.0, atol: float = 0.0) -> None:
    """Equal, bit for bit unless a tolerance is given; never NaN."""
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a.detach(), e.detach(), rtol=rtol, atol=atol)
