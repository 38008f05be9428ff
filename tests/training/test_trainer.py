"""GeoTrainer in one process: telemetry, clipping, searches, precision, engines and the losses of an update."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
import transformers
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import nn
from transformers import TrainingArguments

from hf_geo import GeoTrainer, GeoTrainingArguments, SubspaceConfig
from hf_geo.optim import get_method
from hf_geo.training.checks import check_combination
from hf_geo.training.loss import LossOfUpdate
from hf_geo.training.optimizers import PlateauSchedule, refuse_engine
from tests.training.problems import Classifier, Normalized, Stream, flat, make_problem, make_trainer


@pytest.mark.parametrize("name", ["alig", "adamsrt", "sgdmrt"])
def test_telemetry_is_what_happened(tmp_path, name: str) -> None:
    trainer = make_trainer(tmp_path, Normalized(), optim=name, log_geometry=True, logging_steps=2)
    seen = {}
    step = trainer.training_step

    def remember(*args, **kwargs):
        seen.setdefault("weights", []).append(trainer.model.hidden.weight.detach().clone())
        loss = step(*args, **kwargs)
        seen.setdefault("gradients", []).append(trainer.model.hidden.weight.grad.norm().item())
        return loss

    trainer.training_step = remember
    trainer.train()
    after = [*seen["weights"][1:], trainer.model.hidden.weight.detach()]
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert [row["step"] for row in rows] == [2, 4] and json.dumps(rows)
    for row, i in zip(rows, (1, 3), strict=True):
        before, lr = seen["weights"][i], row.get("lr/geometry", row["learning_rate"])
        expected = {
            "weight_norm": before.norm().item(),
            "relative_update": ((after[i] - before).norm() / before.norm()).item(),
            "effective_lr": lr / before.norm().item() ** 2,
            "spectral_norm": torch.linalg.matrix_norm(before, 2).item(),
            "spectral_update": torch.linalg.matrix_norm(after[i] - before, 2).item(),
        }
        assert {kind: row[f"geometry/{kind}/hidden.weight"] for kind in expected} == pytest.approx(expected, rel=1e-5)
        clipped = min(1.0, trainer.args.max_grad_norm / row["grad_norm"]) if trainer.args.max_grad_norm else 1.0
        assert row["geometry/grad_norm/hidden.weight"] == pytest.approx(clipped * seen["gradients"][i], rel=1e-4)
        if get_method(name).geometry:
            angle = nn.functional.cosine_similarity(before, after[i], dim=1).clamp(-1, 1).arccos().mean().item()
            assert row["geometry/angle/hidden.weight"] == pytest.approx(angle, rel=1e-3, abs=1e-6)
        assert ("geometry/step_size" in row) == (name == "alig")


def test_a_weight_with_settings_of_its_own_keeps_its_angle(tmp_path) -> None:
    settings = {"optim": "adamsrt", "optim_args": "hidden.lr=0.02", "log_geometry": True, "logging_steps": 2}
    trainer = make_trainer(tmp_path, Normalized(), **settings)
    trainer.train()
    assert "geometry/angle/hidden.weight" in trainer.state.log_history[0]


def test_a_run_without_telemetry_keeps_no_copies(tmp_path) -> None:
    trainer = make_trainer(tmp_path, Normalized(), optim="adamsrt")
    trainer.train()
    assert not any(key.startswith("geometry/") for row in trainer.state.log_history for key in row)
    assert not trainer.telemetry._before


def test_alig_sees_the_smoothed_loss(tmp_path) -> None:
    """One update by hand from the paper's rule, with the loss that label smoothing makes."""
    trainer = make_trainer(
        tmp_path, optim="alig", optim_args="momentum=0.0", learning_rate=10.0, max_steps=1, label_smoothing_factor=0.2
    )
    model, _ = make_problem("points")
    batch = next(iter(trainer.get_train_dataloader()))
    loss = nn.functional.cross_entropy(model(batch["x"])["logits"], batch["labels"], label_smoothing=0.2)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    step = loss / (sum(g.square().sum() for g in gradients) + 1e-5)
    assert step < 10
    trainer.train()
    expected = torch.cat([(p - step * g).flatten() for p, g in zip(model.parameters(), gradients, strict=True)])
    torch.testing.assert_close(flat(trainer.model), expected, rtol=0, atol=1e-7)


def test_bfloat16_autocast_stays_near_full_precision(tmp_path) -> None:
    model, _ = make_problem("points")

    def trained(**settings):
        trainer = make_trainer(tmp_path, make_problem("points")[0].float(), optim="sgdg", **settings)
        trainer.train_dataset.x = trainer.train_dataset.x.float()
        trainer.train()
        return flat(trainer.model)

    full, mixed = trained(), trained(bf16=True, use_cpu=True)
    moved = (full - flat(model).float()).norm()
    assert 0 < (mixed - full).norm() < 0.3 * moved


