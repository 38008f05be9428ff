"""On a GPU, a step captured in a CUDA graph and replayed gives the numbers of eager steps, bit by bit."""

import pytest
import torch
from torch import Tensor, nn

from tests.cases import Case, each_case, make_gradient, make_loss, make_params

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
STEPS, EAGER = 23, 3  # the first ones make state and tables


def train(case: Case, graphed: bool) -> list[Tensor]:
    """Takes steps under a falling learning rate; returns weights and state."""
    params = [nn.Parameter(p.detach().cuda().float()) for p in make_params()]
    optimizer = case.make(params, fused=True)
    loss = torch.tensor(0.0, device="cuda")
    for group in optimizer.param_groups if case.bounded else ():
        group["lr"] = torch.tensor(group["lr"], device="cuda")
    for p in params:
        p.grad = torch.zeros_like(p)

    def feed(number: int) -> None:
        loss.fill_(make_loss(number))
        for index, p in enumerate(params):
            p.grad.copy_(make_gradient(torch.empty(p.shape), index, number))
        for group in optimizer.param_groups if case.bounded else ():
            group["lr"].mul_(0.9)

    graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for number in range(EAGER):
            feed(number)
            case.step(optimizer, loss)
    torch.cuda.current_stream().wait_stream(side)
    if graphed:
        with torch.cuda.graph(graph):
            case.step(optimizer, loss)
    for number in range(EAGER, STEPS):
        feed(number)
        if graphed:
            graph.replay()
        else:
            case.step(optimizer, loss)
    state = [value for entry in optimizer.state.values() for value in entry.values()]
    return [tensor.detach().clone() for tensor in (*params, *state)]


@each_case
def test_a_captured_step_is_the_eager_one(case: Case):
    for graphed, eager in zip(train(case, graphed=True), train(case, graphed=False), strict=True):
        assert torch.equal(graphed, eager)
