"""Recalibrated norm statistics are those of the data."""

import copy
from collections.abc import Callable, Iterator

import pytest
import timm.layers
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from hf_geo.evaluation import recalibrate_norms


def _statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers() if "running" in name}


def _population(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance of each channel."""
    values = x.double().transpose(0, 1).flatten(1)
    return values.mean(1), values.var(1)


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


class Siamese(nn.Module):
    """One norm for two inputs, as in recurrent networks and heads over several scales."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) - self.norm(2 * x + 5)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (nn.BatchNorm1d, (3,)),
        (nn.BatchNorm1d, (3, 4)),
        (nn.BatchNorm2d, (3, 1, 1)),
        (nn.BatchNorm3d, (3, 2, 2, 2)),
        (nn.SyncBatchNorm, (3, 4)),
        (lambda n: nn.BatchNorm1d(n, momentum=None, affine=False), (3,)),
        (timm.layers.BatchNormAct2d, (3, 4, 5)),
        (timm.layers.EvoNorm2dB0, (3, 4, 5)),
        (lambda n: Siamese(), (3,)),
    ],
    ids=["1d", "sequence", "1x1", "3d", "sync", "cumulative", "timm", "evonorm", "twice"],
)
def test_a_norm_gets_the_datas_mean_and_variance_however_batches_are_cut(
    make: Callable[[int], nn.Module], shape: tuple[int, ...]
) -> None:
    """Classes far apart, one after the other; batches of one and of none; a mean far from zero, relative to the spread."""
    classes = [1000 + i + 0.1 * torch.randn(9, *shape) for i in range(4)]
    data = torch.cat(classes)
    seen = torch.cat([data, 2 * data + 5]) if isinstance(make(3), Siamese) else data
    mean, variance = _population(seen)
    for sizes in ([36], [9] * 4, [0, 1, 8, 0, 20, 6, 1], [1] * 36):
        model = make(3)
        model(data[:8] + 100)  # what was there before leaves no trace
        assert recalibrate_norms(model, data.split(sizes)) == 36
        (norm,) = [m for m in model.modules() if hasattr(m, "running_var")]
        torch.testing.assert_close(norm.running_var, variance.float(), rtol=1e-4, atol=0)
        if hasattr(norm, "running_mean"):
            torch.testing.assert_close(norm.running_mean, mean.float())
            assert norm.num_batches_tracked == len([size for size in sizes if size])


def test_an_instance_norm_gets_the_average_over_samples() -> None:
    model, by_torch = (nn.InstanceNorm1d(3, track_running_stats=True, momentum=m) for m in (0.1, 1.0))
    x = torch.randn(6, 3, 16) * torch.arange(1, 7).view(6, 1, 1) + torch.arange(6).view(6, 1, 1)
    by_torch(x)
    for batches in ([x], x.split([1, 3, 2]), [*x[:2], x[2:]]):  # an instance norm takes a sample without a batch too
        recalibrate_norms(model, batches if batches[0].ndim == 3 else [x[:1], x[1:2], x[2:]])
        for name, value in _statistics(by_torch).items():
            torch.testing.assert_close(getattr(model, name), value)


def test_half_precision_is_summed_in_full() -> None:
    data = (3 + torch.randn(4000, 2)).bfloat16()
    model = nn.BatchNorm1d(2).bfloat16()
    recalibrate_norms(model, data.split(4))
    for found, expected in zip((model.running_mean, model.running_var), _population(data), strict=True):
        torch.testing.assert_close(found, expected.bfloat16(), rtol=0.01, atol=0)


def _deep() -> nn.Module:
    layers = []
    for width in (3, 8, 8, 8):
        layers += [nn.Conv2d(width, 8, 3, padding=1), timm.layers.BatchNormAct2d(8), nn.Dropout(0.5)]
    return nn.Sequential(*layers)


def test_one_batch_gives_every_layer_what_training_on_it_would() -> None:
    model, x = _deep(), torch.randn(16, 3, 6, 6)
    by_torch = copy.deepcopy(model)
    for module in by_torch.modules():
        module.p = 0.0  # of dropout
    update_bn([x], by_torch)
    recalibrate_norms(model, [x])
    for name, value in _statistics(by_torch).items():
        torch.testing.assert_close(model.get_buffer(name), value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 64])