def test_a_search_gives_each_trial_its_own_rate_setting_and_losses(tmp_path) -> None:
    pytest.importorskip("optuna")
    trainer = make_trainer(tmp_path, optim="alig", eval_strategy="steps", eval_steps=4)
    trainer.model_init = lambda: make_problem("points")[0]
    space = {"learning_rate": [0.05], "optim_args": ["max_norm=3.0"]}
    search = {"n_trials": 1, "direction": "minimize", "backend": "optuna"}
    search["hp_space"] = lambda trial: {name: trial.suggest_categorical(name, values) for name, values in space.items()}
    first, second = (trainer.hyperparameter_search(**search).objective for _ in range(2))
    group = trainer.optimizer.optimizer.param_groups[0]
    assert first == second and (group["lr"], group["max_norm"]) == (0.05, 3.0)


STEPS = {"milestones": [1], "max_steps": 1}
WRONG = [
    (lambda folder: GeoTrainer(nn.Linear(1, 1), TrainingArguments(folder)), TypeError, "not TrainingArguments"),
    (
        lambda folder: GeoTrainer(model_init=Normalized, args=GeoTrainingArguments(folder), subspace=SubspaceConfig()),
        ValueError,
        "model_init would replace",
    ),
    (
        lambda folder: GeoTrainer(nn.Linear(1, 1), GeoTrainingArguments(folder, **STEPS), train_dataset=Stream()),
        ValueError,
        "a stream has no known length",
    ),
]


@pytest.mark.parametrize(("build", "kind", "message"), WRONG)
def test_what_cannot_be_trained_is_refused(tmp_path, build, kind, message: str) -> None:
    with pytest.raises(kind, match=message):
        build(str(tmp_path))


def make_subspace_trainer(folder, data=None, **settings) -> GeoTrainer:
    subspace = SubspaceConfig("line", num_samples=2)
    return make_trainer(folder, Normalized(), data=data, subspace=subspace, optim="fromage", max_steps=2, **settings)


def test_buffers_stay_between_the_forwards_of_an_update(tmp_path) -> None:
    assert make_subspace_trainer(tmp_path).accelerator.ddp_handler.broadcast_buffers is False
    kept = make_subspace_trainer(tmp_path, ddp_broadcast_buffers=True)
    assert kept.accelerator.ddp_handler.broadcast_buffers is True


def test_the_regularizer_counts_once_an_update(tmp_path) -> None:
    """Also where a loss of the user's is over all items of an update, which transformers then leaves undivided."""

    def summed(outputs, labels, num_items_in_batch):
        return nn.functional.cross_entropy(outputs["logits"], labels, reduction="sum") / num_items_in_batch

    def first_loss(**settings) -> float:
        trainer = make_trainer(tmp_path, subspace=SubspaceConfig("line", beta=100.0), max_steps=1, **settings)
        trainer.compute_loss_func = summed
        trainer.train()
        return trainer.state.log_history[0]["loss"]

    whole = first_loss(per_device_train_batch_size=8)
    accumulated = first_loss(per_device_train_batch_size=4, gradient_accumulation_steps=2)
    assert 100 < whole < 104 and accumulated == pytest.approx(whole, abs=0.1)


def test_a_subspace_trains_on_a_stream(tmp_path) -> None:
    trainer = make_subspace_trainer(tmp_path, data=Stream())
    trainer.train()
    trainer.finalize()
    trainer.model.eval()
    with torch.no_grad():
        inputs = torch.stack([sample["x"] for sample in Stream()])
        expected = trainer.model.hidden(inputs).mean(0)
    torch.testing.assert_close(trainer.model.norm.running_mean, expected)


ENGINES = [
    (DistributedType.DEEPSPEED, 2, "DeepSpeed's ZeRO flattens"),
    (DistributedType.FSDP, 1, "set fsdp_version: 2"),
    (DistributedType.FSDP, 2, None),
]


@pytest.mark.parametrize(("engine", "version", "remedy"), ENGINES)
def test_engines_that_hide_whole_weights_are_refused(monkeypatch, engine, version: int, remedy: str | None) -> None:
    args = GeoTrainingArguments(output_dir="unused", optim="fromage")
    Accelerator(cpu=True)
    monkeypatch.setitem(PartialState._shared_state, "distributed_type", engine)
    plugin = FullyShardedDataParallelPlugin(fsdp_version=version)
    monkeypatch.setitem(AcceleratorState._shared_state, "fsdp_plugin", plugin)
    with pytest.raises(ValueError, match=f"fromage needs whole weights.*{remedy}") if remedy else nullcontext():
        refuse_engine(args)


def test_data_parallel_is_refused_with_the_command(monkeypatch) -> None:
    args = GeoTrainingArguments(output_dir="unused", optim="fromage")
    monkeypatch.setattr(args, "_n_gpu", 4)
    with pytest.raises(ValueError, match="accelerate launch --num_processes 4"):
        refuse_engine(args)


