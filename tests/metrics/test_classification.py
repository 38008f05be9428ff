"""Accuracy and cross-entropy against scikit-learn, and as `evaluate` metrics that need no network and no folder."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from transformers import EvalPrediction

from hf_geo import GeoTrainer, GeoTrainingArguments
from hf_geo.metrics import Accuracy, CrossEntropy, Perplexity, image_classification_metrics, score_samples
from tests.models.tiny import resnet


def measure(logits: torch.Tensor, truth: torch.Tensor, batch: int = 64) -> dict[str, float]:
    """As the Trainer does: batch by batch, of which it keeps what `score_samples` returns."""
    parts = zip(logits.split(batch), truth.split(batch), strict=True)
    kept = zip(*(score_samples(*part) for part in parts), strict=True)
    return image_classification_metrics(EvalPrediction(tuple(torch.cat(k).numpy() for k in kept), truth.numpy()))


@pytest.mark.parametrize(("n", "classes"), [(1, 2), (500, 10)])
def test_against_scikit_learn(n, classes):
    rng = np.random.default_rng(n)
    logits, truth = 3 * rng.standard_normal((n, classes)), rng.integers(classes, size=n)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    measured = measure(torch.from_numpy(logits).float(), torch.from_numpy(truth))
    assert measured["accuracy"] == accuracy_score(truth, logits.argmax(1))
    assert measured["loss"] == pytest.approx(log_loss(truth, probabilities, labels=range(classes)), rel=1e-6)
    assert {name: type(value) for name, value in measured.items()} == {"accuracy": float, "loss": float, "samples": int}
    assert measured["samples"] == n


def test_large_logits_overflow_nothing():
    found = measure(torch.tensor([[1e4, 0.0], [1e4, 0.0]]), torch.tensor([0, 1]))
    assert found == {"samples": 2, "accuracy": 0.5, "loss": 5e3}


def test_what_an_evaluation_keeps_does_not_grow_with_the_classes(tmp_path):
    data = [{"pixel_values": torch.randn(3, 8, 8), "labels": i} for i in range(6)]
    trainer = GeoTrainer(
        resnet(num_labels=1000),
        GeoTrainingArguments(str(tmp_path), use_cpu=True, per_device_eval_batch_size=4, report_to="none"),
        compute_metrics=image_classification_metrics,
        preprocess_logits_for_metrics=score_samples,
    )
    found = trainer.predict(data)
    assert [kept.shape for kept in found.predictions] == [(6,), (6,)]
    with torch.no_grad():
        logits = trainer.model.eval()(torch.stack([sample["pixel_values"] for sample in data])).logits
    assert found.metrics["test_loss"] == pytest.approx(-logits.log_softmax(-1).diagonal().mean().item(), rel=1e-5)


@pytest.mark.parametrize("make", [Accuracy, CrossEntropy, Perplexity])
def test_a_cache_that_cannot_be_written_does_not_matter(make, monkeypatch):
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", "/dev/null/cache")
    metric = make()
    metric.add_batch(**{name: [1] for name in metric.features})
    assert metric.compute()


def test_no_file_that_two_processes_could_share_unless_asked_for(tmp_path):
    files = []
    for options in ({}, {"keep_in_memory": False}):
        metric = Accuracy(cache_dir=str(tmp_path), **options)
        metric.add_batch(predictions=[1, 2], references=[1, 1])
        files.append([path for path in tmp_path.rglob("*") if path.is_file()])
        assert metric.compute() == {"accuracy": 0.5}
    assert not files[0]
    assert files[1]
