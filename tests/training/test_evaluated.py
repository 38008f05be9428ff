"""What an evaluation measures is what is saved, and it reads every sample; what cannot be trained on is refused or said."""

import logging
from pathlib import Path

import pytest
import torch

from hf_geo import GeoTrainer, GeoTrainingArguments, SubspaceConfig
from tests.training.evaluations import Stream
from tests.training.problems import Normalized, Points, loss_of


def make_trainer(folder: Path, data, subspace: SubspaceConfig | None = None, **settings) -> GeoTrainer:
    defaults = {"optim": "sgd", "learning_rate": 0.1, "save_strategy": "no", "disable_tqdm": True, "use_cpu": True}
    args = GeoTrainingArguments(output_dir=str(folder), **(defaults | settings))
    return GeoTrainer(Normalized(), args, train_dataset=data, eval_dataset=Points(), subspace=subspace)


def test_processes_that_do_not_know_of_each_other_are_refused(tmp_path, monkeypatch) -> None:
    args = GeoTrainingArguments(output_dir=str(tmp_path), use_cpu=True)  # alone, as without accelerate's variable
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"2 processes were started, but each would train alone .* ACCELERATE_USE_CPU"):
        GeoTrainer(Normalized(), args, train_dataset=Points())


KEPT = [
    ("fp16_full_eval", {}, None),
    ("bf16_full_eval", {"ema_decay": 0.5}, None),
    ("bf16_full_eval", {}, SubspaceConfig()),
]


@pytest.mark.parametrize(("option", "settings", "subspace"), KEPT)
def test_an_evaluation_in_half_precision_rounds_no_weight(tmp_path, option, settings, subspace) -> None:
    trainer = make_trainer(tmp_path, Points(), subspace, max_steps=3, **{option: True}, **settings)
    trainer.train()
    trainer.finalize()
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    data = [{key: value.to(torch.bfloat16 if "bf16" in option else torch.float16) if key == "x" else value
             for key, value in Points()[i].items()} for i in range(8)]  # fmt: skip
    trainer.evaluate(data)
    after = trainer.model.state_dict()
    assert all(
        torch.equal(after[name], tensor) and after[name].dtype == tensor.dtype for name, tensor in before.items()
    )


@pytest.mark.parametrize("size", [40, 43])
def test_dropping_the_last_training_batch_drops_none_of_the_evaluation(tmp_path, size: int) -> None:
    trainer = make_trainer(
        tmp_path, Points(size), dataloader_drop_last=True, per_device_eval_batch_size=16, max_steps=1
    )
    assert trainer.evaluate()["eval_loss"] == pytest.approx(loss_of(trainer.model), abs=1e-9)
    assert len(trainer.get_train_dataloader()) == 5


@pytest.mark.parametrize("data", [Points(33), Stream(33)], ids=["data", "stream"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_last_batch_of_one_is_left_out_and_said_once(tmp_path, caplog, data, accumulation: int) -> None:
    with caplog.at_level(logging.WARNING):
        trainer = make_trainer(tmp_path, data, max_steps=9, gradient_accumulation_steps=accumulation)
        trainer.train()
    assert trainer.state.global_step == 9
    assert sum("it is left out" in record.message for record in caplog.records) == 1


def test_a_last_batch_of_one_trains_a_network_without_batch_norms(tmp_path, caplog) -> None:
    trainer = make_trainer(tmp_path, Points(33), max_steps=5)
    trainer.model.body[1] = torch.nn.Identity()
    assert len(trainer.get_train_dataloader()) == 5 and not caplog.records
