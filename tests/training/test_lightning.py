"""ALI-G's loss in Lightning, by a loop that calls what Lightning's own calls in the same order."""

import importlib
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from hf_geo.optim import AliG

BATCHES = 6


@pytest.fixture
def callback(monkeypatch: pytest.MonkeyPatch):
    """The callback, over a stand-in for the base class, of which it uses nothing."""
    pytorch = ModuleType("lightning.pytorch")
    pytorch.Callback = object
    monkeypatch.setitem(sys.modules, "lightning", ModuleType("lightning"))
    monkeypatch.setitem(sys.modules, "lightning.pytorch", pytorch)
    monkeypatch.delitem(sys.modules, "hf_geo.integrations.lightning", raising=False)
    module = importlib.import_module("hf_geo.integrations.lightning")
    monkeypatch.delitem(sys.modules, "hf_geo.integrations.lightning")
    return module.LossOfUpdateCallback()


def fit(
    accumulate: int, callback=None, scaler=None, batch: int = 4, automatic: bool = True
) -> tuple[nn.Module, list[str]]:
    """What Lightning's automatic optimization does, with its callback hooks; also how losses were reduced."""
    torch.manual_seed(0)
    model = nn.Linear(5, 1).double()
    inputs = torch.randn(BATCHES * 4, 5, dtype=torch.float64)
    labels = torch.randn(BATCHES * 4, 1, dtype=torch.float64)
    optimizer = AliG(model.parameters(), lr=10.0, momentum=0.5)
    reductions: list[str] = []
    strategy = SimpleNamespace(reduce=lambda loss, reduce_op: reductions.append(reduce_op) or loss)
    trainer = SimpleNamespace(
        optimizers=[optimizer], strategy=strategy, precision_plugin=SimpleNamespace(scaler=scaler)
    )
    module = SimpleNamespace(automatic_optimization=automatic)

    def call(name: str, *args) -> None:
        if callback is not None:
            getattr(callback, name)(trainer, module, *args)

    call("on_train_start")
    chunks = list(zip(inputs.split(batch), labels.split(batch), strict=True))
    for index, (x, y) in enumerate(chunks):

        def closure(index: int = index, x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
            loss = (model(x) - y).square().mean() / accumulate
            if index % accumulate == 0:
                call("on_before_zero_grad", optimizer)
                optimizer.zero_grad()
            scaled = loss if scaler is None else scaler.scale(loss)
            call("on_before_backward", scaled)
            scaled.backward()
            return loss.detach().clone()

        if (index + 1) % accumulate and index + 1 < len(chunks):
            closure()
        elif scaler is None:
            optimizer.step(closure=closure)
        else:
            closure()
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
    call("on_train_end")
    assert not optimizer._optimizer_step_pre_hooks
    return model, reductions


@pytest.mark.parametrize("accumulate", [1, 2, 3])
@pytest.mark.parametrize("scaled", [False, True])
def test_an_update_of_micro_batches_is_that_of_the_whole_batch(callback, accumulate: int, scaled: bool) -> None:
    expected, _ = fit(1, batch=4 * accumulate)
    model, reductions = fit(accumulate, callback, torch.amp.GradScaler("cpu") if scaled else None)
    torch.testing.assert_close(model.state_dict(), expected.state_dict(), rtol=1e-9, atol=1e-9)
    assert reductions == ["mean"] * (BATCHES // accumulate)


def test_without_it_the_last_micro_batch_counts_alone() -> None:
    expected, _ = fit(1, batch=8)
    model, _ = fit(2)
    assert not torch.allclose(model.weight, expected.weight, rtol=0.1)


def test_manual_optimization_is_left_alone(callback) -> None:
    _, reductions = fit(1, callback, automatic=False)
    assert not reductions


def test_an_update_whose_training_steps_were_left_out_moves_nothing(callback) -> None:
    """Lightning's closure returns None where `training_step` does, and the optimizer is called all the same."""
    weight = nn.Parameter(torch.ones(2))
    optimizer = AliG([weight])
    callback.on_train_start(SimpleNamespace(optimizers=[optimizer]), SimpleNamespace(automatic_optimization=True))
    optimizer.step(closure=lambda: None)
    assert torch.equal(weight, torch.ones(2))
