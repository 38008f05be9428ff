"""Losses and gradients that are no numbers: counted where they are, shown, the end of the run, and never in a checkpoint."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import TrainerCallback

from hf_geo import GeoTrainer, GeoTrainingArguments
from hf_geo.checkpoints.listing import list_checkpoints
from hf_geo.training.nonfinite import NonFiniteTrainingError, NonFiniteUpdates, advice, all_finite
from tests.optim.test_host_reads import HostReads
from tests.scripts import script
from tests.training.problems import Classifier, Points, flat, make_trainer


class Spoiled(Classifier):
    """A classifier with a fault in the given forwards, counted from 1; its weights are not spoiled by them.

    Args:
        fault: "loss" (infinite, with an ordinary gradient), "gradient" (NaN, with an ordinary loss).
    """

    def __init__(self, fault: str, forwards: tuple[int, ...] | range) -> None:
        super().__init__()
        self.fault, self.forwards, self.count = fault, forwards, 0

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        found = super().forward(x, labels)
        self.count += 1
        if self.count in self.forwards:
            if self.fault == "loss":
                found["loss"] = found["loss"] + math.inf
            else:
                found["loss"].register_hook(lambda gradient: gradient * math.nan)
        return found


def start(folder: Path, model: nn.Module, *callbacks: TrainerCallback, **settings) -> GeoTrainer:
    torch.manual_seed(0)
    every = {"max_steps": 12, "save_strategy": "steps", "save_steps": 3, "optim": "sgd", "learning_rate": 0.1}
    return make_trainer(folder, model.double(), *callbacks, data=Points(), **(every | settings))


def counts(trainer: GeoTrainer) -> list[int | None]:
    return [row.get("nonfinite_steps") for row in trainer.state.log_history if "learning_rate" in row]


class Unharmed(TrainerCallback):
    """Keeps the weights as they were where the gradient is not finite, as an optimizer that guards itself would."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs) -> None:
        for parameter in model.parameters():
            parameter.grad.nan_to_num_(nan=0.0)


@pytest.mark.parametrize("fault", ["loss", "gradient"])
def test_they_are_counted_and_shown(tmp_path, fault) -> None:
    trainer = start(tmp_path, Spoiled(fault, (3, 4, 8)), Unharmed())
    trainer.train()
    assert counts(trainer) == [None, None, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3]
    assert [path.name for path in list_checkpoints(tmp_path)] == [f"checkpoint-{step}" for step in (3, 6, 9, 12)]


def test_micro_batches_are_of_one_update(tmp_path) -> None:
    settings = {"gradient_accumulation_steps": 2, "max_steps": 4, "per_device_train_batch_size": 4}
    trainer = start(tmp_path, Spoiled("loss", (1, 2, 5)), Unharmed(), **settings)
    trainer.train()
    assert counts(trainer) == [1, 1, 2, 2]


@pytest.mark.parametrize(("fault", "logging"), [("loss", 1), ("gradient", 500)])
def test_so_many_in_a_row_stop_the_run(tmp_path, fault, logging) -> None:
    settings = {"max_nonfinite_steps": 3, "logging_steps": logging}
    enough = start(tmp_path / "3", Spoiled(fault, (2, 3, 5, 7, 8, 9)), Unharmed(), **settings)
    with pytest.raises(
        NonFiniteTrainingError, match=r"in 3 updates in a row .* at update 9; the last .* is checkpoint-6\. If"
    ):
        enough.train()
    fewer = start(tmp_path / "2", Spoiled(fault, (2, 3, 5, 7, 8, 10, 11)), Unharmed(), **settings)
    fewer.train()
    assert fewer.state.global_step == 12


def test_ruined_weights_are_not_saved_over_good_ones(tmp_path, caplog) -> None:
    trainer = start(tmp_path, Spoiled("gradient", (5,)), save_total_limit=1)
    with pytest.raises(
        NonFiniteTrainingError, match=r"ended with weights that are not finite; the last .* is checkpoint-3"
    ):
        trainer.train()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-3"]
    assert "No checkpoint of update 6: its weights are not finite." in caplog.text
    # A NaN gradient makes NaN weights, and those a NaN loss, in each update that follows.
    assert counts(trainer) == [None] * 4 + list(range(1, 9))
    again = start(tmp_path, Classifier())
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 12 and flat(again.model).isfinite().all()