def test_the_losses_of_an_update_are_added_and_then_begin_anew() -> None:
    accelerator = Accelerator(cpu=True)
    loss_of_update = LossOfUpdate(accelerator)
    with pytest.raises(RuntimeError, match="No loss was added"):
        loss_of_update()
    rows = [(False, 1.0, 1.0), (True, 2.0, 3.0), (False, 4.0, 4.0), (True, 0.5, 4.5), (True, 7.0, 7.0)]
    for complete, loss, total in rows:
        accelerator.gradient_state._set_sync_gradients(complete)
        loss_of_update.add(torch.tensor(loss, dtype=torch.float16))
        assert loss_of_update().item() == total and loss_of_update().dtype == torch.float32


def test_a_step_schedule_with_warm_up(tmp_path) -> None:
    trainer = make_trainer(
        tmp_path, optim="fromage", learning_rate=1.0, milestones=[1, 2], gamma=0.5, warmup_steps=2, max_steps=16
    )
    assert len(trainer.get_train_dataloader()) == 5
    trainer.train()
    rates = [row["learning_rate"] for row in trainer.state.log_history if "loss" in row]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, *[0.5] * 5, *[0.25] * 6])


def test_a_rate_that_decays_at_evaluations_stays_above_its_least() -> None:
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.ones(1))], "lr": lr} for lr in (1.0, 0.001)])
    schedule = PlateauSchedule(optimizer, decay=0.5, min_lr=0.2)
    rates = []
    for loss in (3.0, 2.0, 1.0):
        schedule.step(loss)
        rates.append([group["lr"] for group in optimizer.param_groups])
    assert rates == [[0.5, 0.001], [0.25, 0.001], [0.2, 0.001]]


def test_training_accuracy_is_that_of_the_batches_since_the_last_log(tmp_path) -> None:
    seen = []

    class Watched(Classifier):
        def forward(self, x, labels=None):
            out = super().forward(x, labels)
            seen.append(out["logits"].argmax(-1) == labels)
            return out

    model = Watched().double()
    trainer = make_trainer(tmp_path, model, log_accuracy=True, logging_steps=2, gradient_accumulation_steps=2)
    trainer.train()
    logged = [row["training_accuracy"] for row in trainer.state.log_history if "training_accuracy" in row]
    assert logged == pytest.approx([torch.cat(part).double().mean().item() for part in (seen[:4], seen[4:8])])
    words, sentences = make_problem("sentences")
    with pytest.raises(ValueError, match="--log_accuracy is for classifiers"):
        make_trainer(tmp_path, words, data=sentences, log_accuracy=True).train()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("hiden.lr=0.1", "optim_args sets hiden.lr, but the model has no module 'hiden'"),
        ("hidden.lr=0.1,hidden.weight.lr=0.2", "no module 'hidden.weight'"),
    ],
)
def test_settings_of_modules_that_are_not_there_are_refused(tmp_path, settings: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, Normalized(), optim="sgd", optim_args=settings).create_optimizer()


def test_settings_of_a_module_within_another_are_refused(tmp_path) -> None:
    model = nn.ModuleDict({"outer": nn.ModuleDict({"inner": nn.Linear(2, 2)})})
    args = GeoTrainingArguments(output_dir=str(tmp_path), optim="sgd", optim_args="outer.lr=0.1,outer.inner.lr=0.2")
    with pytest.raises(ValueError, match=r"sets 'outer' and 'outer\.inner' within it: set one of them"):
        GeoTrainer.get_optimizer_cls_and_kwargs(args, model)


def test_weight_decay_reaches_all_where_it_is_asked_for(tmp_path) -> None:
    for optim in ("sgd", "adamsrt"):
        settings = {"optim": optim, "weight_decay": 0.3, "geometry_groups": "structure"}
        groups = make_trainer(tmp_path, decay_all=True, **settings).create_optimizer().param_groups
        assert {group["weight_decay"] for group in groups if group["params"]} == {0.3}


def test_telemetry_is_refused_where_gradients_are_hidden(tmp_path) -> None:
    args = GeoTrainingArguments(output_dir=str(tmp_path), log_geometry=True)
    with pytest.raises(ValueError, match="--log_geometry reads whole gradients, which DeepSpeed hides"):
        check_combination(SimpleNamespace(args=args, is_deepspeed_enabled=True), None)


def test_a_subspace_is_pushed_only_at_the_end(tmp_path, caplog, monkeypatch) -> None:
    """transformers would push a checkpoint's control points as the model."""
    trainer = make_subspace_trainer(tmp_path)
    trainer.args.push_to_hub, pushed = True, []
    check_combination(trainer, trainer.subspace)
    assert "A subspace is pushed at the end only" in caplog.text
    monkeypatch.setattr(transformers.Trainer, "_push_from_checkpoint", lambda self, folder: pushed.append(folder))
    trainer._push_from_checkpoint("checkpoint-1")
    assert not pushed
    make_trainer(tmp_path)._push_from_checkpoint("checkpoint-1")
    assert pushed == ["checkpoint-1"]
