"""The coordinate check: how large each layer's output is, and how far the first steps move it, across a width.

Where a rate carries over, the changes keep their size as the network grows (Yang et al. 2022, arXiv 2203.03466, appendix D.1).
"""

import copy
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized
from transformers import PrinterCallback, TrainerCallback, set_seed
from transformers.trainer_utils import IntervalStrategy, SchedulerType

from hf_geo.markdown import format_table
from hf_geo.plotting import save, style
from hf_geo.tasks import TrainingSetup
from hf_geo.training.arguments import GeoTrainingArguments
from hf_geo.training.nonfinite import NonFiniteTrainingError

from .trials import axis_label

STEPS = (0, 1, 2, 4, 8)  # before training, and after so many updates
LAYER, STEP, OUTPUT, CHANGE = "layer", "step", "output_rms", "change_rms"


def measure_coordinates(setup: TrainingSetup, args: GeoTrainingArguments) -> list[dict[str, Any]]:
    """Trains a network for eight updates at a constant rate, and measures its layers on the first batch.

    Args:
        setup: The network and its data.
        args: The training arguments, of which schedule, length, evaluation and saving are replaced.

    Returns:
        A row for each layer and each of `STEPS`: `layer`, `step`, and the root mean squares `output_rms` of its output and
        `change_rms` of what that differs by from the output before training. Rows are missing from the update on at which
        training was given up.
    """
    constant = {"max_steps": max(STEPS), "lr_scheduler_type": SchedulerType.CONSTANT, "milestones": None}
    quiet = dict.fromkeys(("eval_strategy", "save_strategy", "logging_strategy"), IntervalStrategy.NO)
    quiet |= {"dataloader_pin_memory": False, "warmup_steps": 0, "swa_lr": None}
    for name, value in {**setup.settings, **constant, **quiet}.items():
        setattr(args, name, value)
    with tempfile.TemporaryDirectory() as args.output_dir:
        trainer = setup.trainer_class(setup.model, args, train_dataset=setup.datasets["train"], **setup.trainer)
        batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
        set_seed(args.seed)
        coordinates = Coordinates(batch)
        trainer.add_callback(coordinates)
        trainer.remove_callback(PrinterCallback)
        try:
            trainer.train()
        except NonFiniteTrainingError as error:
            print(f"{args.optim}, learning rate {args.learning_rate:g}: {error}", file=sys.stderr)
    return coordinates.rows


class Coordinates(TrainerCallback):
    """Measures the output of each layer that has a weight matrix, on one batch, before training and after some steps.

    The layers of a copy are measured, in training mode and with the same dropout each time, so that training is unaffected.

    Args:
        batch: Arguments of the model's `forward`.

    Attributes:
        rows: What was measured, as `measure_coordinates` returns it.
    """

    def __init__(self, batch: Mapping[str, Any]) -> None:
        self.batch = batch
        self.rows: list[dict[str, Any]] = []
        self._before: dict[str, list[Tensor]] = {}

    def on_train_begin(self, args, state, control, model=None, **kwargs) -> None:
        self._before = layer_outputs(model, self.batch)
        self._measure(0, self._before)

    def on_step_end(self, args, state, control, model=None, **kwargs) -> None:
        if state.global_step in STEPS:
            self._measure(state.global_step, layer_outputs(model, self.batch))

    def _measure(self, step: int, outputs: Mapping[str, list[Tensor]]) -> None:
        for layer, calls in outputs.items():
            changes = [after - before for after, before in zip(calls, self._before[layer], strict=True)]
            sizes = {OUTPUT: root_mean_square(calls), CHANGE: root_mean_square(changes)}
            self.rows.append({LAYER: layer, STEP: step, **sizes})


@torch.no_grad()
def layer_outputs(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, list[Tensor]]:
    """Returns the output of every layer with a weight of two or more axes at each of its calls, in order of the layers."""
    model = copy.deepcopy(model).train()
    outputs: dict[str, list[Tensor]] = {}

    def keep(name: str, output: Any) -> None:
        while not isinstance(output, Tensor):
            output = next(iter(output.values())) if isinstance(output, Mapping) else output[0]
        outputs.setdefault(name.removeprefix("timm_model."), []).append(output.float())

    for name, module in model.named_modules():
        has_matrix = any(p.ndim > 1 for p in module.parameters(recurse=False)) or is_parametrized(module)
        if has_matrix and not isinstance(module, ParametrizationList):
            module.register_forward_hook(lambda _, inputs, output, name=name: keep(name, output))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model(**batch)
    return outputs


def root_mean_square(tensors: Sequence[Tensor]) -> float:
    """Returns the root mean square of all numbers in some tensors."""
    return (sum(t.square().sum() for t in tensors) / sum(t.numel() for t in tensors)).sqrt().item()


def draw_coordinates(table: pd.DataFrame, x: str, settings: Sequence[str], path: Path, title: str) -> None:
    """Draws outputs before training, and their changes after each step, against x: a row of panels a setting, a line a layer.

    Args:
        table: Rows of `measure_coordinates` with their values on the sweep's axes.
        x: The axis of numbers to draw against.
        settings: Names of the rows of panels, the values of the column "setting".
        path: PNG file to write.
        title: Title of the picture.
    """
    layers = list(dict.fromkeys(table[LAYER]))
    shade = {layer: colormaps["viridis"](0.9 * place / max(len(layers) - 1, 1)) for place, layer in enumerate(layers)}
    xs = sorted(table[x].unique())
    size = (2.6 * len(STEPS) + 1, 2.6 * len(settings) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(settings), len(STEPS), sharex=True, sharey="row", squeeze=False)
    for row, setting in zip(grid, settings, strict=True):
        for axes, step in zip(row, STEPS, strict=True):
            found = table[(table.setting == setting) & (table[STEP] == step)]
            for layer, points in found.groupby(LAYER, sort=False):
                means = points.groupby(x)[CHANGE if step else OUTPUT].mean()  # over seeds
                axes.plot(means.index, means, marker="o", markersize=3, color=shade[layer], label=layer)
            axes.set(xscale="log", yscale="log")
            axes.set_xticks(xs, [f"{value:g}" for value in xs])
            axes.minorticks_off()
            style(axes, xlabel=axis_label(x) if setting == settings[-1] else "")
            if setting == settings[0]:
                axes.set_title(f"change after {step}" if step else "output before training", fontsize="medium")
        row[0].set_ylabel(setting.replace(", ", "\n"), fontsize="medium")
    if len(layers) <= 12:
        grid[0][-1].legend(frameon=False, fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, path, f"{title}: root mean square, from the first layer (dark) to the last (bright)")


def format_exponents(table: pd.DataFrame, x: str, settings: Sequence[str]) -> str:
    """Formats by which power of x each layer's change after the last step grows: 0 where it keeps its size."""
    last = table[table[STEP] == max(STEPS)]
    layers = list(dict.fromkeys(last[LAYER]))
    rows = []
    for setting in settings:
        cells = []
        for layer in layers:
            sizes = last[(last.setting == setting) & (last[LAYER] == layer)].groupby(x)[CHANGE].mean()
            sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
            fitted = len(sizes) > 1 and np.polyfit(np.log(sizes.index.to_numpy(float)), np.log(sizes), 1)[0]
            cells.append(f"{fitted:+.2f}" if len(sizes) > 1 else "")
        rows.append([setting, *cells])
    return format_table([f"power of {axis_label(x)}", *layers], rows)
