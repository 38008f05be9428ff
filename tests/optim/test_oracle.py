"""The optimizers follow the papers' equations, evaluated one group of weights at a time in NumPy."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from hf_geo import optim
from tests.cases import FUSED, make_gradient, make_loss, make_params
from tests.optim import oracle

SHAPES = ((4, 3, 2, 2), (3, 5), (7,))
WEIGHTS = ((4, 3, 2, 2), (3, 5))
STEPS = 12


@dataclass(frozen=True)
class Row:
    """A class of the package and one of the oracle with the same settings; `extra` ones only the package's takes."""

    ours: type[torch.optim.Optimizer]
    theirs: Callable[..., Any]
    settings: dict[str, Any]
    extra: dict[str, Any] = field(default_factory=dict)
    shapes: tuple[tuple[int, ...], ...] = SHAPES
    tolerance: float = 1e-12

    @property
    def fusible(self) -> bool | None:
        """Whether all rows lie one after the other in memory."""
        return None if self.settings.get("channel_dims") == (-1,) else True

    def __str__(self) -> str:
        shown = {**self.settings, **self.extra}
        return "-".join([self.ours.__name__, *(f"{key}={value}" for key, value in shown.items())]).replace(" ", "")


def spheres(ours: type, theirs: Callable[..., Any], tolerance: float = 1e-12, **settings: Any) -> list[Row]:
    """Rows for filters, kernels, whole tensors, columns and single weights."""
    dims = [
        ((0,), WEIGHTS),
        ((0, 1), WEIGHTS[:1]),
        ((), SHAPES),
        ((-1,), WEIGHTS),
        ((0, 1), WEIGHTS[1:]),
        (None, SHAPES),
    ]
    return [Row(ours, theirs, {**settings, "channel_dims": d}, shapes=s, tolerance=tolerance) for d, s in dims]


# As the authors' code, the package adds 1e-8 to norms where these methods divide by them; the papers do not.
GRASSMANN = {"extra": {"grassmann": True}, "shapes": WEIGHTS, "tolerance": 1e-6}

ROWS = [
    Row(optim.Fromage, oracle.Fromage, {"lr": 0.1}),
    Row(optim.Fromage, oracle.Fromage, {"lr": 0.2, "p_bound": 1.2}),
    Row(optim.AliG, oracle.AliG, {}),
    Row(optim.AliG, oracle.AliG, {"lr": 0.05, "eps": 1e-3}),
    Row(optim.AliG, oracle.AliG, {"lr": 0.05, "momentum": 0.9}),
    Row(optim.AliG, oracle.AliG, {"lr": 0.05, "momentum": 0.9, "max_norm": 5.0}),
    *spheres(optim.AdamSRT, oracle.SphericalAdam, tolerance=1e-7, lr=0.01, weight_decay=0.01),
    *spheres(optim.AdamS, lambda **kw: oracle.SphericalAdam(**kw, rt=False), lr=0.01, betas=(0.8, 0.99)),
    *spheres(optim.SGDMRT, oracle.SGDMRT, lr=0.05, momentum=0.9, dampening=0.1, weight_decay=0.01),
    Row(optim.SGDG, oracle.Grassmann, {"lr": 0.05, "momentum": 0.9}, **GRASSMANN),
    Row(optim.SGDG, oracle.Grassmann, {"lr": 0.2, "momentum": 0.9, "grad_clip": 0.1, "omega": 0.1}, **GRASSMANN),
    Row(optim.AdamG, oracle.Grassmann, {"lr": 0.05, "momentum": 0.9, "beta2": 0.99}, **GRASSMANN),
    Row(
        optim.AdamG,
        oracle.Grassmann,
        {"lr": 0.05, "momentum": 0.9, "beta2": 0.95, "grad_clip": 0.1, "omega": 0.1, "epsilon": 1e-6},
        **GRASSMANN,
    ),
]


@pytest.mark.parametrize("fused", FUSED)
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_follows_the_paper(row: Row, fused: bool):
    params = make_params(row.shapes)
    weights = [p.detach().numpy().copy() for p in params]
    reference = row.theirs(**row.settings)
    optimizer = row.ours(params, **row.settings, **row.extra, fused=fused and row.fusible)
    if isinstance(reference, oracle.AliG):
        reference.project(weights)
    for number in range(STEPS):
        for index, param in enumerate(params):
            param.grad = make_gradient(param, index, number)
        loss = make_loss(number)
        optimizer.step((lambda value=loss: value) if isinstance(reference, oracle.AliG) else None)
        reference.step(weights, [p.grad.numpy() for p in params], loss)
    for param, weight in zip(params, weights, strict=True):
        np.testing.assert_allclose(param.detach().numpy(), weight, rtol=row.tolerance, atol=row.tolerance)


def test_the_oracle_s_transport_is_an_isometry_of_tangent_spaces():
    generator = np.random.default_rng(0)
    start, end, a, b = generator.normal(size=(4, 6))
    a, b = (v - (v @ start) / (start @ start) * start for v in (a, b))
    scale = np.linalg.norm(start) / np.linalg.norm(end)
    moved_a, moved_b = oracle.transport(a, start, end), oracle.transport(b, start, end)
    assert moved_a @ end == pytest.approx(0, abs=1e-12)
    assert moved_a @ moved_b == pytest.approx(scale**2 * (a @ b))
