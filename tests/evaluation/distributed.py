"""A network with norm layers, and what each of two processes does with it for test_norms.py."""

from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

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
    return Network(), make_data((8, 8, 5, 4))


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=2)
    model, data = setting()
    samples = recalibrate_norms(model, data[:1] if rank else data[1:])
    torch.save((samples, model.state_dict()), folder / f"{rank}.pt")
    dist.destroy_process_group()
