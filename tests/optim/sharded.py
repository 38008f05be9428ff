"""What each of two processes does for test_sharding.py: the steps of every row on shards, and their distance to the truth."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from tests.cases import PATHS, Case, make_gradient, make_loss, make_params

RANKS = 2
STEPS = 10
HALF = STEPS // 2
# Five, three and seven rows split unevenly; of one row the second process holds nothing.
WRAPPED = ((5, 3, 2, 2), (3, 16), (1, 6), (7,))
UNWRAPPED = ((4, 9), (3,), ())


class Mixed(nn.Module):
    """Parameters to be sharded, and others that every process holds."""

    def __init__(self) -> None:
        super().__init__()
        params = make_params((*WRAPPED, *UNWRAPPED))
        self.wrapped = nn.ParameterList(params[: len(WRAPPED)])
        self.unwrapped = nn.ParameterList(params[len(WRAPPED) :])


def by_rows(model: Mixed, mesh: DeviceMesh) -> None:
    fully_shard(model.wrapped, mesh=mesh)


def by_columns(model: Mixed, mesh: DeviceMesh) -> None:
    """Each row is spread over the processes; vectors are distributed tensors that every process holds."""
    for index, param in enumerate(list(model.wrapped)):
        placement = Shard(1) if param.ndim > 1 else Replicate()
        model.wrapped[index] = nn.Parameter(distribute_tensor(param.detach(), mesh, [placement]))


LAYOUTS: dict[str, Callable[[Mixed, DeviceMesh], None]] = {"rows": by_rows, "columns": by_columns}


def steps(case: Case, optimizer: torch.optim.Optimizer, model: nn.Module, start: int, stop: int) -> None:
    """Steps with gradients sharded as the parameters are, or (every third) held by every process."""
    for number in range(start, stop):
        for index, param in enumerate(model.parameters()):
            if isinstance(param, DTensor):
                whole = make_gradient(torch.empty(param.shape, dtype=param.dtype), index, number)
                placements = param.placements if number % 3 else [Replicate()]
                param.grad = distribute_tensor(whole, param.device_mesh, placements, src_data_rank=None)
            else:
                param.grad = make_gradient(param, index, number)
        case.step(optimizer, make_loss(number))


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor().detach() if isinstance(tensor, DTensor) else tensor.detach()


def trained(case: Case, stop: int = STEPS) -> tuple[Mixed, torch.optim.Optimizer]:
    """One process's run."""
    model = Mixed()
    optimizer = case.make(list(model.parameters()))
    steps(case, optimizer, model, 0, stop)
    return model, optimizer


def distance(model: nn.Module, expected: nn.Module) -> float:
    """The largest difference of two models' parameters; infinite when one is not finite."""
    pairs = zip(model.parameters(), expected.parameters(), strict=True)
    worst = max((whole(a) - whole(b)).abs().max().item() for a, b in pairs)
    return worst if worst == worst else float("inf")


def save(case: Case, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path, alone: bool) -> None:
    weights, state = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": state}, checkpoint_id=str(folder / case.id), no_dist=alone)


def load(case: Case, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path, alone: bool) -> None:
    weights, state = get_state_dict(model, optimizer)
    dcp.load({"model": weights, "optimizer": state}, checkpoint_id=str(folder / case.id), no_dist=alone)
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state)


def sharded(case: Case, layout: str, mesh: DeviceMesh) -> tuple[Mixed, torch.optim.Optimizer]:
    model = Mixed()
    LAYOUTS[layout](model, mesh)
    return model, case.make(list(model.parameters()))


def train_sharded(case: Case, layout: str, mesh: DeviceMesh, folder: Path) -> float:
    """Saves a checkpoint halfway."""
    model, optimizer = sharded(case, layout, mesh)
    steps(case, optimizer, model, 0, HALF)
    save(case, model, optimizer, folder, alone=False)
    steps(case, optimizer, model, HALF, STEPS)
    return distance(model, trained(case)[0])


def resume_sharded(case: Case, layout: str, mesh: DeviceMesh, folder: Path) -> float:
    model, optimizer = sharded(case, layout, mesh)
    load(case, model, optimizer, folder, alone=False)
    steps(case, optimizer, model, HALF, STEPS)
    return distance(model, trained(case)[0])


def real_training(case: Case, mesh: DeviceMesh) -> float:
    """Gradients from backward, each process with its half of the batch, against one process with all of it."""
    inputs = make_params([(4, 7)])[0].detach()
    half = inputs.shape[0] // RANKS
    mine = inputs[dist.get_rank() * half :][:half]
    models = []
    for shard in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3)).double()
        if shard:
            fully_shard(model[0], mesh=mesh)
            fully_shard(model, mesh=mesh)
        optimizer = case.make(list(model.parameters()))
        for _ in range(5):
            optimizer.zero_grad()
            loss = (model(mine if shard else inputs) - 1).square().mean()
            loss.backward()
            loss = loss.detach()
            if shard:
                dist.all_reduce(loss)
                loss /= RANKS
            case.step(optimizer, loss)
        models.append(model)
    return distance(*models)


def flattened(case: Case, keep_originals: bool) -> None:
    model = FullyShardedDataParallel(
        nn.Linear(6, 4), use_orig_params=keep_originals, device_id=torch.device("cpu"), sync_module_states=False
    )
    params = [param for param in model.parameters() if param.numel()]
    optimizer = case.method.cls(params, **case.settings)
    for param in params:
        param.grad = torch.ones_like(param)
    case.step(optimizer)


def outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns, or the text of its error, which the tests compare with what they expect."""
    try:
        return function(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder / 'rendezvous'}"
    patience = datetime.timedelta(seconds=90)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=RANKS, timeout=patience)
    mesh = init_device_mesh("cpu", (RANKS,))
    outcomes: dict[str, dict[str, Any]] = {}
    for case in PATHS:
        found = outcomes[case.id] = {"training": outcome(real_training, case, mesh)}
        for layout in LAYOUTS:
            found[layout] = outcome(train_sharded, case, layout, mesh, folder / f"two-{layout}")
            if case.shardable:
                found[f"resumed {layout}"] = outcome(resume_sharded, case, layout, mesh, folder / "one")
    outcomes["flattened"] = {str(keep): outcome(flattened, PATHS[0], keep) for keep in (False, True)}
    torch.save(outcomes, folder / f"outcomes-{rank}.pt")
    dist.destroy_process_group()
