"""Averages of trained networks and the barrier between two of them, as functions of state dicts and of measured values.

Norm statistics belong to the weights they were taken for. After loading an average of several networks, take them anew:
`hf_geo.evaluation.recalibrate_norms(model, loader)`.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from hf_geo.metrics.directions import nan_is_worst

StateDict = Mapping[str, Tensor]
_TOLERANCE = 1e-5  # coefficients may be written with a few digits


def first_difference(first: StateDict, other: StateDict) -> str | None:
    """Describes the first tensor in which two state dicts are of different architectures; None where they are not."""
    for name in {**first, **other}:
        here, there = (f"shape {list(s[name].shape)}" if name in s else "no such tensor" for s in (first, other))
        if here != there:
            return f"for {name!r} the first has {here}, the other {there}"
    return None


def are_equal(first: StateDict, other: StateDict) -> bool:
    """Whether two state dicts hold the same values under the same names."""
    return first.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in first.items())


def average(states: Sequence[StateDict], coefficients: Sequence[float] | None = None) -> dict[str, Tensor]:
    """The weighted sum of networks, tensor by tensor: a model soup (Wortsman et al. 2022, arXiv 2203.05482).

    A network that alone has a coefficient other than zero comes back bit for bit. Sums are taken in double precision.
    Integer tensors, such as counters, are the first network's.

    Args:
        states: State dicts of one architecture.
        coefficients: One a network, with sum 1; equal ones by default (the uniform soup).

    Returns:
        New tensors of the first network's dtypes.

    Raises:
        ValueError: The networks are of different architectures, quantized or sharded; the coefficients do not sum to one.
    """
    if coefficients is None:
        coefficients = [1 / len(states)] * len(states)
    if len(coefficients) != len(states):
        raise ValueError(f"There are {len(coefficients)} coefficients for {len(states)} networks: give one for each.")
    if not abs(sum(coefficients) - 1) <= _TOLERANCE:  # nor is the sum NaN
        raise ValueError(
            f"Coefficients sum to one, but {list(coefficients)} sum to {sum(coefficients):.6g}: change them."
        )
    for other in states[1:]:
        if difference := first_difference(states[0], other):
            raise ValueError(f"The networks are of different architectures: {difference}.")
    return {name: _combine(name, [state[name] for state in states], coefficients) for name in states[0]}


def only_member(coefficients: Sequence[float]) -> int | None:
    """The number of the network that an average is a copy of; None where it is one of several."""
    members = [index for index, coefficient in enumerate(coefficients) if coefficient != 0]
    return members[0] if len(members) == 1 else None


def interpolate(first: StateDict, second: StateDict, position: float) -> dict[str, Tensor]:
    """The network at a position between two: 0 is the first and 1 the second, bit for bit.

    Between a pretrained and a fine-tuned network this is WiSE-FT (Wortsman et al. 2022, arXiv 2109.01903).

    Raises:
        ValueError: As `average`.
    """
    return average([first, second], [1 - position, position])


def greedy_soup(
    states: Sequence[StateDict], score: Callable[[StateDict], float], *, higher_is_better: bool
) -> tuple[list[int], float]:
    """Chooses the networks of a greedy soup (Wortsman et al. 2022, arXiv 2203.05482, recipe 1).

    Networks are tried from the best to the worst; one joins if the uniform average with it is at least as good on
    validation data. The soup is therefore never worse there than its best member. A score of NaN is the worst.

    Args:
        states: State dicts of one architecture.
        score: The metric of a network on validation data. For an average it takes norm statistics anew, and for one of
            `states`, which it gets as it is, it keeps them.
        higher_is_better: The metric's direction.

    Returns:
        The members' numbers in the order in which they joined, and the soup's score.

    Raises:
        ValueError: As `average`.
    """
    sign = 1 if higher_is_better else -1
    scores = [sign * score(state) for state in states]
    first, *others = sorted(range(len(states)), key=lambda index: nan_is_worst(-scores[index]))
    members, best = [first], scores[first]
    for index in others:
        found = sign * score(average([states[i] for i in (*members, index)]))
        if found >= best:
            members, best = [*members, index], found
    return members, sign * best


def barrier(values: Sequence[float]) -> float:
    """The height of the barrier between two networks (Frankle et al. 2020, arXiv 1912.05671).

    max_a E(a) - (E(0) + E(1)) / 2, where E(a) is the error at position a of the segment between the networks: the largest
    error on the way minus the mean of the two ends. It is zero or more, and infinite if a value is infinite or NaN.

    Args:
        values: The error (1 - accuracy) or loss at each position, in order; the first and the last are the ends.
    """
    if not all(map(math.isfinite, values)):
        return math.inf
    return max(values) - (values[0] + values[-1]) / 2


def _combine(name: str, tensors: Sequence[Tensor], coefficients: Sequence[float]) -> Tensor:
    first = tensors[0]
    if any(hasattr(tensor, "full_tensor") for tensor in tensors):
        raise ValueError(
            f"{name!r} is sharded: gather whole weights first (`get_model_state_dict` with full_state_dict)."
        )
    member = only_member(coefficients)
    if member is not None:
        return tensors[member].clone()
    if not (first.is_floating_point() or first.is_complex()):
        if first.ndim and any(not torch.equal(first, tensor) for tensor in tensors[1:]):
            raise ValueError(
                f"{name!r} holds different {first.dtype} values, as quantized weights do: merge before quantizing."
            )
        return first.clone()
    wide = torch.promote_types(first.dtype, torch.float64)
    parts = [c * tensor.to(wide) for c, tensor in zip(coefficients, tensors, strict=True) if c != 0]
    return sum(parts[1:], parts[0]).to(first.dtype)
