"""A step never reads a tensor's value on the host: on an accelerator each such read waits for the device."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.cases import FUSED, Case, each_case, make_gradient, make_loss, make_params

READS = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "unique")


class HostReads(TorchDispatchMode):
    """Collects the operations whose result, or its shape, is needed on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::")
        masked = name.startswith("index") and any(
            t.dtype == torch.bool for t in tree_leaves(args) if isinstance(t, Tensor)
        )
        if masked or name.startswith(READS):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("read", [Tensor.item, bool, float, torch.nonzero, lambda x: x[x > 0]])
def test_reads_are_seen(read):
    with HostReads() as reads:
        read(torch.ones(1))
    assert reads.found


@each_case
@pytest.mark.parametrize("fused", FUSED)
def test_a_step_reads_nothing(case: Case, fused: bool):
    params = make_params()
    optimizer = case.make(params, fused=fused)
    for number in range(4):
        if number == 2 and case.bounded:
            for group in optimizer.param_groups:
                group["lr"] = torch.tensor(group["lr"])
        for index, param in enumerate(params):
            param.grad = make_gradient(param, index, number)
        loss = torch.tensor(make_loss(number))
        with HostReads() as reads:
            case.step(optimizer, loss)
        assert reads.found == []
