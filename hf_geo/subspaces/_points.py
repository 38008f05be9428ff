"""The initial control points: from the model, a model_init, given weights, or a jitter of the first."""

from collections.abc import Callable, Mapping
from os import PathLike, fspath
from pathlib import Path

import torch
from torch import Tensor, nn

from ._files import read_tensors
from ._span import Holders, find_holders
from ._state import find_module
from .config import SubspaceConfig
from .draws import draw_generator

Weights = Mapping[str, Tensor] | str | PathLike


def choose_parameters(model: nn.Module, config: SubspaceConfig) -> list[Holders]:
    """Chooses the trainable parameters of a plain model that the settings select.

    Raises:
        ValueError: There is none, or none of two or more axes although the regularizer is wanted.
    """
    trainable = [held for parameter, held in find_holders(model).items() if parameter.requires_grad]
    chosen = [held for held in trainable if any(config.selects(name) for name in held.names)]
    if not chosen:
        lack = f"matches parameters={config.parameters!r}" if trainable else "requires a gradient"
        raise ValueError(f"No parameter of the model {lack}, so there is nothing to span (frozen ones never are).")
    if config.beta > 0 and all(held.parameter.ndim < 2 for held in chosen):
        raise ValueError(
            f"No parameter that parameters={config.parameters!r} selects has two or more axes, "
            "so there is nothing to regularize: set beta to 0."
        )
    return chosen


def initial_points(
    model: nn.Module,
    chosen: list[Holders],
    config: SubspaceConfig,
    model_init: Callable[[], nn.Module] | None,
    given: Mapping[int, Weights],
    seed: int,
) -> list[dict[str, Tensor]]:
    """Makes the values of every control point, one dict of tensors by the parameters' first names each.

    Args:
        model: The plain model.
        chosen: The parameters to span; their values are control point 0 unless that is given.
        config: The subspace's settings.
        model_init: Makes a model whose weights become a control point.
        given: State dicts, or files or folders that hold one, by the number of their point.
        seed: Keys the random state `model_init` runs under, and the jitter.

    Raises:
        ValueError: A given point does not fit the model; two points are equal.
    """
    for index in given:
        config.check_point(index)
    first = {held.names[0]: held.parameter.detach() for held in chosen}
    points = {i: _matching(_read(weights), model, first, f"control point {i}") for i, weights in given.items()}
    points.setdefault(0, first)
    missing = [index for index in range(config.num_points) if index not in points]
    if config.kind == "curve" and missing == [1] and model_init is None:
        # Between two trained networks the curve starts as the segment that joins them.
        points[1] = {name: value.lerp(points[2][name], 0.5) for name, value in points[0].items()}
        missing = []
    for index in missing:
        generator = draw_generator(seed, index)
        if model_init is not None:
            weights = _run(model_init, generator)
            points[index] = _matching(weights, model, first, f"model_init's control point {index}")
        else:
            rows = {held.names[0]: held.padding_rows for held in chosen}
            points[index] = {n: _jittered(v, config.jitter, generator, rows[n]) for n, v in points[0].items()}
    in_order = [points[index] for index in range(config.num_points)]
    _check_distinct(in_order, model_init is not None)
    return in_order


def _run(model_init: Callable[[], nn.Module], generator: torch.Generator) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(generator.initial_seed())
        return model_init().state_dict()


def _jittered(value: Tensor, jitter: float, generator: torch.Generator, padding_rows: list[int]) -> Tensor:
    scale = value.abs().square().mean().sqrt()
    noise = torch.randn(value.shape, dtype=value.dtype, generator=generator).to(value.device)
    for row in padding_rows:
        noise[row] = 0  # no gradient would ever take it off again
    return value + noise * (jitter * scale)


def _read(weights: Weights) -> Mapping[str, Tensor]:
    if isinstance(weights, Mapping):
        return weights
    path = Path(fspath(weights))
    path = path / "model.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"There are no weights for a control point at {path}.")
    return read_tensors(path, "is no complete safetensors file")


def _matching(
    weights: Mapping[str, Tensor], model: nn.Module, first: dict[str, Tensor], source: str
) -> dict[str, Tensor]:
    """The weights under the names of `first`; raises `ValueError` if one is missing or of another shape."""
    path, names = find_module(model, weights)
    own_names = {f"{path}.{name}".lstrip("."): saved for saved, name in names.items()}
    found = {}
    for name, own in first.items():
        if name not in own_names:
            raise ValueError(
                f"The weights of {source} have no {name!r}, which the model has: give one of the same network."
            )
        value = weights[own_names[name]].detach()
        if value.shape != own.shape:
            raise ValueError(
                f"{name!r} has shape {tuple(value.shape)} in {source} and {tuple(own.shape)} in the model: "
                "all control points are networks of one architecture."
            )
        found[name] = value.to(own, copy=True)  # training a control point must not change the given weights
    return found


def _check_distinct(points: list[dict[str, Tensor]], from_model_init: bool) -> None:
    for index in range(1, len(points)):
        for other in range(index):
            if all(torch.equal(points[index][name], value) for name, value in points[other].items()):
                hint = (
                    "model_init must not seed the generator itself nor load the same weights each time; "
                    "for a pretrained network leave it out, and later points get a jitter"
                    if from_model_init
                    else "give different weights, or leave one out"
                )
                raise ValueError(f"Control points {other} and {index} are equal, so they span nothing: {hint}.")
