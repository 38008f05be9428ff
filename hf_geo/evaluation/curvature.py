"""How far a gradient can be trusted: loss and gradient along small relative steps against it (Bernstein et al. 2020, figure 1)."""

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor, nn

from hf_geo.plotting import save, style

from .batches import batches, inputs_of, labels_of, logits_of


def measure_curvature(
    model: nn.Module, loader: Iterable, *, steps: int = 100, size: float = 1e-3
) -> list[dict[str, float]]:
    """Follows the gradient at a network's weights in small steps, and measures how soon it ceases to be the gradient.

    Every parameter tensor w_l goes along its initial gradient g_l, over all samples of the loader:

        w_l <- w_l - size * |w_l| * g_l / |g_l|

    A tensor whose gradient is zero stays. Nothing is drawn at random: norms use their running statistics and dropout is off.
    Differs from the authors' code: any classifier, and any samples.

    Args:
        model: A classifier; a copy of it is moved.
        loader: Batches with labels, see `hf_geo.evaluation.batches`; read `steps` + 1 times, in the same order or not.
        steps: Number of steps.
        size: Relative size of a step.

    Returns:
        For each step from 0 on `step`, `loss` (mean cross-entropy, in nats) and `gradient_change`: |g - g_0| / |g_0| of
        the first weight with two or more axes.

    Raises:
        ValueError: A sample has not exactly one label, the model has no such weight, or its gradient is zero or not finite.
    """
    model = copy.deepcopy(model).eval()
    if any(isinstance(module, nn.RNNBase) for module in model.modules()):
        with torch.backends.cudnn.flags(enabled=False):  # cuDNN has no backward pass of an RNN in evaluation mode
            return _follow_gradient(model, loader, steps, size)
    return _follow_gradient(model, loader, steps, size)


def _follow_gradient(model: nn.Module, loader: Iterable, steps: int, size: float) -> list[dict[str, float]]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    first = next((index for index, p in enumerate(parameters) if p.ndim > 1), None)
    if first is None:
        raise ValueError("The curvature is that of a first layer, and the model has no trainable weight of two axes.")
    loss, initial = _loss_and_gradients(model, parameters, loader)
    norm = initial[first].norm()
    if not 0 < norm.item() < torch.inf:
        raise ValueError(f"The gradient of the first layer has norm {norm.item()}, so that there is no way to follow.")
    directions = [g / g.norm() if g.any() else g for g in initial]
    rows = [{"step": 0, "loss": loss, "gradient_change": 0.0}]
    for step in range(1, steps + 1):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.sub_(size * parameter.norm() * direction)
        loss, gradients = _loss_and_gradients(model, parameters, loader)
        change = (gradients[first] - initial[first]).norm() / norm
        rows.append({"step": step, "loss": loss, "gradient_change": change.item()})
    return rows


def _loss_and_gradients(
    model: nn.Module, parameters: Sequence[nn.Parameter], loader: Iterable
) -> tuple[float, list[Tensor]]:
    """The mean loss over all samples, and its gradients."""
    for parameter in parameters:
        parameter.grad = None
    total, samples = torch.zeros((), dtype=torch.float64), 0
    for batch in batches(loader, None, "Gradient"):
        args, kwargs = inputs_of(model, batch)
        logits = logits_of(model(*args, **kwargs))
        labels = labels_of(batch).to(logits.device)
        if logits.ndim != 2 or labels.shape != logits.shape[:1]:
            raise ValueError("The curvature is measured of classifiers with one label a sample.")
        loss = nn.functional.cross_entropy(logits.float(), labels, reduction="sum")
        loss.backward()
        total, samples = total + loss.detach().double().cpu(), samples + len(labels)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad / samples for p in parameters]
    return total.item() / samples, gradients


def draw_curvature(table: pd.DataFrame, path: str | Path, title: str = "") -> None:
    """Draws the loss and the change of the gradient against the step: a row a model, a line a network of its training.

    Args:
        table: `model`, `network` and the values of `measure_curvature`.
        path: PNG file to write; its folder is made.
        title: Title above the panels.
    """
    models = table.groupby("model", sort=False)
    figure = Figure(figsize=(9.2, 3.2 * len(models)), layout="constrained")
    grid = figure.subplots(len(models), 2, squeeze=False)
    labels = {"loss": "loss", "gradient_change": "|g - g0| / |g0|, first layer"}
    for row, (model, rows) in zip(grid, models, strict=True):
        networks = rows.groupby("network", sort=False)
        for number, (network, points) in enumerate(networks):
            colour = colormaps["viridis"](0.9 * number / max(len(networks) - 1, 1))
            for axes, column in zip(row, labels, strict=True):
                axes.plot(points.step, points[column], color=colour, linewidth=1.4, label=network)
        for axes, (column, label) in zip(row, labels.items(), strict=True):
            style(axes, title=str(model), xlabel="relative steps along the initial gradients", ylabel=label)
            values = rows[column][rows[column] > 0]
            axes.set(yscale="log") if values.max() > 1e4 * values.min() else axes.set_ylim(bottom=0)
        row[0].legend(frameon=False, fontsize="small")
    save(figure, path, title)
