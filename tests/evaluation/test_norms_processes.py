"""Norm statistics of several processes are those of all their data."""

import datetime
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from hf_geo.evaluation import recalibrate_norms
from tests.evaluation.test_norms import Network


def setting() -> tuple[Network, list[Tensor]]:
    torch.manual_seed(0)
    return Network(), [torch.randn(n, 4) * 2 + 1 for n in (256, 256, 64, 1)]


def recalibrate_in_process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    patience = datetime.timedelta(seconds=60)
    store = f"file://{folder / 'rendezvous'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=patience)
    outcomes = []
    for wrap in (lambda model: model, DistributedDataParallel):
        model, data = setting()
        outcomes.append((recalibrate_norms(wrap(model), data[:1] if rank else data[1:]), model.state_dict()))
    torch.save(outcomes, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_processes_with_uneven_data_have_the_statistics_of_all_of_it(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(recalibrate_in_process, (tmp_path,), nprocs=2, start_method="fork")
    model, data = setting()
    recalibrate_norms(model, data)
    by_rank = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for (samples, first), (others, second) in zip(*by_rank, strict=True):  # plain, and wrapped
        assert samples == others == len(torch.cat(data))
        assert all(torch.equal(value, second[name]) for name, value in first.items())
        for name, value in model.state_dict().items():
            # What a later norm sees is normalized by what its own process has seen.
            tolerance = 0.1 if name.startswith("bn2.running") else 1e-5
            torch.testing.assert_close(first[name], value, rtol=tolerance, atol=tolerance)
