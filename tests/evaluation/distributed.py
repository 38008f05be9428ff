"""A network with norm layers, and what each of two processes does with it for test_norms.py."""

import datetime
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hf_geo.evaluation import recalibrate_norms


class Network(nn.Module):
    """Two norm layers, with dropout before the second."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(4, 3)
        self.bn2 = nn.BatchNorm1d(3, momentum=None)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.bn2(self.linear(self.dropout(F.relu(self.bn(pixel_values)))))


def make_data(sizes: tuple[int, ...] = (8, 8, 5)) -> list[Tensor]:
    return [torch.randn(n, 4) * (i + 1) + i for i, n in enumerate(sizes)]


def setting() -> tuple[Network, list[Tensor]]:
    torch.manual_seed(0)
    return Network(), [torch.randn(n, 4) * 2 + 1 for n in (256, 256, 64, 1)]


def work(rank: int, folder: Path) -> None:
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
