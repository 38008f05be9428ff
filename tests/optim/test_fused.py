"""The fused kernels take the steps of the reference, whatever the tensors, in a number of launches that is fixed."""

import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from inspect import signature
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hf_geo.optim import AdamSRT, Fromage, create_optimizer
from hf_geo.optim.fromage import move_at_once
from hf_geo.optim.kernels import tables
from tests.cases import CASES, PATHS, Case, assert_same, drive, each_path, make_params
from tests.optim import test_contract, test_golden
from tests.paths import REPOSITORY

pytest.importorskip("triton")

# Rows shorter and longer than a block, tensors of several pieces, scalars, and two tensors without elements.
SHAPES = ((4, 3, 2, 2), (5, 19), (6, 300), (2, 5000), (2, 1200), (7,), (4100,), (), (0,))
TILES = (70, 101)  # a matrix of several
# The other rows take a path of one of these.
ROWS = [pytest.param(case, marks=() if case in PATHS else pytest.mark.slow, id=case.id) for case in CASES]


def fused(case: Case) -> Case:
    return replace(case, id=f"{case.id}_fused", settings={**case.settings, "fused": True})


def as_written(case: Case) -> Case:
    return replace(case, settings={**case.settings, "fused": False})


def shapes_for(case: Case) -> tuple[tuple[int, ...], ...]:
    """`omega` wants weights of fewer rows than columns."""
    return (*(s for s in SHAPES if s[:1] < s[1:2]), TILES) if "omega" in case.geometry else SHAPES


