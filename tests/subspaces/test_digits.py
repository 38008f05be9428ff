"""Subspaces of real digit classifiers, trained in a plain loop: the centre is as good as a plain network, the rest is good."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from hf_geo.evaluation import recalibrate_norms
from hf_geo.subspaces import Subspace, SubspaceConfig, draw_generator

EPOCHS = 20
BATCH = 64


def make_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and labels, and 400 for the test."""
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    x, y = torch.from_numpy(images).float().view(-1, 1, 8, 8)[order] / 16, torch.from_numpy(labels)[order]
    return x[400:], y[400:], x[:400], y[:400]


def train(model: nn.Module, subspace: Subspace | None, x: Tensor, y: Tensor) -> None:
    steps = EPOCHS * (len(x) // BATCH)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    step = 0
    for epoch in range(EPOCHS):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        for batch in order[: len(x) // BATCH * BATCH].split(BATCH):
            if subspace is not None:
                generator = draw_generator(0, step)
                subspace.sample(generator)
            loss = F.cross_entropy(model(x[batch]), y[batch])
            if subspace is not None:
                loss = loss + subspace.config.beta * subspace.regularizer(generator=generator)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        return (model(x).argmax(-1) == y).double().mean().item()


def trained(config: SubspaceConfig, x: Tensor, y: Tensor) -> Subspace:
    subspace = Subspace.attach(make_network(), config, model_init=make_network)
    train(subspace.model, subspace, x, y)
    return subspace


def accuracies(subspace: Subspace, positions: list, digits: tuple[Tensor, ...]) -> list[float]:
    x, _, test_x, test_y = digits
    found = []
    for position in positions:
        subspace.set_position(position)
        recalibrate_norms(subspace.model, x.split(128))
        found.append(accuracy(subspace.model, test_x, test_y))
    return found


def test_a_lines_centre_is_as_good_as_a_plain_network_and_all_of_it_is_good(digits: tuple[Tensor, ...]) -> None:
    x, y, test_x, test_y = digits
    plain = make_network()
    train(plain, None, x, y)
    reference = accuracy(plain, test_x, test_y)
    subspace = trained(SubspaceConfig("line"), x, y)
    found = accuracies(subspace, torch.linspace(0, 1, 11).tolist(), digits)
    assert found[5] >= reference - 0.01
    assert min(found) > 0.9
    assert subspace.regularizer().item() < 0.01, "the ends are not the different networks they should be"


def test_a_simplex_is_good_wherever_training_draws(digits: tuple[Tensor, ...]) -> None:
    subspace = trained(SubspaceConfig("simplex", 3, layerwise=True), *digits[:2])
    positions = [subspace.sample(draw_generator(7, i)) for i in range(12)]
    assert min(accuracies(subspace, positions, digits)) > 0.9
