"""What each of two processes does for test_distributed.py: training steps, and their distance to one process's."""

import datetime
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from hf_geo.subspaces import Subspace, SubspaceConfig, draw_generator
from hf_geo.subspaces.regularizer import compare_points
from tests.subspaces.cases import GoldenNetwork, TiedLanguageModel

RANKS = 2
STEPS = 4
BETA = 5.0
POSITION = [0.2, 0.3, 0.5]


class Rotation(nn.Module):
    """A complex weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 5, dtype=torch.complex128))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + 0j).matmul(self.weight).real


class Normed(nn.Sequential):
    """Rows that do not divide by two, a norm layer, and a complex weight (FSDP2 wants one dtype in a group)."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(7, 5), nn.LayerNorm(5), nn.Tanh(), Rotation(), nn.Linear(5, 3))


PARTS = {"normed": ("0", "3")}  # groups of their own beside the root's
NETWORKS = {"normed": Normed, "tied": TiedLanguageModel, "convolutions": GoldenNetwork}


def inputs(network: str, rank: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rank)
    if network == "tied":
        return torch.randint(11, (4, 3), generator=generator)
    shape = (4, 3, 8, 8) if network == "convolutions" else (4, 7)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def attached(network: str) -> Subspace:
    torch.manual_seed(0)
    return Subspace.attach(
        NETWORKS[network]().double(), SubspaceConfig("simplex", 3, beta=BETA), model_init=NETWORKS[network]
    )


def optimizer(subspace: Subspace) -> torch.optim.Optimizer:
    return torch.optim.SGD(subspace.model.parameters(), lr=0.3, momentum=0.9)


def alone(network: str) -> Subspace:
    """One process that does both ranks' work: the mean of their losses, each at its own position."""
    subspace = attached(network)
    step_of = optimizer(subspace)
    for step in range(STEPS):
        step_of.zero_grad()
        loss = BETA * subspace.regularizer(generator=draw_generator(0, step))
        for rank in range(RANKS):
            subspace.sample(draw_generator(0, step, rank))
            loss = loss + subspace.model(inputs(network, rank)).square().mean() / RANKS
        loss.backward()
        step_of.step()
    return subspace


def together(network: str, subspace: Subspace, forward: nn.Module) -> list[list[float]]:
    """This rank's share of the same steps; returns the coefficients it ran at."""
    rank = dist.get_rank()
    step_of, coefficients = optimizer(subspace), []
    for step in range(STEPS):
        step_of.zero_grad()
        subspace.sample(draw_generator(0, step, rank))
        loss = forward(inputs(network, rank)).square().mean()
        loss = loss + BETA * subspace.regularizer(generator=draw_generator(0, step))
        loss.backward()
        step_of.step()
        coefficients.append(subspace.coefficients.tolist())
    return coefficients


def distance(subspace: Subspace, expected: Subspace) -> float:
    """The largest difference between control points, and between weights at one position."""
    found, wanted = (
        [*(s.point_state_dict(i) for i in range(3)), s.folded_state_dict(POSITION)] for s in (subspace, expected)
    )
    parameters = [name for name in wanted[0] if "running" not in name and "tracked" not in name]
    return max((a[n] - b[n]).abs().max().item() for a, b in zip(found, wanted, strict=True) for n in parameters)


def sharded(network: str, parts: Sequence[str], folder: Path) -> dict[str, object]:
    mesh = init_device_mesh("cpu", (RANKS,))
    subspace = attached(network)
    for part in parts:
        fully_shard(subspace.model.get_submodule(part), mesh=mesh)
    fully_shard(subspace.model, mesh=mesh)
    coefficients = together(network, subspace, subspace.model)
    subspace.save(folder / f"saved-{network}-{dist.get_rank()}")
    one = alone(network)
    compared = [compare_points([each.point_weights(index) for index in range(3)]) for each in (subspace, one)]
    return {"distance": distance(subspace, one), "coefficients": coefficients, "compared": compared}


def replicated(network: str) -> dict[str, object]:
    subspace = attached(network)
    coefficients = together(network, subspace, DistributedDataParallel(subspace.model))
    return {"distance": distance(subspace, alone(network)), "coefficients": coefficients}


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder / 'rendezvous'}"
    patience = datetime.timedelta(seconds=90)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=RANKS, timeout=patience)
    outcomes = {
        "sharded": {name: sharded(name, PARTS.get(name, ()), folder) for name in ("normed", "tied")},
        # As accelerate wraps a language model: what a tie joins is in groups that are gathered at different times.
        "sharded apart": {"tied": sharded("tied", ("embedding", "decoder"), folder)},
    }
    outcomes["replicated"] = {name: replicated(name) for name in ("tied", "convolutions")}
    torch.save(outcomes, folder / f"outcomes-{rank}.pt")
    dist.destroy_process_group()
