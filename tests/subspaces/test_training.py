"""Compilation, checkpointing, mixed precision, inference mode, resuming and every optimizer, on the attached model."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from hf_geo.optim import create_optimizer, list_optimizers
from hf_geo.subspaces import Subspace, SubspaceConfig, draw_generator
from tests.subspaces.cases import CASES, Case, GoldenNetwork, TiedLanguageModel, points_of


def attach(case: Case, make: type[nn.Module] = GoldenNetwork, **settings: object) -> Subspace:
    return Subspace.attach(make(), case.config(**settings), model_init=make)


def images() -> torch.Tensor:
    return torch.randn(4, 3, 8, 8)


@pytest.mark.parametrize(
    ("make", "inputs", "layerwise"),
    [(GoldenNetwork, images, False), (TiedLanguageModel, lambda: torch.arange(10).view(2, 5), True)],
    ids=["one", "layerwise and tied"],
)
def test_a_new_position_compiles_nothing_anew(make: type[nn.Module], inputs: object, layerwise: bool) -> None:
    subspace = attach(CASES[0], make, layerwise=layerwise)
    eager = Subspace(copy.deepcopy(subspace.model), subspace.config)
    torch._dynamo.reset()
    compiled = torch.compile(subspace.model, backend="aot_eager", fullgraph=True)
    x = inputs()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for step in range(4):
            for each, forward in ((subspace, compiled), (eager, eager.model)):
                each.model.zero_grad()
                if step == 2:
                    each.set_position(0.25)
                else:
                    each.sample(draw_generator(0, step))
                forward(x).square().mean().backward()
            for found, expected in zip(subspace.model.parameters(), eager.model.parameters(), strict=True):
                torch.testing.assert_close(found.grad, expected.grad)


class _Checkpointed(GoldenNetwork):
    use_reentrant = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = checkpoint(lambda x: F.relu(self.bn1(self.conv1(x))), x, use_reentrant=self.use_reentrant)
        x = checkpoint(lambda x: F.relu(self.bn2(self.conv2(x))), x, use_reentrant=self.use_reentrant)
        return self.fc(x.mean((2, 3), keepdim=True)).flatten(1)


@pytest.mark.parametrize(("case", "use_reentrant"), [(CASES[0], False), (CASES[2], True)], ids=str)
def test_gradient_checkpointing_gives_the_same_gradients(case: Case, use_reentrant: bool) -> None:
    subspace = attach(case, _Checkpointed)
    subspace.model.use_reentrant = use_reentrant
    plain = Subspace.attach(GoldenNetwork(), case.config(), points=dict(enumerate(points_of(subspace))))
    x = images().requires_grad_()
    for each in (subspace, plain):
        each.sample(draw_generator(0))
        each.model(x).square().sum().backward()
    for found, expected in zip(subspace.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)


@pytest.mark.parametrize("case", [CASES[0], CASES[2]], ids=str)
def test_autocast_runs_each_position_at_its_own_weights(case: Case) -> None:
    subspace = attach(case)
    plain, x = GoldenNetwork(), images()
    for position in (case.coefficients(t)[0] for t in (0.2, 0.9)):
        subspace.set_position(position)
        plain.load_state_dict(subspace.folded_state_dict())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found, expected = subspace.model(x), plain(x)
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, expected)
    found.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in subspace.model.parameters())


def test_half_precision_weights_keep_exact_coefficients() -> None:
    dtype = torch.bfloat16
    model = nn.Linear(3, 2).to(dtype)
    subspace = Subspace.attach(model, SubspaceConfig(jitter=0.5))
    subspace.set_position(0.3)
    assert torch.equal(subspace.coefficients, torch.tensor([0.7, 0.3]))
    start, end = (state["weight"].float() for state in points_of(subspace))
    assert model.weight.dtype == dtype
    tolerance = torch.finfo(dtype).eps * 2
    torch.testing.assert_close(model.weight.float(), 0.7 * start + 0.3 * end, rtol=tolerance, atol=tolerance)


def test_training_goes_on_at_a_position_set_in_inference_mode_and_in_another_dtype() -> None:
    subspace = attach(CASES[0])
    with torch.inference_mode():
        subspace.set_centre()
        subspace.model(images())
    subspace.model.double()(images().double()).sum().backward()
    assert subspace.model.fc.parametrizations.weight.original0.grad.dtype is torch.float64


def _train(subspace: Subspace, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    losses = []
    for step in steps:
        generator = draw_generator(0, step)
        x = torch.randn(8, 3, 8, 8, generator=generator)
        subspace.sample(generator)
        loss = F.cross_entropy(subspace.model(x), (x.mean((1, 2, 3)) > 0).long())
        loss = loss + subspace.config.beta * subspace.regularizer(generator=generator)
        optimizer.zero_grad()
        loss.backward()
        if hasattr(optimizer, "set_loss"):
            optimizer.set_loss(loss.detach())
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("case", "layerwise"), [(CASES[1], False), (CASES[2], True)], ids=str)
def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(case: Case, layerwise: bool) -> None:
    unbroken = attach(case, layerwise=layerwise)
    optimizer = torch.optim.AdamW(unbroken.model.parameters(), lr=0.01)
    _train(unbroken, optimizer, range(3))
    weights, state = copy.deepcopy((unbroken.model.state_dict(), optimizer.state_dict()))
    expected = _train(unbroken, optimizer, range(3, 6))

    resumed = attach(case, layerwise=layerwise)
    resumed.model.load_state_dict(weights)
    optimizer = torch.optim.AdamW(resumed.model.parameters(), lr=0.01)
    optimizer.load_state_dict(state)
    assert _train(resumed, optimizer, range(3, 6)) == expected
    final = resumed.model.state_dict()
    assert all(torch.equal(final[name], value) for name, value in unbroken.model.state_dict().items())


@pytest.mark.parametrize("name", list_optimizers())
def test_every_optimizer_moves_every_control_point(name: str) -> None:
    subspace = attach(CASES[2])
    before = copy.deepcopy(points_of(subspace))
    losses = _train(subspace, create_optimizer(name, subspace.model), range(3))
    assert all(torch.isfinite(torch.tensor(losses)))
    for was, now in zip(before, points_of(subspace), strict=True):
        assert not torch.equal(was["conv2.weight"], now["conv2.weight"])
        assert torch.isfinite(now["conv2.weight"]).all()