def test_counting_reads_nothing_on_the_host(tmp_path, monkeypatch) -> None:
    class Reads(TrainerCallback):
        """Of the fifth update, between reports."""

        found: list[str]

        def on_step_begin(self, args, state, control, **kwargs) -> None:
            if state.global_step == 4:
                self.mode = HostReads()
                self.mode.__enter__()

        def on_step_end(self, args, state, control, **kwargs) -> None:
            if state.global_step == 5:
                self.mode.__exit__(None, None, None)
                self.found = self.mode.found

    quiet = {"logging_steps": 500, "logging_nan_inf_filter": False, "save_strategy": "no"}
    seen = Reads()
    trainer = start(tmp_path, Classifier(), seen, **quiet)
    trainer.train()
    plain = Reads()
    other = start(tmp_path, Classifier(), plain, **quiet)
    monkeypatch.setattr(NonFiniteUpdates, "add_loss", lambda *_: None)
    monkeypatch.setattr(NonFiniteUpdates, "end_update", lambda *_: None)
    other.train()
    assert seen.found == plain.found


def test_counts_of_all_processes_are_read_together() -> None:
    updates = NonFiniteUpdates(lambda mine: torch.cat([mine, torch.tensor([[1, 0, 5]])]))
    for value in (1.0, math.nan, math.inf, 1.0):
        updates.add_loss(torch.tensor(value))
        updates.end_update(torch.tensor(1.0))
    updates.read()
    assert (updates.total, updates.longest) == (2, 5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_looked_at_in_a_model(value) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    model[0].bias.requires_grad_(False)[0] = -math.inf
    assert all_finite(model)
    with torch.no_grad():
        model[0].weight[1, 1] = value
    assert not all_finite(model)
    with torch.no_grad():
        model[0].weight[1, 1] = 0.0
    model[1].running_mean[0] = math.nan
    assert not all_finite(model)


def test_overflow_under_loss_scaling_is_no_failure(tmp_path) -> None:
    model = Spoiled("gradient", range(2, 8))
    trainer = start(tmp_path, model, Unharmed(), max_nonfinite_steps=3)
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", enabled=False)  # as with float16
    trainer.train()
    assert counts(trainer) == [None] * 12


ADVICE = {
    "sgd": ["--learning_rate (it was 0.1)", "--warmup_steps"],
    "fromage": ["--learning_rate", "p_bound in --optim_args"],
    "alig": ["--learning_rate", "max_norm in --optim_args"],
    "sgdg": ["--learning_rate", "geometry.lr in --optim_args (by default 20 times"],
    "adamsrt": ["--learning_rate", "--warmup_steps"],
}


@pytest.mark.parametrize("name", ADVICE)
def test_advice_is_the_methods_own(tmp_path, name) -> None:
    args = GeoTrainingArguments(output_dir=str(tmp_path), optim=name, learning_rate=0.1)
    tips = advice(args)
    assert all(any(part in tip for tip in tips) for part in ADVICE[name]), tips
    # Clipping is advised only where it is off and does no harm.
    assert not any("max_grad_norm" in tip for tip in tips)
    args.max_grad_norm = 0.0
    assert any("--max_grad_norm" in tip for tip in advice(args)) == (name in ("sgd", "adamsrt"))


def test_the_script_ends_with_one_sentence(tmp_path, capfd) -> None:
    words = ["--dataset", "digits", "--model", "test_resnet", "--optim", "sgd", "--learning_rate", "1e30"]
    words += ["--max_steps", "40", "--save_steps", "1", "--logging_steps", "5", "--max_nonfinite_steps", "5"]
    with pytest.raises(SystemExit) as ended:
        script("train")([*words, "--disable_tqdm", "true", "--output_dir", tmp_path / "run"])
    assert ended.value.code == 2
    said = capfd.readouterr().err.splitlines()[-1]
    assert said.startswith("train.py: error: The loss or its gradient was not finite in 5 updates in a row")
    assert "a lower --learning_rate (it was 1e+30)" in said
    saved = list_checkpoints(tmp_path / "run")
    assert all(json.loads((path / "trainer_state.json").read_text())["global_step"] < 5 for path in saved)
    assert not (tmp_path / "run" / "model.safetensors").exists()
