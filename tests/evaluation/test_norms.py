"""Recalibrated norm statistics are the averages they claim to be."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_geo.evaluation import recalibrate_norms
from tests.evaluation import distributed
from tests.evaluation.distributed import Network, make_data


def _expected(model: Network, data: list[Tensor]) -> dict[str, Tensor]:
    """Written out: per batch mean and unbiased variance, averaged by sample counts; each batch normalised by its own."""
    counts = torch.tensor([float(len(x)) for x in data])
    hidden = [
        F.linear(F.relu(F.batch_norm(x, None, None, model.bn.weight, model.bn.bias, True)), *_linear(model))
        for x in data
    ]
    average = lambda values: (torch.stack(values) * counts[:, None]).sum(0) / counts.sum()  # noqa: E731
    return {
        "bn.running_mean": average([x.mean(0) for x in data]),
        "bn.running_var": average([x.var(0) for x in data]),
        "bn2.running_mean": average([h.mean(0) for h in hidden]),
        "bn2.running_var": average([h.var(0) for h in hidden]),
    }


def _linear(model: Network) -> tuple[Tensor, Tensor]:
    return model.linear.weight, model.linear.bias


def _check(model: Network, data: list[Tensor]) -> None:
    state = model.state_dict()
    for name, value in _expected(model, data).items():
        torch.testing.assert_close(state[name], value.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        lambda x: (x, torch.zeros(len(x))),
        lambda x: [x],
        lambda x: {"pixel_values": x, "labels": torch.zeros(len(x)), "index": 3},
    ],
    ids=["tensor", "tuple", "list", "dict"],
)
def test_statistics_are_averages_weighted_by_batch_size_without_dropout(wrap: Callable[[Tensor], object]) -> None:
    model, data = Network(), make_data()
    model(torch.randn(64, 4) + 100)  # what was there before leaves no trace
    assert recalibrate_norms(model, [wrap(x) for x in data]) == 21
    _check(model, data)


def test_parameters_gradients_modes_and_momenta_stay() -> None:
    model = Network().train()
    model.linear.eval()
    before = copy.deepcopy(dict(model.named_parameters()))
    modes = [m.training for m in model.modules()]
    recalibrate_norms(model, make_data())
    assert [m.training for m in model.modules()] == modes
    assert (model.bn.momentum, model.bn2.momentum) == (0.1, None)
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in model.named_parameters())


def test_modes_and_momenta_come_back_after_an_error() -> None:
    model = Network().train()
    with pytest.raises(RuntimeError):
        recalibrate_norms(model, [torch.randn(3, 4), torch.randn(3, 7)])
    assert all(m.training for m in model.modules())
    assert model.bn.momentum == 0.1


def test_max_batches_reads_no_more_even_of_an_endless_stream() -> None:
    data = make_data()

    def stream():
        yield from data
        raise AssertionError("a batch too many was read")

    model = Network()
    assert recalibrate_norms(model, stream(), max_batches=3) == 21
    _check(model, data)


def test_a_model_without_statistics_reads_nothing() -> None:
    def stream():
        raise AssertionError("a batch was read")
        yield

    assert recalibrate_norms(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), stream()) == 0
    assert recalibrate_norms(nn.BatchNorm1d(4, track_running_stats=False), stream()) == 0


def test_instance_norm_counts_too() -> None:
    model = nn.InstanceNorm1d(3, track_running_stats=True)
    x = torch.randn(5, 3, 16) + 2
    recalibrate_norms(model, [x])
    torch.testing.assert_close(model.running_mean, x.mean((0, 2)))


@pytest.mark.parametrize(
    ("loader", "max_batches", "message"),
    [
        ([], None, "the loader is empty"),
        ([torch.randn(2, 4)], 0, "max_batches is one or more.*got 0"),
        ([{"image": torch.randn(2, 4)}], None, "The model takes pixel_values, but a batch has image"),
        (["text"], None, "holds no tensor"),
        ([{"pixel_values": 3}], None, "holds no tensor"),
        ([{torch.randn(2, 4)}], None, "holds no tensor"),
    ],
    ids=["empty", "no_batches", "names", "text", "no_tensor", "set"],
)
def test_bad_loaders_are_refused(loader: list, max_batches: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recalibrate_norms(Network(), loader, max_batches)


def test_an_empty_loader_changes_nothing() -> None:
    model = Network()
    model(torch.randn(8, 4))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="the loader is empty"):
        recalibrate_norms(model, iter(()))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_processes_with_uneven_data_agree_with_one_that_has_all(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(distributed.work, (tmp_path,), nprocs=2)
    expected = _expected(*distributed.setting())
    for rank in range(2):
        samples, state = torch.load(tmp_path / f"{rank}.pt")
        assert samples == 25
        for name, value in expected.items():
            torch.testing.assert_close(state[name], value.detach(), rtol=1e-5, atol=1e-5)
