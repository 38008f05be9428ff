"""Where control points come from."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hf_geo.subspaces import Subspace, SubspaceConfig
from tests.subspaces.cases import CASES, Case, GoldenNetwork, TiedLanguageModel, Wrapper, points_of


@pytest.mark.parametrize("case", CASES, ids=str)
def test_model_init_gives_points_that_only_the_seed_decides(case: Case) -> None:
    base = GoldenNetwork()
    first, again, other = (
        points_of(Subspace.attach(copy.deepcopy(base), case.config(), model_init=GoldenNetwork, seed=seed))
        for seed in (1, 1, 2)
    )
    before = torch.get_rng_state()
    Subspace.attach(copy.deepcopy(base), case.config(), model_init=GoldenNetwork)
    assert torch.equal(before, torch.get_rng_state())
    name = "conv2.weight"
    assert all(torch.equal(state[0][name], base.state_dict()[name]) for state in (first, other))
    for index in range(1, case.num_points):
        assert torch.equal(first[index][name], again[index][name])
        assert not torch.equal(first[index][name], other[index][name])
        assert not torch.equal(first[index][name], first[index - 1][name])


def test_jitter_is_relative_to_each_tensor() -> None:
    model = nn.Sequential(nn.Linear(200, 300), nn.Linear(300, 200, bias=False), nn.Linear(200, 2))
    with torch.no_grad():
        model[0].weight.mul_(1000)
        model[2].bias.zero_()
    subspace = Subspace.attach(model, SubspaceConfig("simplex", 4, jitter=0.2))
    first, *later = points_of(subspace)
    for state in later:
        for name in ("0.weight", "1.weight"):
            offset = (state[name] - first[name]).norm() / first[name].norm()
            assert offset.item() == pytest.approx(0.2, rel=0.01)
        assert torch.equal(state["2.bias"], torch.zeros(2))
    assert not torch.equal(later[0]["0.weight"], later[1]["0.weight"])


class _TiedPadding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4, padding_idx=-1)
        self.decoder = nn.Linear(4, 9, bias=False)
        self.decoder.weight = self.embedding.weight


@pytest.mark.parametrize(
    ("make", "row"),
    [
        (lambda: nn.Sequential(nn.Embedding(9, 4, padding_idx=2)), 2),
        (lambda: nn.Sequential(nn.EmbeddingBag(9, 4, padding_idx=0)), 0),
        (_TiedPadding, 8),
    ],
    ids=["embedding", "bag", "tied"],
)
def test_the_padding_row_is_the_same_at_every_position(make: Callable[[], nn.Module], row: int) -> None:
    subspace = Subspace.attach(make(), SubspaceConfig("simplex", 3))
    (first,), *later = ([state[name] for name in state][:1] for state in points_of(subspace))
    others = [index for index in range(9) if index != row]
    for (point,) in later:
        assert torch.equal(point[row], torch.zeros(4))
        assert (point[others] != first[others]).all()


def test_given_points_are_copied_from_memory_and_from_files(tmp_path: Path) -> None:
    ends = [GoldenNetwork().state_dict(), GoldenNetwork().state_dict()]
    save_file(ends[0], tmp_path / "start.safetensors")
    (tmp_path / "end").mkdir()
    save_file(ends[1], tmp_path / "end" / "model.safetensors")
    kept = copy.deepcopy(ends)
    for sources in ({0: ends[0], 1: ends[1]}, {0: tmp_path / "start.safetensors", 1: str(tmp_path / "end")}):
        model = GoldenNetwork()
        subspace = Subspace.attach(model, SubspaceConfig("line"), points=sources)
        for state, end in zip(points_of(subspace), kept, strict=True):
            assert all(torch.equal(state[name], end[name]) for name, _ in GoldenNetwork().named_parameters())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
    assert all(torch.equal(a[n], b[n]) for a, b in zip(ends, kept, strict=True) for n in a)


def test_a_wrapped_network_takes_what_was_saved_without_its_wrapper() -> None:
    end = GoldenNetwork()
    subspace = Subspace.attach(Wrapper(), SubspaceConfig(), points={1: end.state_dict()})
    point = subspace.point_state_dict(1)
    assert all(torch.equal(point[f"network.{name}"], p) for name, p in end.named_parameters())
    with pytest.raises(ValueError, match=r"control point 1 have no 'network.conv1.weight'"):
        Subspace.attach(Wrapper(), SubspaceConfig(), points={1: {"other": torch.zeros(2)}})


def test_a_curve_between_two_trained_networks_starts_as_their_segment_and_trains_its_bend() -> None:
    start, end, model = GoldenNetwork(), GoldenNetwork(), GoldenNetwork()
    config = SubspaceConfig("curve", fixed_ends=True)
    subspace = Subspace.attach(model, config, points={0: start.state_dict(), 2: end.state_dict()})
    halfway = {name: (p + q) / 2 for (name, p), q in zip(start.named_parameters(), end.parameters(), strict=True)}
    for name, value in halfway.items():
        torch.testing.assert_close(subspace.point_state_dict(1)[name], value)
    subspace.sample()
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == name.endswith("original1")
        assert (parameter.grad is None) != name.endswith("original1")
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0).step()
    for index, network in ((0, start), (2, end)):
        subspace.set_position(index / 2)
        assert all(torch.equal(subspace.folded_state_dict()[name], p) for name, p in network.named_parameters()), (
            "the ends moved"
        )
    assert not torch.equal(subspace.point_state_dict(1)["fc.weight"], halfway["fc.weight"])


def test_unlisted_points_of_a_curve_come_from_model_init_when_there_is_one() -> None:
    start, end = GoldenNetwork().state_dict(), GoldenNetwork().state_dict()
    subspace = Subspace.attach(
        GoldenNetwork(), SubspaceConfig("curve"), points={0: start, 2: end}, model_init=GoldenNetwork
    )
    middle = subspace.point_state_dict(1)["conv1.weight"]
    assert not torch.allclose(middle, (start["conv1.weight"] + end["conv1.weight"]) / 2)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("all", {"embedding.weight", "norm.weight", "norm.bias", "decoder.bias"}),
        (r"^norm\.", {"norm.weight", "norm.bias"}),
        (r"decoder\.weight", {"embedding.weight"}),  # a tied tensor answers to all its names
    ],
)
def test_parameters_select_by_name(parameters: str, expected: set[str]) -> None:
    model = TiedLanguageModel()
    Subspace.attach(model, SubspaceConfig(parameters=parameters, beta=0.0))
    kept = {name for name, _ in TiedLanguageModel().named_parameters()} - expected
    attached = {name for name, _ in model.named_parameters()}
    assert {name for name in attached if "parametrizations" not in name} == kept
    assert len(attached) == len(kept) + 2 * len(expected)
