"""The search for groups of weights whose scale does not change the outputs; `measure_invariance` explains the method."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ._probe import Probe, deviation

EPS_SHARE = 1e-2  # the most that an epsilon may spoil the invariance at the natural scale of the weights
BOOST = 12  # the effect of an epsilon has to vanish for weights at least 2**BOOST times as large


def group_sums(tensor: Tensor) -> dict[tuple[int, ...], Tensor]:
    """For each set of axes that index groups of weights, the sums of `tensor` over the groups."""
    sums = {tuple(range(tensor.ndim)): tensor}
    for size in reversed(range(tensor.ndim)):
        for dims in itertools.combinations(range(tensor.ndim), size):
            summed = min((axis for axis in range(tensor.ndim) if axis not in dims), key=lambda axis: tensor.shape[axis])
            finer = tuple(sorted((*dims, summed)))
            sums[dims] = sums[finer].sum(finer.index(summed))
    return sums


class Effect(NamedTuple):
    """How one parameter acts on a random combination of the outputs, with `e` = gradient * weight.

    `reach` is |e|, relative to the outputs. `shares` has, for each grouping, the norm of the sums of `e` over the
    groups, relative to |e|: around 1 by chance, 0 if the groups may be rescaled one by one.
    """

    reach: float
    shares: dict[tuple[int, ...], float]


class Observation(NamedTuple):
    """The outputs of a run, the effects of the candidates on them, and whether the model drew random numbers."""

    outputs: list[Tensor]
    effects: dict[str, Effect]
    drew: bool


class Finding(NamedTuple):
    """The finest grouping of a parameter that holds, or None, and the relative change of the outputs."""

    name: str
    channel_dims: tuple[int, ...] | None
    change: float | None


def start_search(
    model: nn.Module, example_inputs: Any, candidates: list[str], seed: int
) -> tuple["Search", Observation]:
    """A search and its first observation, in float64 or the next narrower dtype in which the model runs."""
    for dtype in (torch.float64, torch.float32, None):
        try:
            search = Search(model, example_inputs, candidates, seed, dtype)
            first = search.observe(search.point, draw=0)
        except (RuntimeError, TypeError):  # no such kernel, a dtype in the model's code, not enough memory
            if dtype is None:
                raise
            continue
        search.check_repeatable(first.outputs)
        return search, first


class Search:
    """A model with perturbed parameters, and the measurements made of it."""

    def __init__(
        self, model: nn.Module, example_inputs: Any, candidates: list[str], seed: int, dtype: torch.dtype | None
    ) -> None:
        dtypes = [dtype] if dtype else {p.dtype for p in model.parameters() if p.is_floating_point()}
        unit = max(torch.finfo(dtype).eps for dtype in dtypes)
        self.boost = BOOST if torch.float16 not in dtypes else 3  # float16 ends at 2**16
        self.tolerance = unit**0.5 + EPS_SHARE / 2**self.boost
        self.largest_share = max(EPS_SHARE, 4 * unit)
        self.least_reach = min(unit**0.5, 1e-3)
        self.probe = Probe(model, example_inputs, dtype, eps=unit ** (2 / 3))
        self.kind, self.candidates, self.seed = type(model).__name__, candidates, seed
        self.generator = torch.Generator().manual_seed(seed)
        self.point = {name: self._perturbed(p) for name, p in model.named_parameters()}

    def _perturbed(self, parameter: Tensor) -> Tensor:
        """A random value near the parameter, of the parameter's scale or the usual one of a layer of its width."""
        value = self.probe.cast(parameter)
        if not parameter.requires_grad or not value.is_floating_point() or not value.numel():
            return value
        scale = value.float().square().mean().sqrt().item()
        if value.ndim < 2 or value.shape[0] == value.numel():
            noise = max(scale, 0.5) * (torch.rand(value.shape, generator=self.generator) - 0.5)
        else:
            noise = max(scale, value[0].numel() ** -0.5) * torch.randn(value.shape, generator=self.generator)
        return value + noise.to(value)

    def observe(self, point: Mapping[str, Tensor], draw: int) -> Observation:
        """Runs the model at `point`, with the random numbers of a draw."""
        outputs, gradients, drew = self.probe.run(point, self.seed + draw, self._combination)
        effects = {name: self._effect(name, gradients.pop(name, None), point[name]) for name in self.candidates}
        return Observation(outputs, effects, drew)

    def _effect(self, name: str, gradient: Tensor | None, weight: Tensor) -> Effect:
        if gradient is None:
            return Effect(0.0, {})
        effect = gradient.to(torch.promote_types(weight.dtype, torch.float32)) * weight
        reach = torch.linalg.vector_norm(effect).item()
        if not math.isfinite(reach):
            raise RuntimeError(self._unusable(f"has a gradient for {name} that is not finite"))
        # Groups without effect do not count: taps of a filter that see nothing but padding are no finer groups.
        groups = {dims: sums.count_nonzero().item() for dims, sums in group_sums(effect.square()).items()}
        finest = sorted(groups, key=lambda dims: (-groups[dims], dims != (0,), len(dims), dims))
        sums = {dims: torch.linalg.vector_norm(sums).item() for dims, sums in group_sums(effect).items()}
        several = [dims for dims in finest if math.prod(weight.shape[d] for d in dims) < weight.numel()]
        return Effect(reach, {dims: sums[dims] / reach if reach else 0.0 for dims in several})

    def _combination(self, outputs: list[Tensor]) -> Tensor:
        """A random combination of the outputs, each relative to its size."""
        terms = []
        for output in outputs:
            entries = output[output.isfinite()]
            if output.requires_grad and entries.any():
                weights = torch.randn(entries.shape, generator=self.generator, dtype=entries.dtype).to(entries.device)
                terms.append((weights * entries).sum() / torch.linalg.vector_norm(entries.detach()))
        if not terms:
            raise ValueError(f"No floating-point output of {self.kind} depends on its parameters: nothing to measure.")
        return torch.stack([term.to(terms[0]) for term in terms]).sum()

    def check_repeatable(self, outputs: list[Tensor]) -> None:
        """Raises `RuntimeError` unless a second run gives the same outputs."""
        change = deviation(self.probe.run(self.point, self.seed)[0], outputs)
        if not change <= self.tolerance:
            fault = f"gives outputs that differ by {change:.1e} for the same weights, inputs and random numbers"
            raise RuntimeError(self._unusable(fault))

    def _unusable(self, fault: str) -> str:
        instead = 'Select weights with geometry="structure" or a regular expression instead.'
        return f"{self.kind} {fault}, so its scale invariance cannot be measured. {instead}"

    def find_groupings(self, effects: Mapping[str, Effect], outputs: list[Tensor], draw: int) -> Iterator[Finding]:
        """Yields the finding for each parameter, in any order.

        Args:
            effects: Effects of the parameters to test.
            outputs, draw: Outputs and draw of the run that gave the effects.
        """
        candidates = {
            n: [d for d, share in e.shares.items() if share <= self.largest_share] for n, e in effects.items()
        }
        for name, effect in effects.items():
            if not candidates[name]:
                yield Finding(name, None, effect.reach * effect.shares[()])
        # A share above the tolerance is small by chance or has an epsilon in the code behind it. Such parameters fail
        # more often, and are rescaled apart so that they do not make the others' set fail.
        tried = [name for name in candidates if candidates[name]]
        doubtful = [name for name in tried if effects[name].shares[candidates[name][0]] > self.tolerance]
        for names in ([name for name in tried if name not in doubtful], doubtful):
            if names:
                yield from self._try_groupings(names, candidates, outputs, draw)

    def _try_groupings(
        self, names: list[str], candidates: Mapping[str, list[tuple[int, ...]]], outputs: list[Tensor], draw: int
    ) -> Iterator[Finding]:
        """Rescales a set of parameters at once by the first grouping of each.

        If the outputs change, the set is halved; a single parameter is tried with its next coarser grouping.
        """
        first, half = names[0], len(names) // 2
        change, unchanged = self._rescale({name: candidates[name][0] for name in names}, outputs, draw)
        if unchanged:
            yield from (Finding(name, candidates[name][0], change) for name in names)
        elif half:
            yield from self._try_groupings(names[:half], candidates, outputs, draw)
            yield from self._try_groupings(names[half:], candidates, outputs, draw)
        elif len(candidates[first]) > 1:
            yield from self._try_groupings(names, {first: candidates[first][1:]}, outputs, draw)
        else:
            yield Finding(first, None, change)

    def _rescale(
        self, channel_dims: Mapping[str, tuple[int, ...]], outputs: list[Tensor], draw: int
    ) -> tuple[float, bool]:
        """Rescales all groups at random: the change of the outputs, and whether at most an epsilon explains it."""
        large = self.point | {n: self._scaled(self.point[n], dims, self.boost) for n, dims in channel_dims.items()}
        at_large = self.probe.run(large, self.seed + draw)[0]
        change = deviation(at_large, outputs)
        if change <= self.tolerance or not change <= EPS_SHARE:
            return change, change <= self.tolerance
        larger = large | {n: self._scaled(large[n], dims, 1) for n, dims in channel_dims.items()}
        return change, deviation(self.probe.run(larger, self.seed + draw)[0], at_large) <= self.tolerance

    def _scaled(self, value: Tensor, channel_dims: tuple[int, ...], least: int) -> Tensor:
        """`value` times 2**least to 2**(least + 4), one factor a group."""
        shape = [size if d in channel_dims else 1 for d, size in enumerate(value.shape)]
        exponents = torch.randint(least, least + 5, shape, generator=self.generator)
        return value * (1 << exponents).to(value)

    def invariant_without_biases(self, names: list[str]) -> list[str]:
        """The parameters among `names` that would be scale-invariant if all biases were zero."""
        bare = {n: v.zero_() if n.endswith("bias") and v.ndim < 2 else v for n, v in self.point.items()}
        effects = self.observe(bare, draw=0).effects
        return [
            n
            for n in names
            if effects[n].reach > self.least_reach and min(effects[n].shares.values()) < self.largest_share**2
        ]