def assert_state_same(ours: torch.optim.Optimizer, theirs: torch.optim.Optimizer, tolerance: float) -> None:
    for state, expected in zip(ours.state.values(), theirs.state.values(), strict=True):
        assert state.keys() == expected.keys()
        assert_same(list(state.values()), list(expected.values()), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", ROWS)
def test_fused_steps_are_the_reference_s(case: Case):
    params, expected = make_params(shapes_for(case)), make_params(shapes_for(case))
    optimizer, reference = fused(case).make(params), as_written(case).make(expected)
    drive(case, optimizer, params, 2)
    drive(case, reference, expected, 2)
    assert_same(params, expected, rtol=1e-11, atol=1e-11)
    assert_state_same(optimizer, reference, 1e-10)


@each_path
def test_fused_arithmetic_is_that_of_float32(case: Case):
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        params, expected = make_params(((5, 19),), dtype=dtype), make_params(((5, 19),), dtype=dtype)
        drive(case, fused(case).make(params), params, 2)
        drive(case, as_written(case).make(expected), expected, 2)
        # Half precision may be rounded the other way, and Triton's interpreter cuts digits off where a GPU rounds.
        tolerance = 4 * torch.finfo(dtype).eps
        torch.testing.assert_close(params, expected, rtol=tolerance, atol=tolerance * expected[0].abs().max().item())


@pytest.mark.slow
@pytest.mark.parametrize("name", test_golden.CASES)
def test_fused_steps_agree_with_the_authors_code(name: str):
    absolute, _ = test_golden.largest_error(name, torch.float64, fused=True)
    assert absolute < 1e-10


LAWS = [
    law for name, law in vars(test_contract).items() if name.startswith("test_") and "case" in signature(law).parameters
]


@pytest.mark.slow
@pytest.mark.parametrize("case", [fused(case) for case in PATHS], ids=str)
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_fused_steps_keep_the_contract(law: Callable[..., None], case: Case):
    rows = next(mark.args[1] for mark in law.pytestmark if mark.args[0] == "case")
    if case.id.removesuffix("_fused") not in [row.id for row in rows]:
        pytest.skip("the law is not for this row")
    law(case, *([()] if "shape" in signature(law).parameters else []))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("name", ["adamsrt_channel", "sgdg_orthogonal"])
def test_the_table_follows_tensors_that_are_exchanged(name: str, layout: str):
    """New gradients at every step, weights put elsewhere, and state loaded in another memory layout."""
    case = next(c for c in CASES if c.id == name)
    shapes = ((4, 3, 2, 2), (4, 5))
    params, expected = make_params(shapes), make_params(shapes)
    if layout == "channels_last":
        params[0] = nn.Parameter(params[0].detach().to(memory_format=torch.channels_last))
    optimizer, reference = fused(case).make(params), as_written(case).make(expected)
    drive(case, optimizer, params, 2)
    drive(case, reference, expected, 2)
    with torch.no_grad():
        params[1].data = params[1].detach().clone()
    optimizer.load_state_dict(deepcopy(reference.state_dict()))
    drive(case, optimizer, params, 2, start=2)
    drive(case, reference, expected, 2, start=2)
    assert_same(params, expected, rtol=1e-11, atol=1e-11)
    optimizer.state.clear()
    reference.state.clear()
    drive(case, optimizer, params, 1, start=4)
    drive(case, reference, expected, 1, start=4)
    assert_same(params, expected, rtol=1e-11, atol=1e-11)


class Launches(TorchDispatchMode):
    """Counts torch's operations beside the kernels, which are not run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.count = 0
        monkeypatch.setattr(tables.Table, "_launch", self.launch)

    def launch(self, name: str, count: int, *arguments, **constants) -> None:
        self.count += bool(count)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        is_free = any(part in str(func) for part in ("empty", "select", "detach", "view", "alias", "profiler"))
        self.count += not is_free
        return func(*args, **(kwargs or {}))


def count_launches(optimizer: torch.optim.Optimizer, case: Case, monkeypatch: pytest.MonkeyPatch) -> int:
    for _ in range(2):  # tables and state are made at the first step
        with monkeypatch.context() as patch, Launches(patch) as launches:
            case.step(optimizer, torch.tensor(2.0, dtype=torch.float64))
    return launches.count


@each_path
@pytest.mark.parametrize("many", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_launches_do_not_depend_on_the_number_of_tensors(case: Case, many: int, monkeypatch: pytest.MonkeyPatch):
    found = set()
    for count in (20, many):
        params = [nn.Parameter(p) for shape in ((4, 9), (5,)) for p in torch.randn(count // 2, *shape).double()]
        for p in params:
            p.grad = torch.ones_like(p)
        with monkeypatch.context() as patch, Launches(patch):  # ALI-G projects at once
            optimizer = fused(case).make(params)
        found.add(count_launches(optimizer, case, monkeypatch))
    bounded = case.projects or "p_bound" in case.settings or "omega" in case.geometry
    # With omega, addresses need not be laid out anew where the allocator gives the same memory as in the step before.
    assert len(found) == 1 or "omega" in case.geometry
    assert max(found) <= (24 if bounded else 12)


def test_without_triton_fromage_takes_as_many_operations_for_many_tensors(monkeypatch: pytest.MonkeyPatch):
    case, found = next(c for c in CASES if c.id == "fromage_bound"), set()
    for count in (20, 200):
        params = [nn.Parameter(torch.ones(4, 9, device="meta")) for _ in range(count)]
        for p in params:
            p.grad = torch.ones_like(p)
        found.add(count_launches(as_written(case).make(params), case, monkeypatch))
    assert len(found) == 1

    params, expected = make_params(((4, 9), (5,))), make_params(((4, 9), (5,)))
    grads, coefficients = make_params(((4, 9), (5,)), seed=1), torch.tensor([0.3, 0.7]).double()
    with torch.no_grad():
        move_at_once(params, grads, coefficients, keep=0.9)
        for e, g, c in zip(expected, grads, coefficients, strict=True):
            e.copy_(0.9 * e - c * g)
    assert_same(params, expected, rtol=1e-14)


def test_launches_of_a_network(monkeypatch: pytest.MonkeyPatch):
    """Rows of every width, and three groups."""
    model = nn.ModuleList(nn.Linear(n, 3) for n in (20, 300, 1500, 3000, 5000))
    for name in ("fromage", "adamsrt", "adams", "sgdmrt", "sgdg", "adamg"):
        invariant = {f"{i}.weight": (0,) for i in range(4)}
        decay = {} if name == "fromage" else {"weight_decay": 0.1}
        optimizer = create_optimizer(name, model, invariant=invariant, fused=True, **decay)
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        launches = count_launches(optimizer, next(c for c in CASES if c.name == name), monkeypatch)
        assert launches <= (24 if name in ("sgdg", "adamg") else 12), name  # with omega, by default


@pytest.mark.slow
def test_kernels_compile_for_a_gpu(tmp_path: Path):
    """The interpreter takes what the compiler does not."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "tests.optim.compiled_kernels"]
    run = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True)
    assert run.stdout == "compiled\n", run.stderr


