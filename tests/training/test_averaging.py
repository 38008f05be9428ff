"""SWA and EMA: the averages are the mean or the moving average of the weights there were, wherever they are used."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.utils.parametrizations import spectral_norm
from transformers import TrainerCallback

from hf_geo import GeoTrainer, GeoTrainingArguments, SubspaceConfig
from hf_geo.evaluation import recalibrate_norms
from hf_geo.training.averaging import AVERAGED
from tests.scripts import script
from tests.training.problems import Normalized, Stream, make_trainer


class Recorder(TrainerCallback):
    """The weights after every update."""

    def __init__(self) -> None:
        self.weights: list[dict[str, np.ndarray]] = []

    def on_step_end(self, args, state, control, model=None, **kwargs) -> None:
        self.weights.append({name: p.detach().numpy().copy() for name, p in model.named_parameters()})


def run(folder: Path, checkpoint: Path | None = None, **settings) -> tuple[GeoTrainer, list[dict[str, np.ndarray]]]:
    """12 updates, five an epoch."""
    recorder = Recorder()
    settings = {"optim": "sgd", "learning_rate": 0.3, "max_steps": 12, "lr_scheduler_type": "linear"} | settings
    trainer = make_trainer(folder, Normalized(), recorder, **settings)
    trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    return trainer, recorder.weights


def moving(seen: list[np.ndarray]) -> np.ndarray:
    average = seen[0]
    for weight in seen[1:]:
        average = 0.9 * average + (1 - 0.9) * weight
    return average


ROWS = {
    "ema": ({"ema_decay": 0.9}, moving),
    "swa": ({"swa_start": 0.0}, lambda seen: (seen[4] + seen[9] + seen[11]) / 3),
    "swa from an epoch's end": ({"swa_start": 5 / 12}, lambda seen: (seen[9] + seen[11]) / 2),
    "swa in cycles": (
        {"swa_start": 0.5, "swa_lr": 0.1, "swa_schedule": "cyclic", "swa_cycles": 2},
        lambda seen: (seen[5] + seen[8] + seen[11]) / 3,
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_the_model_gets_the_average_of_the_weights_there_were(tmp_path, name: str) -> None:
    settings, average = ROWS[name]
    trainer, seen = run(tmp_path, **settings)
    last = {key: p.detach().clone() for key, p in trainer.model.named_parameters()}
    assert all(np.array_equal(last[key].numpy(), seen[-1][key]) for key in last), "training itself goes on unchanged"
    trainer.finalize()
    for key, parameter in trainer.model.named_parameters():
        expected = average([weights[key] for weights in seen])
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=0, atol=1e-13)
        assert not torch.equal(parameter, last[key])
    hidden = trainer.model.hidden(torch.stack([trainer.train_dataset[i]["x"] for i in range(40)]))
    torch.testing.assert_close(trainer.model.norm.running_mean, hidden.mean(0).detach(), rtol=0, atol=1e-12)


def test_evaluations_are_of_the_average_and_leave_the_run_alone(tmp_path) -> None:
    trainer, _ = run(tmp_path, ema_decay=0.9)
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    shown = trainer.evaluate()["eval_loss"]
    assert all(torch.equal(before[key], value) for key, value in trainer.model.state_dict().items())
    plain = Normalized()
    plain.load_state_dict(trainer._average.averages, strict=False)
    x, labels = (torch.stack([trainer.eval_dataset[i][key] for i in range(40)]) for key in ("x", "labels"))
    recalibrate_norms(plain, torch.stack([trainer.train_dataset[i]["x"] for i in range(40)]).split(8))
    with torch.no_grad():
        expected = plain.eval()(x, labels)["loss"].item()
        raw = trainer.model.eval()(x, labels)["loss"].item()
    assert shown == pytest.approx(expected, abs=1e-12) and abs(shown - raw) > 1e-4
    trainer.finalize()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("optim", ["sgd", "schedule_free_sgd"])
def test_a_run_evaluated_in_between_ends_as_one_that_was_not(tmp_path, optim: str) -> None:
    settings = {"optim": optim, "ema_decay": 0.9, "eval_steps": 2, "lr_scheduler_type": "constant"}
    quiet, loud = (
        run(tmp_path / name, eval_strategy=name, **settings)[0].model.state_dict() for name in ("no", "steps")
    )
    # A schedule-free optimizer's weights come back from those that it evaluates but for rounding.
    tolerance = 0.0 if optim == "sgd" else 1e-12
    torch.testing.assert_close(loud, quiet, rtol=0, atol=tolerance)


def test_the_best_checkpoint_is_that_of_the_best_average(tmp_path) -> None:
    # The smallest loss is the first one: the points move away from where they are held out.
    every = {"eval_strategy": "steps", "eval_steps": 4, "save_strategy": "steps", "save_steps": 4}
    trainer, _ = run(tmp_path, ema_decay=0.9, load_best_model_at_end=True, **every)
    assert trainer.state.best_global_step == 4
    trainer.finalize()
    best, last = (load_file(tmp_path / f"checkpoint-{step}" / AVERAGED) for step in (4, 12))
    for key, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, best[key]) and not torch.equal(parameter, last[key])


def test_the_learning_rate_of_swa_is_constant_from_its_start(tmp_path) -> None:
    trainer, _ = run(tmp_path, swa_start=0.5, swa_lr=0.07, lr_scheduler_type="linear")
    rates = [row["learning_rate"] for row in trainer.state.log_history if "loss" in row]
    assert rates == pytest.approx([0.3 * (1 - step / 12) for step in range(6)] + [0.07] * 6)
    trainer.train()  # another run in the same process begins anew
    assert trainer._average.count == 2 and trainer.get_learning_rates() == pytest.approx([0.07] * 2)


def test_averages_get_singular_vectors_of_their_own(tmp_path) -> None:
    model = Normalized()
    spectral_norm(model.hidden)
    trainer = make_trainer(tmp_path, model, optim="sgd", learning_rate=3.0, max_steps=12, ema_decay=0.9)
    trainer.train()
    vector = model.hidden.parametrizations.weight[0]._u.clone()
    with trainer.evaluation_weights():
        assert torch.linalg.matrix_norm(model.eval().hidden.weight, 2).item() == pytest.approx(1, abs=1e-3)
    assert torch.equal(model.hidden.parametrizations.weight[0]._u, vector)
    trainer.finalize()
    assert torch.linalg.matrix_norm(model.eval().hidden.weight, 2).item() == pytest.approx(1, abs=1e-3)


def test_a_line_leads_to_the_learning_rate_of_swa(tmp_path) -> None:
    """Constant to half of training, from nine tenths on the last rate (Izmailov et al. 2018), whatever the schedule."""
    settings = {"swa_start": 0.75, "swa_lr": 0.06, "swa_schedule": "linear", "lr_scheduler_type": "cosine"}
    trainer, _ = run(tmp_path, max_steps=20, **settings)
    rates = [row["learning_rate"] for row in trainer.state.log_history if "loss" in row]
    line = [0.3 - 0.24 * (step - 10) / 8 for step in range(10, 18)]
    assert rates == pytest.approx([0.3] * 10 + line + [0.06] * 2)


def test_cycles_begin_at_the_learning_rate_of_swa(tmp_path) -> None:
    """Half a cosine to the start of SWA, then one a cycle, each to 0; cycles that the updates do not divide evenly too."""
    settings = {"swa_start": 0.5, "swa_lr": 0.1, "swa_schedule": "cyclic", "swa_cycles": 3, "warmup_steps": 2}
    trainer, _ = run(tmp_path, max_steps=20, **settings)
    rates = [row["learning_rate"] for row in trainer.state.log_history if "loss" in row]
    half = [(1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    cycle = [(1 + math.cos(math.pi * (3 * step / 10 % 1))) / 2 for step in range(10)]
    assert rates == pytest.approx([0.1, 0.2, *(0.3 * share for share in half), *(0.1 * share for share in cycle)])
    assert trainer._average.count == 4


@pytest.mark.parametrize("steps", [1, 3])
def test_cycles_may_have_no_room(tmp_path, steps: int) -> None:
    """The start rounds up to the last update, as in a smoke run: the average is the last weights."""
    settings = {"swa_start": 0.75, "swa_lr": 0.1, "swa_schedule": "cyclic", "swa_cycles": 2}
    trainer, _ = run(tmp_path, max_steps=steps, **settings)
    assert trainer._average.count == 1


DIFFERENT = [
    ({"ema_decay": 0.9}, {}, "keeps EMA of the weights and this run no average"),
    ({"ema_decay": 0.9}, {"swa_start": 0.5}, "keeps EMA of the weights and this run SWA"),
    ({}, {"ema_decay": 0.9}, "keeps no average of the weights and this run EMA"),
]


@pytest.mark.parametrize(("trained", "resumed", "message"), DIFFERENT)
def test_a_checkpoint_that_averages_differently_is_refused(tmp_path, trained, resumed, message: str) -> None:
    run(tmp_path / "run", max_steps=2, save_strategy="steps", save_steps=2, **trained)
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "resumed", tmp_path / "run" / "checkpoint-2", **resumed)


WRONG = [
    ({"swa_start": 1.0}, "--swa_start is a share of training, from 0 to below 1, not 1.0"),
    ({"ema_decay": 1.5}, "--ema_decay is a share between 0 and 1, not 1.5"),
    ({"ema_decay": 0.9, "swa_start": 0.5}, "give one of them"),
    ({"swa_lr": 0.1}, "--swa_lr is the learning rate from --swa_start on"),
    ({"swa_start": 0.5, "swa_lr": 0.0}, "--swa_lr is a finite number above 0, not 0.0"),
    ({"swa_start": 0.5, "swa_lr": 0.1, "lr_scheduler_type": "reduce_lr_on_plateau"}, "reduce_lr_on_plateau is not"),
    ({"swa_start": 0.5, "swa_schedule": "linear"}, "--swa_schedule linear leads to --swa_lr"),
    ({"swa_start": 0.5, "swa_lr": 0.1, "swa_schedule": "cyclic"}, "--swa_cycles need each other: give both or neither"),
    ({"swa_start": 0.5, "swa_lr": 0.1, "swa_schedule": "cyclic", "swa_cycles": 0}, "--swa_cycles is .*1.*, not 0"),
    ({"swa_start": 0.5, "swa_lr": 0.1, "milestones": [1.0]}, "which --milestones leaves no place for"),
    ({"swa_start": 0.5, "swa_lr": 0.1, "learning_rate": math.inf}, "which --learning_rate inf leaves no place for"),
    ({"optim": "alig", "learning_rate": math.inf}, "--learning_rate inf is nothing to schedule"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_settings_that_make_no_sense(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GeoTrainingArguments("unused", eval_strategy="steps", **settings)


def test_what_cannot_be_averaged_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="SWA and a subspace are two ways to one better network"):
        make_trainer(tmp_path, subspace=SubspaceConfig("line"), swa_start=0.5)
    with pytest.raises(ValueError, match="a stream has no known length: choose --ema_decay"):
        make_trainer(tmp_path, data=Stream(), swa_start=0.5)


def test_the_script_exports_the_average(tmp_path) -> None:
    few = {"max_train_samples": 96, "max_eval_samples": 32, "per_device_train_batch_size": 32, "num_train_epochs": 2}
    words = {"model": "test_resnet", "dataset": "digits", "optim": "fromage", "output_dir": tmp_path, **few}
    options = [f"--{key}={value}" for key, value in words.items()]
    assert script("train")([*options, "--swa_start=0.5", "--save_steps=6", "--disable_tqdm=true"]) == 0
    exported, averages = (load_file(tmp_path / name) for name in ("model.safetensors", f"checkpoint-6/{AVERAGED}"))
    averages = {name.removeprefix("timm_model."): tensor for name, tensor in averages.items()}
    assert all(torch.equal(exported[name], tensor) for name, tensor in averages.items())
    kinds = {name.rpartition(".")[2] for name in exported.keys() - averages}
    assert kinds == {"running_mean", "running_var", "num_batches_tracked"}
    assert "swa_start" in (tmp_path / "README.md").read_text()
