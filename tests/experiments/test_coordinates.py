"""The coordinate check: what it measures, and that it leaves the network alone."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch import nn

from hf_geo.experiments.coordinates import Coordinates
from tests.experiments.sweeps import load
from tests.paths import REPOSITORY


class Network(nn.Module):
    """A layer that is called twice and has dropout and statistics before it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop, self.lin = nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 3, bias=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.lin(self.lin(self.drop(self.norm(x)))), None


def test_changes_are_those_of_the_outputs_and_the_network_stays_as_it_is() -> None:
    network, batch = Network(), {"x": torch.randn(4, 3)}
    state, draws = {name: t.clone() for name, t in network.state_dict().items()}, torch.get_rng_state()
    check = Coordinates(batch)
    check.on_train_begin(None, None, None, model=network)
    assert torch.equal(torch.get_rng_state(), draws)
    assert all(torch.equal(t, state[name]) for name, t in network.state_dict().items())
    network.lin.weight.data *= 1.5
    for step in (3, 4):  # of which one is measured
        check.on_step_end(None, SimpleNamespace(global_step=step), None, model=network)
    first, last = check.rows
    # The first call's output grows by 1.5, the second's by 2.25.
    torch.manual_seed(0)
    normalized = nn.functional.batch_norm(batch["x"], None, None, training=True)
    once = nn.functional.dropout(normalized, 0.5) @ state["lin.weight"].T
    twice = once @ state["lin.weight"].T
    before = torch.cat([once, twice]).square().mean().sqrt().item()
    change = torch.cat([0.5 * once, 1.25 * twice]).square().mean().sqrt().item()
    assert first == {"layer": "lin", "step": 0, "output_rms": pytest.approx(before), "change_rms": 0}
    assert (last["layer"], last["step"], last["change_rms"]) == ("lin", 4, pytest.approx(change, rel=1e-5))


def check(tmp_path, *words: str) -> pd.DataFrame:
    assert load("sweep").main(["--coordinate_check", f"--output_dir={tmp_path}", *words]) == 0
    assert (tmp_path / "coordinates.png").stat().st_size > 5000 and not (tmp_path / "trials").exists()
    return pd.read_csv(tmp_path / "coordinates.csv")


def test_the_first_step_of_sgd_is_proportional_to_the_rate(tmp_path, capsys) -> None:
    config = REPOSITORY / "configs" / "fromage" / "digits_depth.yaml"
    words = ("--optims=sgd", "--lrs=0.001,0.002", "--over=model_args.width=8,32", "--max_train_samples=400")
    table = check(tmp_path, f"--config={config}", "--model_args=depth=2,in_chans=1", *words)
    assert len(table) == 2 * 2 * 3 * 5  # widths, rates, layers, steps
    steps = table[(table.step == 1) & (table.layer == "layers.0.0")].set_index(["model_args.width", "learning_rate"])
    for width in (8, 32):
        ratio = steps.change_rms[width, 0.002] / steps.change_rms[width, 0.001]
        assert ratio == pytest.approx(2, rel=1e-3)
    assert "| power of width | layers.0.0 | layers.1.0 | fc |" in capsys.readouterr().out


RECIPES = {
    "fromage/quickstart_docs": "model_args.d_model=16,32",
    "ali-g/dnc": "model_args.memory_size=4,8",
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_networks_of_other_tasks_are_measured(tmp_path, recipe: str) -> None:
    table = check(tmp_path, f"--config={REPOSITORY / 'configs' / recipe}.yaml", f"--over={RECIPES[recipe]}")
    last = table[table.step == 8]
    assert last.layer.nunique() >= 3 and (last.change_rms > 0).all()


WRONG = {
    "--lrs=1,0.1": "name a field with numbers, as in --over",
    "--trials=3": "--coordinate_check runs no trials: leave --trials out",
    "--over=model_args.drop_rate=0.1,0": "draws against powers of model_args.drop_rate: 0 has none, so leave it out",
}


def test_without_numbers_to_compare_nothing_is_measured(tmp_path, capsys) -> None:
    for words, message in WRONG.items():
        with pytest.raises(SystemExit):
            check(tmp_path, f"--config={REPOSITORY / 'configs' / 'quickstart.yaml'}", words)
        assert message in capsys.readouterr().err and not (tmp_path / "coordinates.csv").exists()


def test_a_network_that_fails_costs_no_earlier_one(tmp_path, monkeypatch) -> None:
    networks = iter([[{"layer": "fc", "step": 0}]])
    monkeypatch.setattr("hf_geo.experiments.coordinates.measure_coordinates", lambda *_: next(networks))
    config = REPOSITORY / "configs" / "fromage" / "digits_depth.yaml"
    with pytest.raises(StopIteration):
        check(tmp_path, f"--config={config}", "--over=model_args.width=8,32")
    assert list(pd.read_csv(tmp_path / "coordinates.csv")["model_args.width"]) == [8]
