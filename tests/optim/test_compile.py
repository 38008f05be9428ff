"""`torch.compile(optimizer.step)`: the same numbers, graphs that do not multiply, no recompilation for a new learning rate."""

from collections.abc import Callable

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters

from tests.cases import CASES, SHAPES, Case, assert_same, each_case, make_gradient, make_loss, make_params

# One row for every function that a step compiles.
COMPILED = [
    "fromage_bound",
    "alig_ball",
    "adamsrt_plain",
    "adamsrt_layer",
    "sgdmrt_channel",
    "sgdg_orthogonal",
    "adamg_clipped",
]
STEPS = 3
# The profiler range around every optimizer's step means nothing inside a graph, and dynamo says so.
pytestmark = pytest.mark.filterwarnings("ignore:Profiler record function")


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def run(case: Case, shapes, wrap: Callable[[Callable], Callable]) -> tuple[list[torch.Tensor], list[int]]:
    """The parameters after a few steps under a falling tensor learning rate, and the graphs compiled after each step."""
    params = make_params(shapes)
    optimizer = case.make(params)
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"], dtype=torch.float64) if case.bounded else group["lr"]
    step = wrap(optimizer.step)
    graphs = []
    for number in range(STEPS):
        for index, param in enumerate(params):
            param.grad = make_gradient(param, index, number)
        loss = torch.tensor(make_loss(number), dtype=torch.float64)
        step(lambda loss=loss: loss)
        graphs.append(counters["stats"]["unique_graphs"])
        for group in optimizer.param_groups:
            if case.bounded:
                group["lr"].mul_(0.9)
    return params, graphs


@pytest.mark.parametrize("case", [case for case in CASES if case.id in COMPILED], ids=str)
def test_one_set_of_graphs_whatever_the_parameters_and_the_rate(case: Case):
    expected, _ = run(case, SHAPES * 2, lambda step: step)
    params, graphs = run(case, SHAPES * 2, lambda step: torch.compile(step, backend=CompileCounter()))
    assert_same(params, expected, rtol=1e-12, atol=1e-12)
    assert graphs[1:] == [graphs[1]] * (STEPS - 1)
    breaks = sum(counters["graph_break"].values())

    torch._dynamo.reset()
    counters.clear()
    _, fewer_graphs = run(case, SHAPES, lambda step: torch.compile(step, backend=CompileCounter()))
    assert fewer_graphs == graphs and graphs[0] > 0
    assert sum(counters["graph_break"].values()) == breaks


@pytest.mark.slow
@each_case
def test_inductor_gives_the_same_numbers(case: Case):
    expected, _ = run(case, SHAPES, lambda step: step)
    params, graphs = run(case, SHAPES, torch.compile)
    assert_same(params, expected, rtol=1e-10, atol=1e-10)
    assert graphs[1:] == [graphs[1]] * (STEPS - 1)
