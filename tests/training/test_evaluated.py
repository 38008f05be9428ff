"""What an evaluation measures is what is saved, and it reads every sample; what cannot be trained on is refused or said."""

import logging

import pytest
import torch

from hf_geo import SubspaceConfig
from tests.training.problems import Normalized, Points, Stream, loss_of, make_trainer

SGD = {"use_cpu": True, "optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "linear"}


def test_processes_that_do_not_know_of_each_other_are_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")  # alone, as without accelerate's variable
    with pytest.raises(ValueError, match=r"2 processes were started, but each would train alone .* ACCELERATE_USE_CPU"):
        make_trainer(tmp_path)


KEPT = [
    ("fp16_full_eval", {}, None),
    ("bf16_full_eval", {"ema_decay": 0.5}, None),
    ("bf16_full_eval", {}, SubspaceConfig()),
]


@pytest.mark.parametrize(("option", "settings", "subspace"), KEPT)
def test_an_evaluation_in_half_precision_rounds_no_weight(tmp_path, option, settings, subspace) -> None:
    trainer = make_trainer(tmp_path, Normalized(), subspace=subspace, max_steps=3, **SGD, **{option: True}, **settings)
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
    settings = {"dataloader_drop_last": True, "per_device_eval_batch_size": 16}
    trainer = make_trainer(tmp_path, Normalized(), data=Points(size), **settings)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(loss_of(trainer.model), abs=1e-9)
    assert len(trainer.get_train_dataloader()) == 5


@pytest.mark.parametrize("data", [Points(33), Stream(33)], ids=["data", "stream"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_last_batch_of_one_is_left_out_and_said_once(tmp_path, caplog, data, accumulation: int) -> None:
    with caplog.at_level(logging.WARNING):
        trainer = make_trainer(tmp_path, Normalized(), data=data, max_steps=9, gradient_accumulation_steps=accumulation)
        trainer.train()
    assert trainer.state.global_step == 9
    assert sum("it is left out" in record.message for record in caplog.records) == 1


def test_a_last_batch_of_one_trains_a_network_without_batch_norms(tmp_path, caplog) -> None:
    trainer = make_trainer(tmp_path, data=Points(33), max_steps=5)
    assert len(trainer.get_train_dataloader()) == 5 and not caplog.records
