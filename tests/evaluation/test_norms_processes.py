"""Norm statistics of several processes are those of all their data."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from hf_geo.evaluation import recalibrate_norms
from tests.evaluation.test_norms import Network
from tests.processes import in_two


def setting() -> tuple[Network, list[Tensor]]:
    torch.manual_seed(0)
    return Network(), [torch.randn(n, 4) * 2 + 1 for n in (256, 256, 64, 1)]


def recalibrated(rank: int) -> list[tuple[int, dict[str, Tensor]]]:
    outcomes = []
    for wrap in (lambda model: model, DistributedDataParallel):
        model, data = setting()
        outcomes.append((recalibrate_norms(wrap(model), data[:1] if rank else data[1:]), model.state_dict()))
    return outcomes


def test_processes_with_uneven_data_have_the_statistics_of_all_of_it(tmp_path: Path) -> None:
    by_rank = in_two(recalibrated, tmp_path)
    model, data = setting()
    recalibrate_norms(model, data)
    for (samples, first), (others, second) in zip(*by_rank, strict=True):  # plain, and wrapped
        assert samples == others == len(torch.cat(data))
        assert all(torch.equal(value, second[name]) for name, value in first.items())
        for name, value in model.state_dict().items():
            # What a later norm sees is normalized by what its own process has seen.
            tolerance = 0.1 if name.startswith("bn2.running") else 1e-5
            torch.testing.assert_close(first[name], value, rtol=tolerance, atol=tolerance)
