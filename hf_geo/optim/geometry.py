"""The weights that a method's geometry is for: measured, given, found by module structure, or by name."""

import itertools
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from .invariance import scale_invariant_parameters

logger = logging.getLogger(__name__)

_PER_CHANNEL_NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)


def geometry_weights(
    model: nn.Module,
    geometry: str = "auto",
    *,
    example_inputs: Any = None,
    invariant: Mapping[str, Sequence[int]] | None = None,
    progress: bool = False,
) -> dict[str, tuple[int, ...]]:
    """Finds the weights that a geometry is for, and the axes that index their groups.

    Args:
        model: The network.
        geometry: How they are found. "auto" takes `invariant`, or measures with `example_inputs` (see
            `scale_invariant_parameters`), or without either goes by module structure (`norm_fed_weights`) and warns.
            "structure" goes by module structure in any case, "none" finds none. Any other text is a regular expression:
            weights of two or more axes with a match in their name, in the groups `invariant` gives them or by filter.
        example_inputs: A batch as in training.
        invariant: The result of an earlier `scale_invariant_parameters`.
        progress: Whether to show a progress bar while measuring.

    Raises:
        ValueError: `invariant` names a parameter that the model lacks; `geometry` is no regular expression, or one that
            matches nothing.
        Exception: As `scale_invariant_parameters`.
    """
    parameters = dict(model.named_parameters())
    given = {name: tuple(dims) for name, dims in (invariant or {}).items()}
    for name in given:
        if name not in parameters:
            raise ValueError(f"`invariant` was measured on another model: this one has no parameter {name!r}.")
    if geometry == "none":
        return {}
    if geometry == "auto" and invariant is not None:
        found, source = given, "as given"
    elif geometry == "auto" and example_inputs is not None:
        found, source = scale_invariant_parameters(model, example_inputs, progress=progress), "as measured"
    elif geometry in ("auto", "structure"):
        found, source = norm_fed_weights(model), "by module structure"
    else:
        found = {name: given.get(name, (0,)) for name in _matching_weights(parameters, geometry)}
        source = f"by the name {geometry!r}"
    counts = len(found), len(parameters), sum(parameters[name].numel() for name in found)
    logger.info("%d of %d tensors are scale-invariant, with %d parameters: %s", *counts, source)
    if geometry == "auto" and source == "by module structure":
        logger.warning(
            "Scale-invariant weights were guessed from module structure: give example_inputs to measure them."
        )
    return found


def norm_fed_weights(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Finds weights that module structure shows to be scale-invariant, with the axes that index their groups.

    A convolution or linear layer counts when the module registered right after it in the same container (identities
    skipped) is a batch or instance normalization over its outputs: every filter (axis 0) is then rescaled alone. This
    is a rule about structure, not about what `forward` does: `scale_invariant_parameters` measures instead.
    """
    found = {}
    for prefix, container in model.named_modules():
        children = [(n, m) for n, m in container.named_children() if not isinstance(m, nn.Identity)]
        for (name, layer), (_, norm) in itertools.pairwise(children):
            if _normalizes_filters(norm, layer):
                found[f"{prefix}.{name}.weight".lstrip(".")] = (0,)
    return found


def _normalizes_filters(norm: nn.Module, layer: nn.Module) -> bool:
    """Whether `norm` is a normalization of the filters of `layer`, one by one."""
    is_transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)
    if not isinstance(layer, _WEIGHTED) or is_transposed or not isinstance(norm, _PER_CHANNEL_NORMS):
        return False
    # A parametrized weight is no parameter, and the tensors that it is computed from are not scale-invariant.
    if "weight" not in dict(layer.named_parameters(recurse=False)):
        return False
    is_instance_norm_of_vectors = isinstance(norm, _PER_CHANNEL_NORMS[1]) and isinstance(layer, nn.Linear)
    return norm.num_features == layer.weight.shape[0] and not is_instance_norm_of_vectors


def _matching_weights(parameters: Mapping[str, Tensor], expression: str) -> list[str]:
    """Names of the weights that a user's regular expression matches."""
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
