"""A checkpoint that does not fit is refused; weights with other names on the Hub come back whole."""

from pathlib import Path

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

from hf_geo import GeoTrainer, GeoTrainingArguments
from tests.training.problems import Classifier, flat, make_trainer


def train(folder: Path, model: torch.nn.Module | None = None, checkpoint: str | None = None, **settings) -> None:
    defaults = {"optim": "fromage", "optim_args": "p_bound=2.0", "save_strategy": "steps", "save_steps": 2}
    make_trainer(folder, model, **(defaults | settings)).train(resume_from_checkpoint=checkpoint)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("run")
    train(folder)
    return str(folder / "checkpoint-2")


def wider() -> torch.nn.Module:
    model = Classifier().double()
    model.outer = torch.nn.Linear(16, 4).double()
    return model


def deeper() -> torch.nn.Module:
    model = Classifier().double()
    model.extra = torch.nn.Linear(2, 2).double()
    return model


UNFIT = [
    ({"optim": "sgd", "optim_args": None}, "2 parameter groups|1 parameter groups"),
    ({"optim": "alig", "optim_args": None}, "another optimizer than this run's AliG.*p_bound.*max_norm"),
    ({"optim_args": "p_bound=3.0"}, r"p_bound=2.0 .* this run asks for p_bound=3.0"),
    ({"model": wider}, r"'outer.bias' has shape \(3,\) there and \(4,\) in this run"),
    ({"model": deeper}, "'extra.bias' is not in the checkpoint"),
]


@pytest.mark.parametrize(("change", "message"), UNFIT)
def test_unfit_checkpoint_is_refused(checkpoint, tmp_path, change: dict, message: str) -> None:
    change = {key: value() if callable(value) else value for key, value in change.items()}
    with pytest.raises(ValueError, match=message):
        train(tmp_path / "new", checkpoint=checkpoint, **change)
    assert not list(tmp_path.glob("new/*"))


def train_vit(folder: Path, checkpoint: str | None = None, **settings) -> torch.Tensor:
    """A model of transformers whose weights have other names on the Hub than in memory."""
    torch.manual_seed(0)
    model = ViTForImageClassification(
        ViTConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=8, patch_size=4
        )
    )
    images = torch.randn(16, 3, 8, 8)
    data = [{"pixel_values": image, "labels": i % 2} for i, image in enumerate(images)]
    options = {"max_steps": 4, "save_steps": 2, "optim": "fromage", "logging_strategy": "no", "disable_tqdm": True}
    args = GeoTrainingArguments(output_dir=str(folder), **options, **settings)
    GeoTrainer(model, args, train_dataset=data, eval_dataset=data).train(resume_from_checkpoint=checkpoint)
    return flat(model)


def test_renamed_weights_are_resumed_too(tmp_path) -> None:
    unbroken = train_vit(tmp_path / "run")
    assert torch.equal(train_vit(tmp_path / "resumed", str(tmp_path / "run" / "checkpoint-2")), unbroken)
    opened = ViTForImageClassification.from_pretrained(tmp_path / "run" / "checkpoint-4")
    assert torch.equal(flat(opened), unbroken)


def test_the_best_checkpoint_is_loaded_whole(tmp_path) -> None:
    # By the largest loss, which is the earlier one.
    every = {"eval_strategy": "steps", "eval_steps": 2}
    best = train_vit(tmp_path, load_best_model_at_end=True, greater_is_better=True, **every)
    saved = [ViTForImageClassification.from_pretrained(tmp_path / f"checkpoint-{step}") for step in (2, 4)]
    assert torch.equal(flat(saved[0]), best) and not torch.equal(flat(saved[1]), best)


def test_training_may_go_on(tmp_path) -> None:
    """`train` twice in one process, as in a notebook."""
    trainer = make_trainer(tmp_path, optim="fromage", max_steps=2, milestones=[1])
    trainer.train()
    once, schedule = flat(trainer.model), trainer.lr_scheduler
    trainer.train()
    assert not torch.equal(flat(trainer.model), once) and trainer.lr_scheduler is not schedule
