"""Scale invariance by its laws, without the probe: Euler's theorem on the gradient, and outputs that stay or move."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hf_geo.optim import Invariance

ORTHOGONAL = 1e-6  # cosine of gradient and weight in float64, once no epsilon is left to speak of
MOVED = 1e-6  # relative change of an output
Inputs = Tensor | Mapping[str, Tensor]
FILTERS, WHOLE = (0,), ()


def images(*shape: int) -> Tensor:
    return torch.randn(5, *(shape or (3, 8, 8)))


def conv(**settings: object) -> nn.Conv2d:
    return nn.Conv2d(3, 6, 3, **settings)


def head(channels: int) -> nn.Module:
    return nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


class Built(nn.Module):
    """Modules and parameters by name, and what `forward` does with them."""

    def __init__(self, forward: Callable[["Built", Any], Any], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.function = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Any) -> Any:
        return self.function(self, x)


def in_float64(model: nn.Module, epsilon: float = 1e-13) -> nn.Module:
    """A copy in training mode, away from its initialization, whose norms have a tiny epsilon."""
    model = copy.deepcopy(model).double().train()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad and p.is_floating_point():
                spread = p.std().item() if p.ndim > 1 and p.numel() > 1 else 0.0
                p.add_(torch.rand(p.shape, generator=generator).double() - 0.5, alpha=max(spread, 0.2))
    for module in model.modules():
        for name in ("eps", "variance_epsilon"):
            if getattr(module, name, None) is not None:
                setattr(module, name, epsilon)
    return model


def run(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    """The model's floating-point outputs, with the same random numbers each time."""
    torch.manual_seed(11)
    widened = {
        key: value.double() if value.is_floating_point() else value
        for key, value in (inputs.items() if isinstance(inputs, Mapping) else [("", inputs)])
    }
    outputs = model(**widened) if isinstance(inputs, Mapping) else model(widened[""])
    if isinstance(outputs, Tensor):
        return [outputs]
    values = outputs.values() if isinstance(outputs, Mapping) else outputs
    return [value for value in values if isinstance(value, Tensor)]


def cosines(gradient: Tensor, weight: Tensor, channel_dims: Sequence[int]) -> Tensor:
    """Of gradient and weight, one a group; 0 for groups whose gradient is nothing but rounding."""
    others = [d for d in range(weight.ndim) if d not in channel_dims]
    norms = gradient.square().sum(others).sqrt() * weight.square().sum(others).sqrt()
    reached = norms > 1e-9 * norms.max()
    return torch.where(reached, (gradient * weight).sum(others) / norms.where(reached, 1.0), 0.0)


def movement(model: nn.Module, inputs: Inputs, parameter: Tensor, factor: Tensor | float) -> float:
    """Largest relative change of an output when `parameter` is multiplied by `factor`."""
    kept = parameter.detach().clone()
    with torch.no_grad():
        before = run(model, inputs)
        parameter.mul_(factor)
        after = run(model, inputs)
        parameter.copy_(kept)
    return max(((a - b).norm() / b.norm()).item() for a, b in zip(after, before, strict=True))


def check_laws(
    model: nn.Module,
    inputs: Inputs,
    rows: Sequence[Invariance],
    *,
    tolerance: float = ORTHOGONAL,
    sample: int | None = None,
) -> None:
    """Every row reported invariant obeys the laws; every other one (or a random sample of them) breaks one."""
    model = in_float64(model)
    parameters = dict(model.named_parameters())
    assert [row.name for row in rows] == list(parameters)
    generator = torch.Generator().manual_seed(13)
    outputs = run(model, inputs)
    sum((torch.randn(o.shape, generator=generator).double() * o).sum() / o.detach().norm() for o in outputs).backward()

    for row in rows:
        p = parameters[row.name]
        if row.channel_dims is not None:
            worst = cosines(p.grad, p.detach(), row.channel_dims).abs().max().item()
            assert worst <= tolerance, f"{row.name}: cosine {worst:.1e} over {row.channel_dims}"
            assert p.grad.norm() > 0
    measured = [row for row in rows if row.channel_dims is None and row.deviation is not None]
    picked = torch.randperm(len(measured), generator=generator)[: sample or len(measured)].tolist()
    for row in (measured[index] for index in picked):
        p = parameters[row.name]
        radial = cosines(p.grad, p.detach(), ()).abs().item()
        if radial <= tolerance:
            moved = movement(model, inputs, p, 3.0)
            assert moved > MOVED, f"{row.name}: cosine {radial:.1e}, but the outputs moved by {moved:.1e} only"