def test_later_norms_fit_what_they_see_in_evaluation(size: int) -> None:
    """From small batches as well: where each normalized by itself, variances would be off by a third and a tenth."""
    torch.manual_seed(0)
    model = _deep()
    data = torch.randn(512, 3, 6, 6) + 3 * torch.randn(8, 3, 1, 1)[torch.arange(512) % 8]
    recalibrate_norms(model, data.split(size))
    seen = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(lambda _, args, path=path: seen.update({path: args[0]}))
    with torch.no_grad():
        model.eval()(data)
    for path, x in seen.items():
        mean, variance = _population(x)
        assert (model.get_buffer(f"{path}.running_var") / variance).log().abs().mean() < 0.03
        assert ((model.get_buffer(f"{path}.running_mean") - mean) / variance.sqrt()).abs().mean() < 0.03


def test_parameters_gradients_modes_and_momenta_stay() -> None:
    model = Network().train()
    model.linear.eval()
    before = copy.deepcopy(dict(model.named_parameters()))
    modes = [m.training for m in model.modules()]
    recalibrate_norms(model, make_data())
    assert [m.training for m in model.modules()] == modes
    assert (model.bn.momentum, model.bn2.momentum) == (0.1, None)
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in model.named_parameters())


class _KeptInEvaluation(nn.Sequential):
    """The usual way to fine-tune with frozen statistics."""

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        self[1].eval()
        return self


class _Unused(nn.Sequential):
    """Its last layer runs in training only, as Inception's auxiliary head."""

    def forward(self, x: Tensor) -> Tensor:
        x = self[1](self[0](x))
        return self[2](x) if self.training else x


def _two(**attributes: object) -> nn.Module:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(4))
    for name, value in attributes.items():
        setattr(model[1], name, value)
    return model


@pytest.mark.parametrize(
    ("make", "index"),
    [
        (lambda: _KeptInEvaluation(nn.BatchNorm1d(4), nn.BatchNorm1d(4)), 1),
        (lambda: _two(training=False), 1),
        (lambda: _two(track_running_stats=False), 1),
        (lambda: _Unused(nn.BatchNorm1d(4), nn.Linear(4, 4), nn.BatchNorm1d(4)), 2),
        (lambda: nn.Sequential(nn.BatchNorm2d(4), timm.layers.FrozenBatchNormAct2d(4)), 1),
    ],
    ids=["train", "eval", "untracked", "unused", "frozen"],
)
def test_layers_that_training_leaves_alone_stay(make: Callable[[], nn.Module], index: int) -> None:
    model = make()
    frozen = model[index]
    frozen.running_mean.fill_(7.0)
    before = copy.deepcopy(frozen.state_dict())
    mode = frozen.training
    recalibrate_norms(model, [torch.randn(8, 4, 1, 1) if isinstance(model[0], nn.BatchNorm2d) else torch.randn(8, 4)])
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())
    assert frozen.training == mode
    assert model[0].running_mean.abs().sum() > 0


def test_max_batches_reads_no_more_even_of_an_endless_stream() -> None:
    data = make_data()

    def stream() -> Iterator[Tensor]:
        yield from data
        raise AssertionError("a batch too many was read")

    model = Network()
    assert recalibrate_norms(model, stream(), max_batches=3) == 21
    torch.testing.assert_close(model.bn.running_mean, torch.cat(data).mean(0))


def test_a_model_without_statistics_reads_nothing() -> None:
    def stream() -> Iterator[Tensor]:
        raise AssertionError("a batch was read")
        yield

    assert recalibrate_norms(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), stream()) == 0
    assert recalibrate_norms(nn.BatchNorm1d(4, track_running_stats=False), stream()) == 0


@pytest.mark.parametrize(
    ("loader", "max_batches", "message"),
    [
        ([], None, "the loader is empty"),
        ([torch.zeros(0, 4)], None, "the loader is empty"),
        ([torch.randn(1, 4)], None, "'bn' saw a single value a channel"),
        ([torch.randn(2, 4)], 0, "max_batches is one or more.*got 0"),
        ([{"image": torch.randn(2, 4)}], None, "The model takes pixel_values, but a batch has image"),
        (["text"], None, "holds no tensor"),
    ],
    ids=["empty", "empty_batch", "one", "no_batches", "names", "text"],
)
def test_bad_loaders_are_refused_and_change_nothing(loader: list, max_batches: int | None, message: str) -> None:
    model = Network()
    model(torch.randn(8, 4))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        recalibrate_norms(model, iter(loader), max_batches)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(RuntimeError):  # of the model itself
        recalibrate_norms(model, [torch.randn(3, 4), torch.randn(3, 7)])
    assert all(module.training for module in model.modules()) and model.bn.momentum == 0.1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
