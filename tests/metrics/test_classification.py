"""Accuracy and cross-entropy against scikit-learn, and as `evaluate` metrics that need no network and no files."""

import evaluate
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss
from transformers import EvalPrediction

from hf_geo.metrics import Accuracy, CrossEntropy, image_classification_metrics


def predictions(n: int, classes: int, scale: float = 3.0) -> EvalPrediction:
    rng = np.random.default_rng(n)
    return EvalPrediction((scale * rng.standard_normal((n, classes))).astype(np.float32), rng.integers(classes, size=n))


@pytest.mark.parametrize(("n", "classes"), [(1, 2), (7, 3), (500, 10), (2000, 100)])
def test_against_scikit_learn(n, classes):
    logits, truth = (given := predictions(n, classes)).predictions.astype(np.float64), given.label_ids
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    measured = image_classification_metrics(given)
    assert measured["accuracy"] == accuracy_score(truth, logits.argmax(1))
    assert measured["loss"] == pytest.approx(log_loss(truth, probabilities, labels=range(classes)), rel=1e-9)
    assert {type(v) for v in measured.values()} == {float}


def test_large_logits_overflow_nothing():
    measured = image_classification_metrics(
        EvalPrediction(np.array([[1e4, 0.0], [1e4, 0.0]], np.float32), np.array([0, 1]))
    )
    assert measured == {"accuracy": 0.5, "loss": 5e3}


def test_batches_give_what_the_whole_gives():
    truth, guesses = np.random.default_rng(0).integers(5, size=(2, 100))
    whole, batched = Accuracy(), Accuracy()
    for part in np.array_split(np.arange(100), 7):
        batched.add_batch(predictions=guesses[part], references=truth[part])
    assert (
        batched.compute()
        == whole.compute(predictions=guesses, references=truth)
        == {"accuracy": np.mean(truth == guesses)}
    )
    loss = CrossEntropy()
    for value in (-1.0, -2.5):
        loss.add(prediction=value)
    loss.add_batch(predictions=[-3.0])
    assert loss.compute() == {"loss": pytest.approx(6.5 / 3)}


def test_combines_with_other_metrics():
    class Errors(Accuracy):
        def _compute(self, predictions, references):
            return {"errors": int((predictions != references).sum())}

    both = evaluate.combine([Accuracy(), Errors()])
    assert both.compute(predictions=[1, 2, 3, 3], references=[1, 2, 3, 4]) == {"accuracy": 0.75, "errors": 1}


def test_no_file_that_two_processes_could_share_unless_asked_for(tmp_path):
    files = []
    for options in ({}, {"keep_in_memory": False}):
        metric = Accuracy(cache_dir=str(tmp_path), **options)
        metric.add_batch(predictions=[1, 2], references=[1, 1])
        files.append([path for path in tmp_path.rglob("*") if path.is_file()])
        assert metric.compute() == {"accuracy": 0.5}
    assert not files[0]
    assert files[1]


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="Mismatch in the number"):
        Accuracy().compute(predictions=[1, 2], references=[1])
