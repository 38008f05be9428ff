"""What each of four processes does for test_sharding.py: the steps of every row on shards, and their distance to the truth."""

import datetime
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.distributed.tensor.placement_types import Placement, _StridedShard

from tests.cases import CASES, PATHS, Case, make_gradient, make_loss, make_params

# One row a path, and the one whose second moment is one number a tensor.
ROWS = (*PATHS, *(case for case in CASES if case.id == "adamsrt_layer"))
# The fused kernels, for norms of whole tensors and for rows.
FUSED_ROWS = tuple(
    replace(case, id=f"{case.id}_fused", settings={**case.settings, "fused": True})
    for case in ROWS
    if find_spec("triton") and case.id in ("alig_ball", "adamsrt_layer")
)
# Not saved is a row whose state is of the same kind as that of another row of its method.
ALIKE = ("alig", "alig_adjusted", "alig_ball", "adamsrt_plain", "sgdmrt_plain", "sgdg_plain")
SAVED = tuple(case for case in ROWS if case.shardable and case.id not in ALIKE)
RANKS = 4
STEPS = 6
HALF = STEPS // 2
# Five, three and seven rows split unevenly; of one row all processes but the first hold nothing. Tensor parallelism
# leaves the last one alone, so that there are parameters sharded over different groups.
WRAPPED = ((5, 3, 2, 2), (3, 16), (1, 6), (7,), (3, 4))
UNWRAPPED = ((4, 9), (3,), ())


class Mixed(nn.Module):
    """Parameters to be sharded, and others that every process holds."""

    def __init__(self) -> None:
        super().__init__()
        params = make_params((*WRAPPED, *UNWRAPPED))
        self.wrapped = nn.ParameterList(params[: len(WRAPPED)])
        self.unwrapped = nn.ParameterList(params[len(WRAPPED) :])


class Meshes(NamedTuple):
    """All processes in a line, and in two rows of two."""

    line: DeviceMesh
    grid: DeviceMesh


def parallelize(model: Mixed, meshes: Meshes, weights: Placement, vectors: Placement) -> None:
    """Tensor parallelism within a row of the grid, for all wrapped parameters but the last."""
    for index, param in enumerate(list(model.wrapped)[:-1]):
        placement = weights if param.ndim > 1 else vectors
        model.wrapped[index] = nn.Parameter(distribute_tensor(param.detach(), meshes.grid["inner"], [placement]))


def fsdp2(model: Mixed, meshes: Meshes) -> None:
    fully_shard(model.wrapped, mesh=meshes.line)


def hsdp(model: Mixed, meshes: Meshes) -> None:
    fully_shard(model.wrapped, mesh=meshes.grid)


def rowwise(model: Mixed, meshes: Meshes) -> None:
    """As `RowwiseParallel` does: weights are cut along the second axis, through their rows, and vectors not at all."""
    parallelize(model, meshes, Shard(1), Replicate())


def fsdp2_of_rowwise(model: Mixed, meshes: Meshes) -> None:
    rowwise(model, meshes)
    fully_shard(model.wrapped, mesh=meshes.grid["outer"])


def fsdp2_of_columnwise(model: Mixed, meshes: Meshes) -> None:
    """As `ColwiseParallel` does, all are cut along the first axis, which FSDP2 cuts again."""
    parallelize(model, meshes, Shard(0), Shard(0))
    fully_shard(model.wrapped, mesh=meshes.grid["outer"])
    assert all(isinstance(param.placements[0], _StridedShard) for param in list(model.wrapped)[:-1])


def uncut(model: Mixed, meshes: Meshes) -> None:
    """Sharded over an axis of one process."""
    mesh = init_device_mesh("cpu", (RANKS, 1))
    for index, param in enumerate(list(model.wrapped)):
        model.wrapped[index] = nn.Parameter(distribute_tensor(param.detach(), mesh, [Replicate(), Shard(0)]))


Layout = Callable[[Mixed, Meshes], None]
# Each resumes from the checkpoint of the one before, and the first from that of a single process.
LAYOUTS: dict[str, Layout] = {
    layout.__name__: layout for layout in (fsdp2, hsdp, fsdp2_of_columnwise, fsdp2_of_rowwise)
}


