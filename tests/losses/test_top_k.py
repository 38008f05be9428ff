"""Top-k losses against sums over all sets of k classes in float64, and laws they must obey."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from hf_geo.losses import LOSSES, ClassificationLoss, smooth_top_k_loss, truncated_top_k_loss

TOP_K = {name: loss for name, loss in LOSSES.items() if "top-k" in name}


def over_all_subsets(scores: torch.Tensor, label: int, k: int, temperature: float) -> float:
    """Definition 3 of Berrada et al. 2018, term by term, in Python's floats; extreme scores are shifted first."""
    s, peak = [float(x) for x in scores], float(scores.max())
    every, right = [], []
    for subset in itertools.combinations(range(len(s)), k):
        mean = sum(s[j] - peak for j in subset) / k
        every.append((mean + (label not in subset)) / temperature)
        if label in subset:
            right.append(mean / temperature)
    log_sum = [max(x) + math.log(math.fsum(math.exp(v - max(x)) for v in x)) for x in (every, right)]
    return temperature * (log_sum[0] - log_sum[1])


def lapin(scores: torch.Tensor, label: int, k: int) -> float:
    """Equation (20) of Lapin et al. 2016."""
    margins = sorted(float(s - scores[label]) for j, s in enumerate(scores) if j != label)
    return math.log1p(math.fsum(math.exp(m) for m in margins[: len(margins) - (k - 1)]))


CASES = [
    (classes, k, temperature, scale)
    for (classes, k), (temperature, scale) in zip(
        ((2, 1), (3, 2), (5, 1), (6, 3), (7, 5), (8, 7), (11, 5), (12, 2)),
        ((1.0, 1.0), (0.1, 3.0), (10.0, 1.0), (1.0, 30.0)) * 2,
        strict=True,
    )
]


@pytest.mark.parametrize(("classes", "k", "temperature", "scale"), CASES)
def test_smooth_top_k_is_the_sum_over_all_sets(classes, k, temperature, scale):
    scores = scale * torch.randn(6, classes, dtype=torch.float64)
    labels = torch.randint(classes, (6,))
    expected = [over_all_subsets(s, int(y), k, temperature) for s, y in zip(scores, labels, strict=True)]
    found = smooth_top_k_loss(scores, labels, k, temperature)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    in_single = smooth_top_k_loss(scores.float(), labels, k, temperature)
    torch.testing.assert_close(in_single, found.float(), rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize(("classes", "k"), [(5, 1), (40, 5), (5, 4)])
def test_truncated_top_k_is_lapins(classes, k):
    scores, labels = 3 * torch.randn(6, classes, dtype=torch.float64), torch.randint(classes, (6,))
    expected = torch.tensor([lapin(s, int(y), k) for s, y in zip(scores, labels, strict=True)], dtype=torch.float64)
    torch.testing.assert_close(truncated_top_k_loss(scores, labels, k), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("loss", TOP_K.values(), ids=TOP_K)
@pytest.mark.parametrize(("classes", "k"), [(6, 3), (13, 5)])
def test_gradients_are_those_of_differences(loss, classes, k):
    scores = torch.randn(3, classes, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(classes, (3,))
    assert torch.autograd.gradcheck(lambda s: loss(s, labels, k), (scores,))


def test_truncated_top_1_is_the_cross_entropy():
    scores, labels = torch.randn(8, 10), torch.randint(10, (8,))
    expected = F.cross_entropy(scores, labels, reduction="none")
    torch.testing.assert_close(truncated_top_k_loss(scores, labels, 1), expected)


def test_a_cold_smooth_loss_is_the_hinge():
    """Equation (3) of the paper: the largest mean of k scores, one added where the right class is left out."""
    scores, labels = 2 * torch.randn(40, 9, dtype=torch.float64), torch.randint(9, (40,))
    k, found = 3, smooth_top_k_loss(scores, labels, 3, temperature=1e-4)
    for s, y, loss in zip(scores.tolist(), labels.tolist(), found.tolist(), strict=True):
        others = sorted((v for j, v in enumerate(s) if j != y), reverse=True)
        hinge = max(0.0, (1 + sum(others[:k]) / k) - (s[y] + sum(others[: k - 1])) / k)
        assert loss == pytest.approx(hinge, abs=1e-3)


@pytest.mark.parametrize("loss", TOP_K.values(), ids=TOP_K)
class TestLaws:
    def test_adding_the_same_to_all_scores_changes_nothing(self, loss):
        scores, labels = torch.randn(4, 12, dtype=torch.float64), torch.randint(12, (4,))
        torch.testing.assert_close(loss(scores + 1e3, labels), loss(scores, labels), rtol=1e-9, atol=1e-11)

    def test_it_is_near_zero_where_the_right_class_is_clearly_among_the_best(self, loss):
        scores = torch.tensor([[100.0, 99.0, 98.0, 97.0, 96.0, *[0.0] * 20]])
        for label in range(5):
            assert loss(scores, torch.tensor([label]), k=5).item() < 1e-3
        assert loss(scores, torch.tensor([5]), k=5).item() > 10

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_nothing_overflows(self, loss, dtype):
        for scale in (1e-3, 1e2, 1e4, 1e8, 1e30):
            scores = (scale * torch.randn(16, 1000, dtype=dtype)).requires_grad_()
            losses = loss(scores, torch.randint(1000, (16,)))
            losses.sum().backward()
            assert losses.isfinite().all() and (losses >= 0).all() and scores.grad.isfinite().all()
            sums = scores.grad.sum(1).abs()  # a common shift changes nothing
            assert (sums < 1e-2).all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_computed_in_single(self, loss, dtype):
        scores, labels = (10 * torch.randn(4, 50)).to(dtype).requires_grad_(), torch.randint(50, (4,))
        losses = loss(scores, labels)
        assert losses.dtype == torch.float32
        assert torch.equal(losses, loss(scores.float(), labels))
        losses.sum().backward()
        assert scores.grad.dtype == dtype and scores.grad.isfinite().all()

    def test_too_few_classes_are_refused(self, loss):
        for classes, k in ((5, 5), (4, 5), (1, 1), (10, 0)):
            message = rf"A top-{k} loss needs more than {k} classes.*there are {classes} classes"
            with pytest.raises(ValueError, match=message):
                loss(torch.randn(2, classes), torch.zeros(2, dtype=torch.long), k)

    def test_in_the_trainers_form_micro_batches_add_up(self, loss):
        scores, labels = torch.randn(8, 12), torch.randint(12, (8,))
        computed = ClassificationLoss(loss, k=3)
        whole = computed({"logits": scores}, labels)
        torch.testing.assert_close(whole, loss(scores, labels, k=3).mean())
        parts = [computed({"logits": scores[p]}, labels[p], num_items_in_batch=8) for p in (slice(0, 5), slice(5, 8))]
        torch.testing.assert_close(sum(parts), whole)


def test_a_temperature_is_positive():
    for temperature in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="must be positive"):
            smooth_top_k_loss(torch.randn(2, 8), torch.zeros(2, dtype=torch.long), 3, temperature)
