"""What is evaluated is the network that is saved, with its own precision, on every sample; what cannot be is refused or said."""

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_geo import GeoTrainer, GeoTrainingArguments, SubspaceConfig
from hf_geo.training.averaging import AVERAGED
from tests.training.launching import launch_or_fail
from tests.training.problems import Normalized, Points
from tests.training.run_evaluated import ROWS, SIZES, Stream

SCRIPT = Path(__file__).with_name("run_evaluated.py")


def make_trainer(folder: Path, data, subspace: SubspaceConfig | None = None, **settings) -> GeoTrainer:
    defaults = {"optim": "sgd", "learning_rate": 0.1, "save_strategy": "no", "disable_tqdm": True, "use_cpu": True}
    args = GeoTrainingArguments(output_dir=str(folder), **(defaults | settings))
    return GeoTrainer(Normalized(), args, train_dataset=data, eval_dataset=Points(), subspace=subspace)


def loss_of(model: torch.nn.Module) -> float:
    """The mean loss over all points."""
    batch = torch.utils.data.default_collate([Points()[i] for i in range(len(Points()))])
    with torch.no_grad():
        return model.eval()(**batch)["loss"].item()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("evaluated")
    launch_or_fail(SCRIPT, folder, processes=2)
    return folder, json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("row", ROWS)
def test_two_processes_report_the_network_that_is_saved(two_processes, row: str) -> None:
    folder, found = two_processes
    for step, printed in enumerate(found[row], start=1):
        model, checkpoint = Normalized(), folder / row / f"checkpoint-{step}"
        model.load_state_dict(load_file(checkpoint / "model.safetensors"))
        if row == "ema":  # norm statistics are taken anew for the average, and not saved with the weights
            assert (checkpoint / AVERAGED).is_file() and printed == pytest.approx(loss_of(model), abs=0.5)
        else:
            assert printed == pytest.approx(loss_of(model), abs=1e-9)


def test_machines_are_told_before_training_that_their_disks_do_not_fit(two_processes) -> None:
    own, shared = two_processes[1]["refusals"]
    assert "do not share the disk" in own and "add --save_on_each_node true" in own
    assert "share the disk" in shared and "leave out --save_on_each_node" in shared


@pytest.mark.parametrize("batch_norms", [False, True])
@pytest.mark.parametrize("data", ["Points", "Stream"])
@pytest.mark.parametrize("size", SIZES)
def test_each_sample_counts_once_in_an_epoch_of_two_processes(
    two_processes, size: int, data: str, batch_norms: bool
) -> None:
    ranks = two_processes[1]["epochs"][f"{size} {data} {batch_norms}"]
    assert len(ranks[0]) == len(ranks[1])  # or one process would wait for the other for ever
    counted = sum(count for rank in ranks for _, count in rank)
    if batch_norms:
        assert all(samples > 1 for rank in ranks for samples, _ in rank)
        assert 0 <= size - counted <= 2  # at most the single samples of the processes
    else:
        assert counted == size


def test_buffers_of_every_kind_become_the_first_processs(two_processes) -> None:
    assert two_processes[1]["odd buffers"] == [True, True]


def test_processes_that_do_not_know_of_each_other_are_refused(tmp_path, monkeypatch) -> None:
    args = GeoTrainingArguments(output_dir=str(tmp_path), use_cpu=True)  # alone, as without accelerate's variable
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"2 processes were started, but each would train alone .* ACCELERATE_USE_CPU"):
        GeoTrainer(Normalized(), args, train_dataset=Points())


KEPT = [
    ("bf16_full_eval", {}, None),
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