def test_what_the_kernels_cannot_take_is_refused_or_left_to_the_reference():
    across = nn.Parameter(torch.randn(6, 4).T)
    across.grad, kept = torch.ones_like(across), across.detach().clone()
    with pytest.raises(
        ValueError, match=r"fused=True was given, but a parameter of shape \(4, 6\) .*Leave fused at None"
    ):
        Fromage([across], fused=True)
    with pytest.raises(ValueError, match="one after the other"):
        weight = nn.Parameter(torch.randn(4, 6))
        weight.grad = torch.ones_like(weight)
        AdamSRT([weight], channel_dims=[1], fused=True).step()
    with pytest.raises(TypeError, match="fused has to be True or False"):
        Fromage([across], fused=1)
    optimizer = Fromage([across])
    optimizer.step()
    assert not torch.equal(across, kept)
    assert optimizer.param_groups[0]["fused"] is None


def test_the_table_follows_a_model_of_another_dtype_and_state_that_is_reset():
    case = next(c for c in CASES if c.id == "sgdmrt_channel")
    shapes = ((5, 19), (6, 7))
    params, expected = make_params(shapes), make_params(shapes)
    optimizer, reference = fused(case).make(params), as_written(case).make(expected)
    for number, change in enumerate(("none", "reset", "dtype")):
        for own, tensors in ((optimizer, params), (reference, expected)):
            if change == "reset":
                del own.state[tensors[1]]
            if change == "dtype":
                for p in tensors:
                    p.data, p.grad = p.data.float(), None
            drive(case, own, tensors, 1, start=number)
    assert_same(params, expected, rtol=1e-5, atol=1e-6)


def test_tables_are_made_once_for_many_groups(monkeypatch: pytest.MonkeyPatch):
    params = make_params(((5, 19), (6,)) * 40)
    optimizer = AdamSRT([{"params": [p], "channel_wise": p.ndim > 1} for p in params], fused=True)
    made, make = [], tables.Table.__init__
    monkeypatch.setattr(tables.Table, "__init__", lambda self, *args: (made.append(1), make(self, *args))[1])
    case = next(c for c in CASES if c.id == "adamsrt_channel")
    for _ in range(3):
        with monkeypatch.context() as patch, Launches(patch):
            drive(case, optimizer, params, 1)
    assert len(made) == len(params)


def test_gradients_are_freed_between_steps():
    params, case = make_params(((4, 9), (5,))), next(c for c in CASES if c.id == "adamsrt_channel")
    optimizer = fused(case).make(params)
    drive(case, optimizer, params, 1)
    gradients = [weakref.ref(p.grad) for p in params]
    optimizer.zero_grad()
    assert [gradient() for gradient in gradients] == [None, None]


def test_fused_can_be_set_for_a_group_alone():
    shapes = ((5, 19), (6, 7))
    params, expected = make_params(shapes), make_params(shapes)
    groups = [{"params": params[:1], "fused": True}, {"params": params[1:]}]
    case = next(c for c in CASES if c.id == "fromage")
    drive(case, Fromage(groups), params, 2)
    drive(case, Fromage(expected), expected, 2)
    assert_same(params, expected, rtol=1e-12)
