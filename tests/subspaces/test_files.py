"""What is saved comes back bit for bit, and what is not a saved subspace is refused."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from hf_geo.subspaces import Subspace, SubspaceConfig
from tests.subspaces.cases import Case, GoldenNetwork, Network, TiedLanguageModel, Wrapper, each_network_and_shape
from tests.wrong_calls import cut, edit_json, remove, replace


@each_network_and_shape
def test_round_trip_is_bit_exact(case: Case, network: Network, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = network.make()
    config = case.config(layerwise=True, beta=0.5)
    subspace = Subspace.attach(model, config, model_init=network.make)
    model.train()(network.inputs())  # moves the running statistics
    subspace.save(tmp_path / "out")
    fresh = network.make()
    fresh.load_state_dict({n: p for n, p in model.state_dict().items() if n in network.frozen}, strict=False)
    loaded = Subspace.load(tmp_path / "out", fresh)
    assert loaded.config == config
    assert loaded.layer_names == subspace.layer_names
    for index in range(case.num_points):
        expected, found = subspace.point_state_dict(index), loaded.point_state_dict(index)
        assert set(found) == set(expected)
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert len(list(fresh.parameters())) == len(list(model.parameters()))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["subspace.safetensors", "subspace_config.json"]


def test_what_was_spanned_is_spanned_again_even_if_frozen_now(tmp_path: Path) -> None:
    model = TiedLanguageModel()
    Subspace.attach(model, SubspaceConfig(parameters="^norm|^decoder")).save(tmp_path)
    fresh = TiedLanguageModel().requires_grad_(False)
    loaded = Subspace.load(tmp_path, fresh)
    assert loaded.layer_names == ["embedding", "norm", "decoder"]
    assert not any(p.requires_grad for p in fresh.parameters())


def test_a_wrapper_around_the_network_makes_no_difference(tmp_path: Path) -> None:
    wrapped, plain = Subspace.attach(Wrapper(), SubspaceConfig()), Subspace.attach(GoldenNetwork(), SubspaceConfig())
    wrapped.save(tmp_path / "wrapped")
    plain.save(tmp_path / "plain")
    for name, make, saved, prefix in (
        ("wrapped", Wrapper, wrapped, ""),
        ("wrapped", GoldenNetwork, wrapped, "network."),
        ("plain", Wrapper, plain, ""),
        ("plain", GoldenNetwork, plain, ""),
    ):
        model = make()
        loaded = Subspace.load(tmp_path / name, model).point_state_dict(1)
        expected = {n.removeprefix(prefix): t for n, t in saved.point_state_dict(1).items()}
        assert set(loaded) == set(expected)
        assert all(torch.equal(loaded[n], t) for n, t in expected.items())
        assert any("parametrizations" in n for n, _ in model.named_parameters())


class _Scaled(nn.Linear):
    """A layer with a state that is no tensor, as quantizers have."""

    scale = 1.0

    def get_extra_state(self) -> dict[str, float]:
        return {"scale": self.scale}

    def set_extra_state(self, state: dict[str, float]) -> None:
        self.scale = state["scale"]


def test_extra_states_are_passed_on_and_stay_the_models_own_when_a_subspace_is_loaded(tmp_path: Path) -> None:
    model, plain, other = (nn.Sequential(_Scaled(4, 4), nn.Linear(4, 2)) for _ in range(3))
    subspace = Subspace.attach(model, SubspaceConfig())
    model[0].scale, other[0].scale = 3.0, 5.0
    for state in (subspace.folded_state_dict(0.3), subspace.point_state_dict(1)):
        plain[0].scale = 1.0
        plain.load_state_dict(state)
        assert plain[0].scale == 3.0
    subspace.save(tmp_path)
    loaded = Subspace.load(tmp_path, other)
    assert torch.equal(loaded.point_state_dict(1)["0.weight"], state["0.weight"])
    assert other[0].scale == 5.0


def test_fixed_ends_stay_fixed(tmp_path: Path) -> None:
    Subspace.attach(GoldenNetwork(), SubspaceConfig("curve", fixed_ends=True)).save(tmp_path)
    fresh = GoldenNetwork()
    Subspace.load(tmp_path, fresh)
    assert {name[-1] for name, p in fresh.named_parameters() if p.requires_grad} == {"1"}


def test_values_take_the_models_dtype(tmp_path: Path) -> None:
    saved = Subspace.attach(GoldenNetwork(), SubspaceConfig())
    saved.save(tmp_path)
    loaded = Subspace.load(tmp_path, GoldenNetwork().bfloat16())
    expected = saved.point_state_dict(1)["conv1.weight"].bfloat16()
    assert torch.equal(loaded.point_state_dict(1)["conv1.weight"], expected)


def test_a_hub_id_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = Subspace.attach(GoldenNetwork(), SubspaceConfig())
    saved.save(tmp_path / "cached")
    asked = []

    def download(repo_id: str, filename: str) -> str:
        asked.append((repo_id, filename))
        return str(tmp_path / "cached" / filename)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.chdir(tmp_path)
    loaded = Subspace.load("someone/line", GoldenNetwork())
    assert asked == [("someone/line", "subspace_config.json"), ("someone/line", "subspace.safetensors")]
    assert torch.equal(loaded.point_state_dict(1)["fc.weight"], saved.point_state_dict(1)["fc.weight"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Subspace.attach(GoldenNetwork(), SubspaceConfig()).save(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut("subspace.safetensors", -100), "subspace.safetensors is damaged or cut short"),
        (remove("subspace.safetensors"), "has no subspace.safetensors"),
        (remove("subspace_config.json"), "has no subspace_config.json"),
        (replace("subspace_config.json", '{"kind": "li'), "no complete description"),
        (edit_json("subspace_config.json", kind="circle"), "there is no kind 'circle'"),
        (edit_json("subspace_config.json", kind="curve", num_points=3), "damaged or cut short .*point2"),
        (shutil.rmtree, "is no folder, and no subspace_config.json came from a Hub repository"),
    ],
    ids=["cut", "no_weights", "no_config", "cut_config", "kind", "points", "nothing"],
)
def test_a_damaged_folder_is_refused(folder: Path, spoil: object, message: str) -> None:
    spoil(folder)
    model = GoldenNetwork()
    with pytest.raises(ValueError, match=message):
        Subspace.load(folder, model)
    assert not any("parametrizations" in name for name, _ in model.named_modules()), "the model was changed"


def _with(**layers: nn.Module | None) -> nn.Module:
    model = GoldenNetwork()
    for name, layer in layers.items():
        setattr(model, name, layer)
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GoldenNetwork(channels=3), r"'conv1.weight' it has shape \[4, 3, 3, 3\], the model shape \[3, 3, 3, 3\]"),
        (lambda: _with(fc=None), r"'fc.weight' it has shape \[5, 8, 1, 1\], the model no such tensor"),
        (lambda: _with(head=nn.Linear(2, 2)), r"'head.weight' it has no such tensor, the model shape \[2, 2\]"),
    ],
    ids=["shape", "missing", "more"],
)  # fmt: skip
def test_another_architecture_is_refused_by_its_first_mismatch(folder: Path, make: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"another architecture: for {message}"):
        Subspace.load(folder, make())
    with pytest.raises(ValueError, match="has a subspace already"):
        Subspace.load(folder, Subspace.attach(GoldenNetwork(), SubspaceConfig()).model)


def test_ties_are_part_of_the_architecture(tmp_path: Path) -> None:
    Subspace.attach(TiedLanguageModel(), SubspaceConfig()).save(tmp_path)
    untied = TiedLanguageModel()
    untied.decoder.weight = nn.Parameter(untied.decoder.weight.detach().clone())
    message = "one tensor is embedding.weight and decoder.weight; in the model it is embed"
    with pytest.raises(ValueError, match=message):
        Subspace.load(tmp_path, untied)
