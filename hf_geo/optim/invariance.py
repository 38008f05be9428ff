"""Which weights are scale-invariant: measured by rescaling them, not guessed from their names."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.hub import tqdm

from ._probe import map_tensors
from ._rescaling import Finding, Observation, Search, start_search

DRAWS = 4  # a branch that dropout or stochastic depth hid is looked at again under other random numbers
NO_DIRECTION = "gain, shift or bias: one weight a filter"
UNREACHED = "no gradient reaches it"
FOLLOWED = "its scale shows in the outputs"
SHIFTED = "its scale shows through a bias before its norm"


@dataclass(frozen=True)
class Invariance:
    """What the probe found for one parameter.

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
        The `channel_dims` of each of them by its name, in the model's order: `(0,)` where every filter may be rescaled
        alone (a convolution before batch normalization), `()` where only the whole tensor may (before layer
        normalization), other axes where it is those that index the groups (`(1,)` for a transposed convolution).

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

    How it is measured. (1) Trainable parameters are moved away from where they were initialized, so that a bias or a
    gain that starts at zero is not taken for one that stays there; frozen ones stay. (2) One backward pass of a random
    combination of the outputs gives g, and the sum of g * w over a group of weights is the change of the outputs with
    the logarithm of the group's scale (Euler's theorem: zero if they do not depend on it). Next to the root of the sum
    of (g * w)**2, its size by chance, it is around 1 for an ordinary weight whatever its shape and influence. The groups
    tried are those that axes of the tensor index, finest first. (3) All groups for which it is nearly zero are
    multiplied at once by independent random powers of two, 2**12 to 2**16: the outputs have to stay. If they do not, the
    set is halved, and a parameter that fails by itself is tried with its next coarser groups. So it takes one backward
    and three forward passes, and more of them only for branches hidden by dropout or where (2) and (3) disagree.

    Tolerances. The model runs in float64 if it can, else in float32, else in its own dtypes; u is the machine epsilon.
    Powers of two cancel in a normalization without any rounding, so what keeps an invariant output from being bitwise
    the same is the norm's epsilon, whose relative effect is eps / variance. Attributes of at most 1e-3 that have "eps" or
    "epsilon" as a word of their name are lowered to u**(2/3): small enough not to matter, too large to turn the rounding
    noise of a constant channel into a signal. A larger one, or one that is written into the code, stays: its effect may be 1e-2 in (2) and (3), but has to shrink at least like
    1 / scale, so that the outputs at two random scales above 2**12 agree within sqrt(u) + 1e-2 / 2**12, which is 2.5e-6
    in float64. An ordinary weight changes them by far more.

    Not found: groups that are no axes of the tensor, such as the blocks of filters of a grouped convolution before
    group normalization or the heads of an attention with query and key norms; the whole tensor is tried for them. Left
    out by purpose: tensors with one weight a filter (gains, shifts, biases), for which nothing is left to optimize once
    their scale is gone.

    Args:
        model: The network, before it is wrapped or sharded for several processes.
        example_inputs: A batch as in training: a tensor, a tuple or list of positional arguments, or a mapping of
            keyword arguments. It is copied to the model's device. A few samples suffice, but take at least three: batch
            normalization over two values keeps their signs only, and hides all that comes before.
        seed: Of all random numbers, the model's own included (dropout draws the same on all sides).
        progress: Whether to show a progress bar.
        explain: Whether to spend another backward pass, without biases, to tell whether those are the reason.

    Returns:
        A row a parameter, in the model's order.

    Raises:
        ValueError: No example inputs, no floating-point parameter, no output that depends on one; a wrapped model.
        RuntimeError: Outputs that differ although weights, inputs and random numbers are the same, or are not finite.
        Exception: Whatever the model raises.
    """
    parameters = dict(model.named_parameters())
    _check_measurable(model, parameters, example_inputs)
    rows = {name: _row_without_measuring(name, parameter) for name, parameter in parameters.items()}
    candidates = [name for name, row in rows.items() if row is None]
    if candidates:
        with tqdm(total=len(candidates), desc="Scale invariance", unit="weight", disable=not progress) as bar:
            search, first = start_search(model, example_inputs, candidates, seed)
            for finding in _search_in_draws(search, first, candidates):
                shape, dims = tuple(parameters[finding.name].shape), finding.channel_dims
                reason = FOLLOWED if dims is None else ""
                rows[finding.name] = Invariance(finding.name, shape, dims, reason, finding.change)
                bar.update()
            unreached = [name for name in candidates if rows[name] is None]
            rows |= {name: Invariance(name, tuple(parameters[name].shape), None, UNREACHED) for name in unreached}
            bar.update(len(unreached))
        followed = [name for name in candidates if rows[name].reason == FOLLOWED]
        if explain and followed:
            rows |= {name: replace(rows[name], reason=SHIFTED) for name in search.shifted(followed)}
    return list(rows.values())


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


def _row_without_measuring(name: str, parameter: nn.Parameter) -> Invariance | None:
    """The row of a parameter that no scale is looked for in; None for one to measure."""
    if not parameter.is_floating_point():
        reason = f"is {str(parameter.dtype).removeprefix('torch.')}"
    elif parameter.ndim < 2 or parameter.shape[0] == parameter.numel():
        reason = NO_DIRECTION
    else:
        return None
    return Invariance(name, tuple(parameter.shape), None, reason)


def _search_in_draws(search: Search, first: Observation, candidates: Sequence[str]) -> Iterator[Finding]:
    """Findings for all parameters that act on the outputs under some random numbers, starting with those of `first`."""
    hidden, observation = list(candidates), first
    for draw in range(DRAWS):
        if draw:
            observation = search.observe(search.point, draw)
        reached = {n: observation.effects[n] for n in hidden if observation.effects[n].reach > search.faint}
        yield from search.find_groupings(reached, observation.outputs, draw)
        hidden = [name for name in hidden if name not in reached]
        if not hidden or not observation.drew:
            return


def first_samples(batch: Any, count: int) -> Any:
    """The first samples of a batch, which tell as much about scale invariance as all of them, in less time.

    Args:
        batch: A tensor, or a mapping, list or tuple of them.
        count: How many samples to keep. At least three, see `measure_invariance`.

    Returns:
        `batch` with `count` entries of the first axis of every tensor that has as many of them as the first tensor has.
    """
    lengths: list[int] = []

    def cut(tensor: Tensor) -> Tensor:
        lengths.extend(tensor.shape[:1])
        return tensor[:count] if tensor.ndim and len(tensor) == lengths[0] else tensor

    return map_tensors(batch, cut)
