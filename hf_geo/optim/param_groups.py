"""Which parameters get the geometry, which get weight decay: from a model to parameter groups."""

import itertools
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .invariance import scale_invariant_parameters
from .registry import Method, get_method

logger = logging.getLogger(__name__)

_PER_CHANNEL_NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)


def undecayed_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters that get no weight decay: norm gains and shifts, biases, and every tensor of one axis or none."""
    return {name for name, p in model.named_parameters() if p.ndim <= 1 or name.rsplit(".", 1)[-1] == "bias"}


def norm_fed_weights(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Weights that module structure shows to be scale-invariant, with the axes that index their groups.

    A convolution or linear layer counts when the module registered right after it in the same container (identities
    skipped) is a batch or instance normalization over its outputs: every filter (axis 0) is then rescaled alone. It is
    a rule about structure, not about what `forward` does: `scale_invariant_parameters` measures instead.
    """
    found = {}
    for prefix, container in model.named_modules():
        children = [(n, m) for n, m in container.named_children() if not isinstance(m, nn.Identity)]
        for (name, layer), (_, norm) in itertools.pairwise(children):
            transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)
            if not isinstance(layer, _WEIGHTED) or transposed or not isinstance(norm, _PER_CHANNEL_NORMS):
                continue
            normalizes = isinstance(norm, nn.modules.batchnorm._BatchNorm) or isinstance(layer, nn.modules.conv._ConvNd)
            # A parametrized weight is no parameter, and what it is made of is not scale-invariant by itself.
            plain = "weight" in dict(layer.named_parameters(recurse=False))
            if plain and normalizes and norm.num_features == layer.weight.shape[0]:
                found[f"{prefix}.{name}.weight".lstrip(".")] = (0,)
    return found


def geometry_weights(
    model: nn.Module,
    geometry: str = "auto",
    *,
    example_inputs: Any = None,
    invariant: Mapping[str, Sequence[int]] | None = None,
    progress: bool = False,
) -> dict[str, tuple[int, ...]]:
    """The weights that a geometry is for, and the axes that index their groups.

    Args:
        model: The network.
        geometry: How they are found. "auto" takes `invariant`, or measures with `example_inputs` (see
            `scale_invariant_parameters`), or without either goes by module structure (`norm_fed_weights`), and says so.
            "structure" goes by module structure in any case, "none" finds none. Any other text is a regular expression:
            weights of two or more axes with a match in their name, in the groups `invariant` gives them or by filter.
        example_inputs: A batch as in training.
        invariant: What `scale_invariant_parameters` found before.
        progress: Whether to show a progress bar while measuring.

    Raises:
        ValueError: `invariant` has a name that the model has not; a regular expression that is none, or matches nothing.
        Exception: As `scale_invariant_parameters`.
    """
    parameters = dict(model.named_parameters())
    given = {name: tuple(dims) for name, dims in (invariant or {}).items()}
    unknown = [name for name in given if name not in parameters]
    if unknown:
        raise ValueError(f"`invariant` was measured on another model: this one has no parameter {unknown[0]!r}.")
    if geometry == "none":
        return {}
    if geometry == "auto" and invariant is not None:
        found, how = given, "as given"
    elif geometry == "auto" and example_inputs is not None:
        found, how = scale_invariant_parameters(model, example_inputs, progress=progress), "as measured"
    elif geometry in ("auto", "structure"):
        found, how = norm_fed_weights(model), "by module structure"
    else:
        found = {name: given.get(name, (0,)) for name in _matching_weights(parameters, geometry)}
        how = f"by the name {geometry!r}"
    counts = len(found), len(parameters), sum(parameters[name].numel() for name in found)
    logger.info("%d of %d tensors are scale-invariant, with %d parameters: %s", *counts, how)
    if geometry == "auto" and how == "by module structure":
        logger.warning(
            "Scale-invariant weights are told by module structure: give example_inputs to have them measured."
        )
    return found


def _matching_weights(parameters: Mapping[str, torch.Tensor], expression: str) -> list[str]:
    """Names of the weights that the expression of a user finds."""
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise ValueError(f"geometry={expression!r} is not a regular expression: {error}.") from error
    names = [name for name, p in parameters.items() if p.ndim > 1 and pattern.search(name)]
    if not names:
        raise ValueError(
            f"geometry={expression!r} is neither auto, structure nor none, and as a regular expression it matches no "
            "name of a weight with two or more axes."
        )
    return names