def steps(case: Case, optimizer: torch.optim.Optimizer, model: nn.Module, start: int, stop: int) -> None:
    """Steps with gradients sharded as the parameters are, but once held by every process, and once partial sums."""
    for number in range(start, stop):
        for index, param in enumerate(model.parameters()):
            whole = make_gradient(torch.empty(param.shape, dtype=param.dtype), index, number)
            if isinstance(param, DTensor):
                mesh = param.device_mesh
                if number == HALF + 1:
                    whole = DTensor.from_local(whole / mesh.size(), mesh, [Partial()] * mesh.ndim, run_check=False)
                else:
                    placements = [Replicate()] * mesh.ndim if number == 1 else param.placements
                    whole = distribute_tensor(whole, mesh, placements, src_data_rank=None)
            param.grad = whole
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


def sharded(case: Case, layout: Layout, meshes: Meshes) -> tuple[Mixed, torch.optim.Optimizer]:
    model = Mixed()
    layout(model, meshes)
    return model, case.make(list(model.parameters()))


def train_sharded(case: Case, layout: Layout, meshes: Meshes, expected: nn.Module, target: Path) -> float:
    """Saves a checkpoint halfway."""
    model, optimizer = sharded(case, layout, meshes)
    steps(case, optimizer, model, 0, HALF)
    if case in SAVED:
        save(case, model, optimizer, target, alone=False)
    steps(case, optimizer, model, HALF, STEPS)
    return distance(model, expected)


def resume_sharded(case: Case, layout: Layout, meshes: Meshes, expected: nn.Module, source: Path) -> float:
    model, optimizer = sharded(case, layout, meshes)
    load(case, model, optimizer, source, alone=False)
    steps(case, optimizer, model, HALF, STEPS)
    return distance(model, expected)


def real_training(case: Case, meshes: Meshes) -> float:
    """Gradients from backward: each row of the grid has half of the batch, and its processes are tensor-parallel."""
    outer, inner = meshes.grid["outer"], meshes.grid["inner"]
    inputs = make_params([(4, 7)])[0].detach()
    mine = inputs.chunk(outer.size())[outer.get_local_rank()]
    models = []
    for shard in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3)).double()
        if shard:
            parallelize_module(model, inner, {"0": ColwiseParallel(), "2": RowwiseParallel()})
            fully_shard(model[0], mesh=outer)
            fully_shard(model, mesh=outer)
        optimizer = case.make(list(model.parameters()))
        for _ in range(3):
            optimizer.zero_grad()
            loss = (model(mine if shard else inputs) - 1).square().mean()
            loss.backward()
            loss = loss.detach()
            if shard:
                dist.all_reduce(loss, group=outer.get_group())
                loss /= outer.size()
            case.step(optimizer, loss)
        models.append(model)
    return distance(*models)


class Unknown(Placement):
    """A placement of a kind that torch may have one day."""

    __eq__, __hash__ = object.__eq__, object.__hash__

    def __repr__(self) -> str:
        return "Unknown()"


def unsupported(case: Case, meshes: Meshes, placement: Placement) -> str:
    """The text of the refusal to step with such a parameter, behind "moved" if an ordinary one before it has moved."""
    whole, value = make_params([(5, 19), (5, 19)])
    before, size = whole.detach().clone(), {"shape": value.shape, "stride": value.stride()}
    odd, odd.grad = (
        DTensor.from_local(value.detach(), meshes.line, [placement], run_check=False, **size) for _ in range(2)
    )
    whole.grad = torch.ones_like(whole)
    text = outcome(lambda: case.step(case.make([whole, odd])))
    return text if torch.equal(whole, before) else f"moved: {text}"


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
    grid = init_device_mesh("cpu", (2, RANKS // 2), mesh_dim_names=("outer", "inner"))
    meshes = Meshes(init_device_mesh("cpu", (RANKS,)), grid)
    outcomes: dict[str, dict[str, Any]] = {}
    for case in ROWS:
        expected = trained(case)[0]
        found = outcomes[case.id] = {"training": outcome(real_training, case, meshes)}
        source = folder / "one"
        for name, layout in LAYOUTS.items():
            target = folder / name
            found[name] = outcome(train_sharded, case, layout, meshes, expected, target)
            if case in SAVED:
                found[f"resumed {name}"] = outcome(resume_sharded, case, layout, meshes, expected, source)
            source = target
        for placement in (Partial(), Unknown()):
            found[repr(placement)] = outcome(unsupported, case, meshes, placement)
        if not case.shardable:
            found["uncut"] = outcome(train_sharded, case, uncut, meshes, expected, folder / "uncut")
    for case in FUSED_ROWS:
        outcomes[case.id] = {"training": outcome(real_training, case, meshes)}
    outcomes["flattened"] = {str(keep): outcome(flattened, PATHS[0], keep) for keep in (False, True)}
    torch.save(outcomes, folder / f"outcomes-{rank}.pt")
    dist.destroy_process_group()
