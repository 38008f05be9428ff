"""ALI-G's `lower_bound=auto`: the least loss under label smoothing."""

import math

import pytest
import torch
from transformers.trainer_pt_utils import LabelSmoother

from hf_geo.training.loss import smoothing_floor
from tests.training.test_libraries import Network, make

SMOOTHED = {"label_smoothing_factor": 0.1, "optim": "alig", "save_strategy": "no", "lr_scheduler_type": "constant"}


@pytest.mark.parametrize(("factor", "classes"), [(0.1, 10), (0.5, 2), (1.0, 3), (0.01, 4)])
def test_the_floor_is_what_transformers_loss_comes_to(factor: float, classes: int) -> None:
    labels = torch.arange(classes)
    right = torch.nn.functional.one_hot(labels, classes).double()
    logits = ((1 - factor) * right + factor / classes).log()
    least = LabelSmoother(factor)({"logits": logits}, labels)
    assert smoothing_floor(factor, classes) == pytest.approx(float(least), abs=1e-6)
    worse = LabelSmoother(factor)({"logits": logits + 0.1 * torch.randn(logits.shape)}, labels)
    assert float(worse) > smoothing_floor(factor, classes)


def test_auto_counts_the_classes_that_the_model_scores(tmp_path) -> None:
    trainer = make(tmp_path, Network(), optim_args="lower_bound=auto", **SMOOTHED)
    group = trainer.create_optimizer().param_groups[0]
    assert group["lower_bound"] == smoothing_floor(0.1, 10) and trainer.model.training
    with pytest.raises(ValueError, match="lower_bound=auto is the least loss under label smoothing"):
        make(tmp_path, Network(), optim="alig", optim_args="lower_bound=auto").create_optimizer()
    given = make(tmp_path, Network(), optim="alig", optim_args="lower_bound=-0.5").create_optimizer()
    assert given.param_groups[0]["lower_bound"] == -0.5


@pytest.mark.slow
def test_smoothed_digits_are_fitted_only_with_the_floor(tmp_path) -> None:
    """Without a bound on the step, ALI-G with lower bound 0 takes steps at the minimum that lead away from it."""
    excess = {}
    for bound in ("auto", "0"):
        trainer = make(
            tmp_path, Network(matrices=True), optim_args=f"momentum=0,lower_bound={bound}", learning_rate=math.inf,
            max_steps=150, logging_steps=50, warmup_steps=0, per_device_train_batch_size=100, **SMOOTHED,
        )  # fmt: skip
        trainer.train_dataset = trainer.train_dataset[:100]
        trainer.train()
        last = [row["loss"] for row in trainer.state.log_history if "loss" in row][-1]
        excess[bound] = last - smoothing_floor(0.1, 10)
    assert 0 < excess["auto"] < 0.1 and excess["0"] > 0.5