def param_groups(
    model: nn.Module,
    name: str,
    *,
    lr: float | torch.Tensor | None = None,
    weight_decay: float = 0.0,
    group_settings: Mapping[str, Mapping[str, Any]] | None = None,
    caller_groups: Iterable[Mapping[str, Any]] | None = None,
    geometry: str = "auto",
    example_inputs: Any = None,
    invariant: Mapping[str, Sequence[int]] | None = None,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Parameter groups of `model` for the method `name`, ready for its class.

    Each group carries its `name`: "geometry" (the weights the method's geometry applies to), "rest" and "no_decay"
    (the rest without weight decay: norm gains, biases and other tensors of at most one axis). Parameters that do not
    require a gradient are left out.

    Args:
        model: The network.
        name: A registered method, see `list_optimizers()`.
        lr: Learning rate of the groups "rest" and "no_decay"; the geometry's is the method's multiple of it. The
            method's own default when not given.
        weight_decay: For the groups "geometry" and "rest".
        group_settings: Settings of single groups by their names, such as `{"geometry": {"lr": 0.2}}`.
        caller_groups: Groups that a training library has made: only their parameters are taken, with the settings they
            give (a learning rate is multiplied for the geometry as `lr` is).
        geometry, example_inputs, invariant, progress: How the scale-invariant weights are found, see `geometry_weights`.
            Nothing is measured for a method that has no geometry.

    Raises:
        ValueError: Unknown method, group or setting; weight decay for a method that has none; nothing to train.
        Exception: As `geometry_weights`.
    """
    method = get_method(name)
    _refuse_decay(method, weight_decay)
    found: Mapping[str, tuple[int, ...]] = {}
    if method.geometry:
        found = geometry_weights(model, geometry, example_inputs=example_inputs, invariant=invariant, progress=progress)
    kinds = _kinds_of_groups(method, method.lr if lr is None else lr, weight_decay)
    settings = _settings_of_parameters(model, method, found, kinds)
    if caller_groups is not None:
        settings = _settings_of_caller(settings, caller_groups, method, kinds["rest"])
    groups = _gather(settings)
    if not groups:
        raise ValueError("The model has no parameter that requires a gradient, so there is nothing to optimize.")
    _set_by_name(groups, method, group_settings or {})

    if method.geometry and geometry != "none" and all(group["name"] != "geometry" for group in groups):
        logger.warning("%s: no weight of this model is for its geometry, so all are treated alike.", name)
    for group in groups:
        count = sum(p.numel() for p in group["params"])
        logger.info("%s: group %r has %d tensors, %d parameters", name, group["name"], len(group["params"]), count)
    return groups


def _refuse_decay(method: Method, weight_decay: float) -> None:
    if weight_decay and "weight_decay" not in method.arguments:
        instead = f"; bound the weights with {method.instead_of_decay} instead" if method.instead_of_decay else ""
        raise ValueError(f"{method.name} has no weight decay, but weight_decay={weight_decay} was given{instead}.")


def _kinds_of_groups(method: Method, lr: float | torch.Tensor, weight_decay: float) -> dict[str, dict[str, Any]]:
    """The settings of each kind of group; only methods with weight decay have a kind without it."""
    kinds = {
        "geometry": {"name": "geometry", "lr": lr * method.geometry_lr, **method.geometry_settings},
        "rest": {"name": "rest", "lr": lr},
    }
    if "weight_decay" not in method.arguments:
        return kinds
    kinds = {kind: {**settings, "weight_decay": weight_decay} for kind, settings in kinds.items()}
    return {**kinds, "no_decay": {"name": "no_decay", "lr": lr, "weight_decay": 0.0}}


def _settings_of_parameters(
    model: nn.Module, method: Method, found: Mapping[str, tuple[int, ...]], kinds: Mapping[str, dict[str, Any]]
) -> dict[nn.Parameter, dict[str, Any]]:
    undecayed = undecayed_parameters(model)
    settings = {}
    for key, parameter in model.named_parameters():
        rule = method.geometry(parameter.shape, found[key]) if key in found else None
        if not parameter.requires_grad:
            continue
        if rule is not None:
            settings[parameter] = {**kinds["geometry"], **rule}
        else:
            settings[parameter] = kinds["no_decay" if key in undecayed and "no_decay" in kinds else "rest"]
    return settings


def _settings_of_caller(
    settings: Mapping[nn.Parameter, dict[str, Any]],
    caller_groups: Iterable[Mapping[str, Any]],
    method: Method,
    rest: dict[str, Any],
) -> dict[nn.Parameter, dict[str, Any]]:
    """The settings of the parameters of a caller's groups: ours, and the caller's where they differ."""
    combined = {}
    for group in caller_groups:
        theirs = {key: value for key, value in group.items() if key not in ("params", "name")}
        if "weight_decay" not in method.arguments:
            _refuse_decay(method, theirs.pop("weight_decay", 0.0))
        for parameter in group["params"]:
            ours = settings.get(parameter, rest)
            combined[parameter] = {**ours, **theirs}
            if "lr" in theirs and ours["name"] == "geometry":
                combined[parameter]["lr"] = theirs["lr"] * method.geometry_lr
    return combined


def _gather(settings: Mapping[nn.Parameter, dict[str, Any]]) -> list[dict[str, Any]]:
    """One group for the parameters of the same settings, in the order of the first of them."""
    gathered: list[tuple[dict[str, Any], list[nn.Parameter]]] = []
    for parameter, wanted in settings.items():
        members = next((params for known, params in gathered if known == wanted), None)
        if members is None:
            members = []
            gathered.append((wanted, members))
        members.append(parameter)
    return [{**wanted, "params": members} for wanted, members in gathered]


def _set_by_name(groups: list[dict[str, Any]], method: Method, group_settings: Mapping[str, Mapping[str, Any]]) -> None:
    known = {group["name"] for group in groups}
    for label, settings in group_settings.items():
        if label not in known:
            raise ValueError(
                f"{method.name} makes no parameter group {label!r} of this model: it makes {', '.join(sorted(known))}."
            )
        method.check_settings(settings)
        for group in groups:
            if group["name"] == label:
                group.update(settings)
