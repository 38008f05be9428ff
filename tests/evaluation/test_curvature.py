"""The gradient along itself: against a softmax regression worked out in NumPy, and the script on a run's checkpoints."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hf_geo.evaluation.curvature import measure_curvature
from tests.evaluation.test_script import make_run
from tests.experiments.sweeps import load
from tests.scripts import script

curvature = script("curvature")


def test_the_steps_are_those_of_a_softmax_regression_by_hand() -> None:
    x, y = torch.randn(30, 4, dtype=torch.float64), torch.randint(3, (30,))
    model = nn.Linear(4, 3).double()
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    rows = measure_curvature(model, [(x[:20], y[:20]), (x[20:], y[20:])], steps=5, size=0.1)

    def loss_and_gradients(w: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        scores = np.exp(x.numpy() @ w.T + b)
        p = scores / scores.sum(1, keepdims=True)
        error = (p - np.eye(3)[y]) / len(y)
        return -np.log(p[range(30), y]).mean(), error.T @ x.numpy(), error.sum(0)

    w, b = (weights[name].numpy() for name in ("weight", "bias"))
    _, first, first_b = loss_and_gradients(w, b)
    for step, row in enumerate(rows):
        loss, gradient, _ = loss_and_gradients(w, b)
        change = np.linalg.norm(gradient - first) / np.linalg.norm(first)
        assert row == pytest.approx({"step": step, "loss": loss, "gradient_change": change}, abs=1e-6)
        w = w - 0.1 * np.linalg.norm(w) * first / np.linalg.norm(first)
        b = b - 0.1 * np.linalg.norm(b) * first_b / np.linalg.norm(first_b)
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize(
    ("model", "labels", "message"),
    [
        (nn.BatchNorm1d(4), torch.zeros(6).long(), "no trainable weight of two axes"),
        (nn.Linear(4, 3), torch.zeros(6, 3).long(), "one label a sample"),
        (nn.Sequential(nn.Linear(4, 3), nn.Threshold(torch.inf, 0.0)), torch.zeros(6).long(), "has norm 0.0"),
    ],
)
def test_what_has_no_curvature_is_refused(model: nn.Module, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure_curvature(model, [(torch.randn(6, 4), labels)])


def test_classes_are_matched_names_checked_first_and_networks_without_curvature_left_out(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    run, rolled, dead = (tmp_path / name for name in ("run", "rolled", "dead"))
    make_run(run)
    shutil.copytree(run, rolled)
    shutil.copytree(run, dead)
    weights = load_file(run / "model.safetensors")
    save_file({name: torch.zeros_like(tensor) for name, tensor in weights.items()}, dead / "model.safetensors")
    head = {name: tensor.roll(2, 0) for name, tensor in weights.items() if ".fc." in name or name.startswith("fc.")}
    save_file({**weights, **head}, rolled / "model.safetensors")
    config = json.loads((run / "config.json").read_text())
    (rolled / "config.json").write_text(json.dumps({**config, "label_names": [*"8901234567"]}))
    words = ["--steps", 2, "--max_train_samples", 40, "--output_dir", tmp_path]
    assert curvature(["--model", dead, "--model", run, "--model", rolled, *words]) == 0
    assert "dead, trained, is left out: The gradient of the first layer has norm 0.0" in capsys.readouterr().err
    table = pd.read_csv(tmp_path / "curvature.csv").set_index("model")
    assert head and [*table.index] == ["run"] * 3 + ["rolled"] * 3
    columns = ["loss", "gradient_change"]
    assert table.loc["rolled", columns].to_numpy() == pytest.approx(table.loc["run", columns].to_numpy(), abs=1e-5)
    monkeypatch.setattr("hf_geo.evaluation.curvature._loss_and_gradients", None)
    with pytest.raises(SystemExit):
        curvature(["--model", run, "--model", tmp_path / "gone", *words])
    assert "gone" in capsys.readouterr().err


def test_cudnn_is_off_for_recurrent_networks(monkeypatch) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(torch.backends.cudnn.enabled)
            return self.head(self.cell(x)[0][:, -1])

    seen: list[bool] = []
    measure_curvature(Recurrent(), [(torch.randn(6, 7, 4), torch.randint(3, (6,)))], steps=1)
    assert seen == [False] * 2 and torch.backends.cudnn.enabled


def test_a_network_that_fails_costs_no_other(tmp_path: Path, monkeypatch, capsys) -> None:
    module, run = load("curvature"), make_run(tmp_path / "run")
    shutil.copytree(run, run / "checkpoint-5")
    outcomes = iter(
        [[{"step": 0, "loss": 1.0, "gradient_change": 0.0}], RuntimeError("out of memory"), KeyboardInterrupt()]
    )

    def measure(*args, **kwargs) -> list[dict]:
        outcome = next(outcomes)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(module, "measure_curvature", measure)
    with pytest.raises(KeyboardInterrupt):
        module.main([f"--model=local-dir:{run}", f"--model={run}", f"--model={run}", "--device=cpu"])
    assert "checkpoint 5, is left out: out of memory" in capsys.readouterr().err
    (row,) = pd.read_csv(run / "curvature.csv").itertuples()
    assert (row.network, row.loss) == ("checkpoint 5", 1.0)


@pytest.mark.slow
def test_every_checkpoint_of_a_run_is_measured_and_drawn(tmp_path: Path) -> None:
    run, other = make_run(tmp_path / "run"), make_run(tmp_path / "other")
    for step in (5, 10):
        shutil.copytree(other, run / f"checkpoint-{step}")
    assert curvature(["--model", run, "--model", other, "--steps", 2, "--max_train_samples", 40]) == 0
    table = pd.read_csv(run / "curvature.csv")
    networks = [("run", "checkpoint 5"), ("run", "checkpoint 10"), ("other", "trained")]
    assert [*zip(table.model, table.network, strict=True)] == [network for network in networks for _ in range(3)]
    # All three are the same network.
    assert table.groupby("step")[["loss", "gradient_change"]].std().to_numpy() == pytest.approx(0, abs=1e-6)
    assert table.gradient_change[0] == 0 < table.gradient_change[1] and table.loss[1] < table.loss[0]
    assert (run / "curvature.png").is_file()
