"""Which weights are scale-invariant: measured by rescaling them, not guessed from their names."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.hub import tqdm

from ._rescaling import Finding, Observation, Search, start_search

DRAWS = 4  # runs under other random numbers, for branches that dropout or stochastic depth hid
NO_DIRECTION = "gain, shift or bias: one weight a filter"
UNREACHED = "no gradient reaches it"
FOLLOWED = "its scale shows in the outputs"
SHIFTED = "its scale shows through a bias before its norm"


@dataclass(frozen=True)
class Invariance:
    """The result for one parameter.

    Args:
        name: As in `named_parameters()`; tied parameters have one entry.
        shape: Its shape.
        channel_dims: The axes that index the groups of weights which may be rescaled one by one: `(0,)` for the filters
            of a convolution, `()` when only the tensor as a whole may. None when it is not scale-invariant.
        reason: Why it is not scale-invariant; empty when it is.
        deviation: Relative change of the outputs: when the scale is multiplied by 2**12 or more for an invariant
            parameter, to first order in the logarithm of the scale for another. None when it was not measured.
    """

    name: str
    shape: tuple[int, ...]
    channel_dims: tuple[int, ...] | None
    reason: str = ""
    deviation: float | None = None


def scale_invariant_parameters(
    model: nn.Module, example_inputs: Any, *, seed: int = 0, progress: bool = False
) -> dict[str, tuple[int, ...]]:
    """The parameters whose scale the network cannot see, as measured by `measure_invariance`.

    Args:
        model, example_inputs, seed, progress: As there.

    Returns:
        The `channel_dims` of each of them by its name, in the model's order: `(0,)` if every filter may be rescaled
        alone (a convolution before batch normalization), `()` if only the whole tensor may (before layer normalization),
        other axes if those index the groups (`(1,)` for a transposed convolution).

    Raises:
        ValueError, RuntimeError: As there.
    """
    rows = measure_invariance(model, example_inputs, seed=seed, progress=progress)
    return {row.name: row.channel_dims for row in rows if row.channel_dims is not None}


@torch.inference_mode(False)
def measure_invariance(
    model: nn.Module, example_inputs: Any, *, seed: int = 0, progress: bool = False, explain: bool = False
) -> list[Invariance]:
    """Finds, for every parameter, the finest groups of its weights whose scale does not change the model's outputs.

    The model runs in training mode (normalization by the batch's own statistics) on copies of its tensors. Afterwards
    model, buffers, gradients, hooks, training flags and random number generators are as before, also when it raises.

    How it is measured. (1) Trainable parameters are moved away from their initialization, so that a bias or gain that
    starts at zero is not mistaken for one that stays there; frozen ones stay. (2) One backward pass of a random
    combination of the outputs gives g. By Euler's theorem the sum of g * w over a group of weights is zero if the
    outputs do not depend on the group's scale; it is compared with its size by chance, the root of the sum of (g * w)**2.
    The groups tried are those that axes of the tensor index, finest first. (3) All groups that pass are multiplied at
    once by independent random powers of two, 2**12 to 2**16: the outputs have to stay. If they do not, the set is
    halved, and a single parameter that fails is tried with its next coarser groups. This takes one backward and three
    forward passes, and more only for branches hidden by dropout, or if (2) and (3) disagree.

    Tolerances. The model runs in float64 if it can, else in float32, else in its own dtypes; u is the machine epsilon.
    Powers of two cancel in a normalization without rounding, so the norm's epsilon alone keeps an invariant output from
    being bitwise the same, by a relative eps / variance. Attributes of at most 1e-3 that have "eps" or "epsilon" as a
    word of their name are lowered to u**(2/3). A larger one, or one written into the code, stays: its effect may be 1e-2
    in (2) and (3), but has to shrink at least like 1 / scale, so that the outputs at two random scales above 2**12 agree
    within sqrt(u) + 1e-2 / 2**12, which is 2.5e-6 in float64. An ordinary weight changes them by far more.

    Not found: groups that are no axes of the tensor, such as the blocks of filters of a grouped convolution before
    group normalization, or the heads of an attention with query and key norms; the whole tensor is tried for them. Left
    out on purpose: tensors with one weight a filter (gains, shifts, biases), which have nothing to optimize but their
    scale.

    Args:
        model: The network, before it is wrapped or sharded for several processes.
        example_inputs: A batch as in training: a tensor, a tuple or list of positional arguments, or a mapping of
            keyword arguments. It is copied to the model's device. A few samples suffice, but take at least three: batch
            normalization over two values keeps their signs only, and hides all that comes before.
        seed: Seeds all random numbers, the model's own included (dropout draws the same in every run).
        progress: Whether to show a progress bar.
        explain: Whether to spend another backward pass, without biases, to find out whether those are the reason.

    Returns:
        A row a parameter, in the model's order.

    Raises:
        ValueError: No example inputs, no floating-point parameter, no output that depends on one; a wrapped model.
        RuntimeError: Outputs that differ although weights, inputs and random numbers are the same, or are not finite.
        Exception: Whatever the model raises.
    """
    parameters = dict(model.named_parameters())
    _check_measurable(model, parameters, example_inputs)
    reasons = {name: _reason_to_skip(parameter) for name, parameter in parameters.items()}
    candidates = [name for name, reason in reasons.items() if not reason]
    found: dict[str, Finding] = {}
    if candidates:
        with tqdm(total=len(candidates), desc="Scale invariance", unit="weight", disable=not progress) as bar:
            search, first = start_search(model, example_inputs, candidates, seed)
            for finding in _search_in_draws(search, first, candidates):
                found[finding.name] = finding
                bar.update()
            bar.update(len(candidates) - len(found))
        reasons |= {name: _reason_of(found.get(name)) for name in candidates}
        followed = [name for name in candidates if reasons[name] == FOLLOWED]
        if explain and followed:
            reasons |= dict.fromkeys(search.invariant_without_biases(followed), SHIFTED)
    rows = []
    for name, parameter in parameters.items():
        finding = found.get(name, Finding(name, None, None))
        rows.append(Invariance(name, tuple(parameter.shape), finding.channel_dims, reasons[name], finding.change))
    return rows


def _check_measurable(model: nn.Module, parameters: Mapping[str, nn.Parameter], example_inputs: Any) -> None:
    kind = type(model).__name__
    if example_inputs is None:
        raise ValueError("Measuring scale invariance needs example_inputs (a batch as in training), but they are None.")
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ValueError(f"Scale invariance is measured on the network itself: give model.module, not the {kind}.")
    if any(isinstance(p, DTensor) for p in parameters.values()):
        raise ValueError(f"{kind} is sharded: measure scale invariance before, and give the result as `invariant`.")
    if not any(p.is_floating_point() for p in parameters.values()):
        raise ValueError(f"{kind} has no floating-point parameter, so there is no scale to measure.")


def _reason_to_skip(parameter: nn.Parameter) -> str:
    """Why a parameter is not measured; empty for one that is."""
    if not parameter.is_floating_point():
        return f"is {str(parameter.dtype).removeprefix('torch.')}"
    return NO_DIRECTION if parameter.ndim < 2 or parameter.shape[0] == parameter.numel() else ""


def _reason_of(finding: Finding | None) -> str:
    """Why a measured parameter is not scale-invariant; empty for one that is."""
    if finding is None:
        return UNREACHED
    return FOLLOWED if finding.channel_dims is None else ""


def _search_in_draws(search: Search, first: Observation, candidates: Sequence[str]) -> Iterator[Finding]:
    """Yields a finding for every parameter that acts on the outputs under some random numbers, those of `first` at first."""
    hidden, observation = list(candidates), first
    for draw in range(DRAWS):
        if draw:
            observation = search.observe(search.point, draw)
        reached = {n: observation.effects[n] for n in hidden if observation.effects[n].reach > search.least_reach}
        yield from search.find_groupings(reached, observation.outputs, draw)
        hidden = [name for name in hidden if name not in reached]
        if not hidden or not observation.drew:
            return
