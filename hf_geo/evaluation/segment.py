"""The straight line between two trained networks, walked as a line subspace whose control points are given."""

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from hf_geo.subspaces import SHAPES, Subspace, SubspaceConfig

from .merging import StateDict
from .norms import running_statistics
from .trust import TrustData
from .walk import RECALIBRATION_BATCHES, Walk, walk

LINE = SubspaceConfig("line", beta=0.0)


def walk_segment(
    model: nn.Module,
    first: StateDict,
    second: StateDict,
    positions: Sequence[float],
    loader: Iterable,
    recalibration: Iterable | None,
    *,
    recalibration_batches: int | None = RECALIBRATION_BATCHES,
    trust: TrustData | None = None,
    causal: bool = False,
) -> Walk:
    """Evaluates networks between two, which are themselves evaluated as they are at positions 0 and 1.

    Between them norm statistics are taken anew from `recalibration`; without it they are interpolated as the weights are,
    which ruins networks with batch norms.

    Args:
        model: A network of this architecture; a copy of it is walked. Its trainable parameters are interpolated: all of
            them, or those of an adapter.
        first, second: State dicts under the model's names.
        positions: Numbers from 0 to 1.
        loader, recalibration, recalibration_batches, trust, causal: As in `walk`.

    Raises:
        ValueError: The two are equal, do not fit the model, or differ in a buffer that is no norm statistic.
    """
    model = copy.deepcopy(model)
    model.load_state_dict(first, strict=False)
    statistics = running_statistics(model)
    trained = {name for name, parameter in model.named_parameters(remove_duplicate=False) if parameter.requires_grad}
    for name in first.keys() - trained - statistics.keys():
        if not torch.equal(first[name], second[name]):
            raise ValueError(
                f"The two networks differ in {name!r}, which is no parameter: no line leads from one to the other."
            )
    subspace = Subspace.attach(model, LINE, points={1: second})
    own = [{name: state[name] for name in statistics if name in state} for state in (first, second)]
    return walk(
        subspace,
        [SHAPES["line"].coefficients(torch.tensor(position, dtype=torch.float64)) for position in positions],
        loader,
        recalibration if statistics else None,
        recalibration_batches=recalibration_batches,
        point_statistics=own if own[0] else None,
        trust=trust,
        causal=causal,
    )
