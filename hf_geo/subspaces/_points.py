"""Where control points come from: the model, a model_init, given weights, or a jitter of the first."""

from collections.abc import Callable, Mapping
from os import PathLike, fspath
from pathlib import Path

import torch
from torch import Tensor, nn

from ._span import Holders, find_holders, plain_name
from .config import SubspaceConfig
from .draws import draw_generator

Weights = Mapping[str, Tensor] | str | PathLike


def choose_parameters(model: nn.Module, config: SubspaceConfig) -> list[Holders]:
    """The trainable parameters of a plain model that the settings select.

    Raises:
        ValueError: There is none, or none that the regularizer, if it is wanted, could be taken of.
    """
    trainable = [held for parameter, held in find_holders(model).items() if parameter.requires_grad]
    chosen = [held for held in trainable if any(config.selects(name) for name in held.names)]
    if not chosen:
        what = f"matches parameters={config.parameters!r}" if trainable else "requires a gradient"
        raise ValueError(f"No parameter of the model {what}, so there is nothing to span (frozen ones never are).")
    if config.beta > 0 and all(held.parameter.ndim < 2 for held in chosen):
        raise ValueError(
            f"No parameter that parameters={config.parameters!r} selects has two or more axes, "
            "so there is nothing to regularize: set beta to 0."
        )
    return chosen


def initial_points(
    chosen: list[Holders],
    config: SubspaceConfig,
    model_init: Callable[[], nn.Module] | None,
    given: Mapping[int, Weights],
    seed: int,
) -> list[dict[str, Tensor]]:
    """Values of every control point, one dict of tensors by the parameters' first names each.

    Args:
        chosen: The parameters to span; their values are control point 0 unless that is given.
        config: The subspace's settings.
        model_init: Makes a model whose weights become a control point.
        given: State dicts, or files or folders that hold one, by the number of their point.
        seed: Keys the random state `model_init` runs under, and the jitter.

    Raises:
        ValueError: A given point does not fit the model; two points are equal.
    """
    first = {held.names[0]: held.parameter.detach() for held in chosen}
    padding_rows = {held.names[0]: held.padding_rows for held in chosen}
    for index in given:
        config.check_point(index)
    points: list[dict[str, Tensor] | None] = [None] * config.num_points
    for index, weights in given.items():
        points[index] = _matching(_read(weights), first, f"control point {index}")
    if points[0] is None:
        points[0] = first
    ends_only = config.kind == "curve" and given and points[1] is None and points[2] is not None and model_init is None
    for index in range(1, config.num_points):
        if points[index] is not None or (ends_only and index == 1):
            continue
        generator = draw_generator(seed, index)
        if model_init is not None:
            points[index] = _matching(_run(model_init, generator), first, f"model_init's control point {index}")
        else:
            points[index] = {
                name: _jittered(value, config.jitter, generator, padding_rows[name])
                for name, value in points[0].items()
            }
    if ends_only:
        # Between two trained networks the curve starts as the segment that joins them.
        points[1] = {name: value.lerp(points[2][name], 0.5) for name, value in points[0].items()}
    _check_distinct(points, model_init is not None)
    return points


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
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(fspath(weights))
    path = path / "model.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"There are no weights for a control point at {path}.")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no complete safetensors file ({error}): copy or download it again.") from error


def _matching(weights: Mapping[str, Tensor], first: dict[str, Tensor], what: str) -> dict[str, Tensor]:
    found = {}
    weights = {plain_name(name): value for name, value in weights.items()}
    names = {name: plain_name(name) for name in first}
    fronts = {name.partition(".")[0] for name in names.values()}
    if len(fronts) == 1 and not any(name in weights for name in names.values()):
        # Saved without the wrapper that is around the network here, as transformers has one around timm's.
        weights = {f"{front}.{name}": value for front in fronts for name, value in weights.items()}
    for name, own in first.items():
        if names[name] not in weights:
            raise ValueError(
                f"The weights of {what} have no {name!r}, which the model has: give one of the same network."
            )
        value = weights[names[name]].detach()
        if value.shape != own.shape:
            raise ValueError(
                f"{name!r} has shape {tuple(value.shape)} in {what} and {tuple(own.shape)} in the model: "
                "all control points are networks of one architecture."
            )
        found[name] = value.to(own, copy=True)  # training a control point must not change what it was made from
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
