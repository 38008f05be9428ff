"""Perplexity: the metric, and what the Trainer keeps of a batch's logits."""

import math

import numpy as np
import pytest
import torch

from hf_geo.metrics import Perplexity, nll_per_row


def test_value() -> None:
    found = Perplexity().compute(nll=[2.0, 7.0], tokens=[1, 8])
    assert found == {"perplexity": pytest.approx(math.e), "loss": pytest.approx(1.0), "tokens": 9}
    assert all(type(value) in (float, int) for value in found.values())


def test_beyond_the_largest_float() -> None:
    assert Perplexity().compute(nll=[1e4], tokens=[1])["perplexity"] == math.inf
    assert math.isnan(Perplexity().compute(nll=[math.nan], tokens=[1])["perplexity"])


def test_of_no_tokens() -> None:
    for pieces in ([], [0], [0, 0]):
        with pytest.raises(ValueError, match="perplexity of no tokens"):
            Perplexity()._compute(nll=np.zeros(len(pieces)), tokens=np.array(pieces, dtype=np.int64))


@pytest.mark.parametrize(("dtype", "wrapped"), [(torch.float32, True), (torch.bfloat16, False)])
def test_rows(dtype: torch.dtype, wrapped: bool) -> None:
    logits = torch.randn(3, 6, 9).to(dtype)
    labels = torch.randint(9, (3, 6))
    labels[:, 0] = labels[1, 4:] = -100
    labels[2] = -100
    rows = nll_per_row((logits, None) if wrapped else logits, labels)

    probabilities = logits.double().softmax(-1).numpy()
    for row in range(3):
        scored = [place for place in range(1, 6) if labels[row, place] >= 0]
        nll = -sum(math.log(probabilities[row, place - 1, labels[row, place]]) for place in scored)
        assert rows[row].tolist() == [pytest.approx(nll, rel=1e-5), len(scored)]
