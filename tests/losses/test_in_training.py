"""A top-k loss inside the Trainer, and what `scripts/train.py` says where it cannot be."""

import pytest
import torch

from hf_geo import GeoTrainer, GeoTrainingArguments
from hf_geo.losses import LOSSES, ClassificationLoss, crammer_singer_loss
from tests.scripts import script
from tests.training.problems import Points, flat, make_problem


def settings(loss) -> dict[str, int]:
    return {} if loss is crammer_singer_loss else {"k": 2}


def trained(folder, loss, batch: int, accumulation: int) -> GeoTrainer:
    model, _ = make_problem("points")
    args = GeoTrainingArguments(
        str(folder), optim="sgd", learning_rate=0.1, max_grad_norm=0, per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation, max_steps=4, save_strategy="no", disable_tqdm=True,
        lr_scheduler_type="constant", train_sampling_strategy="sequential",
    )  # fmt: skip
    trainer = GeoTrainer(
        model,
        args,
        train_dataset=Points(),
        eval_dataset=Points(),
        compute_loss_func=ClassificationLoss(loss, **settings(loss)),
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_it_is_minimized_alike_however_an_update_is_divided(tmp_path, loss) -> None:
    whole, divided = trained(tmp_path, loss, 8, 1), trained(tmp_path, loss, 2, 4)
    torch.testing.assert_close(flat(whole.model), flat(divided.model), rtol=1e-10, atol=1e-12)

    weights, (model, _), points = whole.model.state_dict(), make_problem("points"), Points()
    for start in range(0, 32, 8):  # the same by hand
        logits = model(points.x[start : start + 8])["logits"]
        gradients = torch.autograd.grad(
            loss(logits, points.labels[start : start + 8], **settings(loss)).mean(), list(model.parameters())
        )
        with torch.no_grad():
            for p, g in zip(model.parameters(), gradients, strict=True):
                p.sub_(0.1 * g)
    torch.testing.assert_close(flat(model), flat(whole.model), rtol=1e-10, atol=1e-12)
    model.load_state_dict(weights)
    expected = loss(model(points.x)["logits"], points.labels, **settings(loss)).mean().item()
    assert whole.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-6)


WRONG = {
    ("--dataset", "digits", "--top_k", "10"): "A top-10 loss needs more than 10 classes",
    ("--dataset", "digits", "--label_smoothing_factor", "0.1"): "--label_smoothing_factor is for the cross-entropy",
    ("--dataset", "docs", "--model", "word_transformer"): "--loss truncated-top-k is for image classifiers",
}


def test_what_it_cannot_do_is_said(tmp_path, capsys) -> None:
    common = ("--model", "test_resnet", "--loss", "truncated-top-k", "--output_dir", tmp_path / "run")
    for words, message in WRONG.items():
        with pytest.raises(SystemExit) as raised:
            script("train")([*common, *words])
        assert raised.value.code == 2 and message in capsys.readouterr().err
