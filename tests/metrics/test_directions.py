"""Which way metrics are better, and that choosing the best checkpoint follows it."""

import pytest

from hf_geo import GeoTrainingArguments
from hf_geo.metrics import METRICS, Metric, higher_is_better, is_quality, is_share

HIGHER = ["accuracy", "eval_accuracy", "eval_f1", "test_macro_f1", "eval_top5_accuracy", "eval_cifar10_accuracy", "train_samples_per_second"]  # fmt: skip
LOWER = ["loss", "train_loss", "eval_perplexity", "test_ece", "nll", "eval_accuracy_loss", "train_runtime"]


def test_directions() -> None:
    assert [name for name in (*HIGHER, *LOWER) if higher_is_better(name)] == HIGHER
    assert is_share("eval_f1") and not is_share("eval_loss") and not is_share("eval_glory")
    assert is_quality("eval_loss") and not is_quality("eval_runtime") and not is_quality("epoch")


def test_an_unknown_metric_is_refused() -> None:
    for name, hint in (("eval_glory", ""), ("f1ness", ""), ("", ""), ("eval_perplexty", ". Did you mean 'perplexity'")):
        with pytest.raises(ValueError, match=f"not known whether a high or a low '{name}' is better{hint}"):
            higher_is_better(name)


def test_a_task_adds_its_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "glory", Metric(higher_is_better=True))
    assert higher_is_better("eval_glory")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"metric_for_best_model": "perplexity"}, False),
        ({"metric_for_best_model": "eval_accuracy"}, True),
        ({"metric_for_best_model": "glory"}, True),  # transformers' own rule
        ({"metric_for_best_model": "perplexity", "greater_is_better": True}, True),
        ({}, None),
    ],
)
def test_the_best_checkpoint_is_chosen_by_the_metrics_direction(given, expected, tmp_path) -> None:
    args = GeoTrainingArguments(output_dir=str(tmp_path), optim="sgd", learning_rate=0.1, report_to="none", **given)
    assert args.greater_is_better is expected
