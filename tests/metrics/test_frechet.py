"""The Fréchet distance against closed forms, another formula and torch-fidelity, and what it is called."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from transformers import EvalPrediction

from hf_geo.metrics.frechet import frechet_distance
from hf_geo.metrics.generation import ImageComparison

RNG = np.random.default_rng(0)
MIXED = RNG.normal(size=(5, 5))
SETS = {  # features, others
    "full": (RNG.normal(size=(300, 5)) @ MIXED, RNG.normal(size=(200, 5)) + 1),
    "one feature": (RNG.normal(size=(50, 1)), 3 * RNG.normal(size=(60, 1))),
    "float32": (RNG.normal(size=(90, 4)).astype(np.float32), RNG.normal(size=(80, 4)).astype(np.float32)),
}


@pytest.mark.parametrize("name", SETS)
def test_it_is_that_of_another_formula_and_of_torch_fidelity(name: str) -> None:
    a, b = (x.astype(np.float64) for x in SETS[name])
    covariances = [np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b)]
    root = sqrtm(covariances[0] @ covariances[1]).real
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(covariances[0] + covariances[1] - 2 * root)
    found = frechet_distance(*SETS[name])
    assert found == pytest.approx(expected, rel=1e-6)
    if a.shape[1] > 1:
        statistics = [fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
        theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
        assert found == pytest.approx(theirs, rel=1e-6)


def test_closed_forms() -> None:
    x = RNG.normal(size=(40, 6))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, x + np.arange(6)) == pytest.approx(55)  # a shift alone
    trace = np.trace(np.cov(x, rowvar=False))
    centred = x - x.mean(0)
    assert frechet_distance(centred, 3 * centred) == pytest.approx(4 * trace)  # (3 - 1)^2 times the variances
    few = RNG.normal(size=(4, 6))  # a singular covariance
    assert frechet_distance(few, few + 1) == pytest.approx(6)
    assert frechet_distance(few, x) == pytest.approx(frechet_distance(x, few), rel=1e-6)


def test_sets_without_a_covariance() -> None:
    with pytest.raises(ValueError, match="A covariance needs two images, and there are 1 and 4"):
        frechet_distance(np.zeros((1, 3)), np.zeros((4, 3)))
    assert np.isnan(frechet_distance(np.full((4, 3), np.nan), np.zeros((4, 3))))


def network(is_inception: bool = False, dim: int = 12) -> SimpleNamespace:
    def compute(images: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.uint8
        return images.flatten(1).float()

    return SimpleNamespace(name="a test", dim=dim, is_inception=is_inception, compute=compute)


@pytest.mark.parametrize("is_inception", (False, True))
def test_only_in_inceptions_features_it_is_called_fid(is_inception: bool) -> None:
    comparison = ImageComparison(network(is_inception))
    images = torch.rand(20, 3, 2, 2) * 2 - 1
    sets = comparison.features_of((images.bfloat16(), images))
    found = comparison.metrics(EvalPrediction(predictions=tuple(x.numpy() for x in sets), label_ids=None))
    assert ("fid" in found) == is_inception == comparison.description.startswith("FID in the features of a test")
    same = comparison.metrics(EvalPrediction(predictions=(sets[1].numpy(),) * 2, label_ids=None))
    assert (same["precision"], same["recall"], same["samples"]) == (1, 1, 20)
    assert same["frechet_distance"] == pytest.approx(0, abs=1e-6) and found["frechet_distance"] > 0


def test_pixels_are_rounded_and_stretched_as_the_paper_did() -> None:
    images = torch.tensor([-0.5, 0.0, 0.5, 1.5]).view(1, 1, 2, 2)
    plain, real = ImageComparison(network()).features_of((images, images))
    assert plain.tolist() == real.tolist() == [[64, 128, 191, 255]]
    stretched, real = ImageComparison(network(), stretch=True).features_of((images, images))
    assert stretched.tolist() == [[0, 64, 128, 255]] and real.tolist() == plain.tolist()


def test_too_few_images(caplog) -> None:
    comparison = ImageComparison(network(dim=12))
    with pytest.raises(ValueError, match="The eval split has one image"):
        comparison.check({"eval": 1})
    comparison.check({"eval": 13})
    assert not caplog.records
    comparison.check({"test": 12})
    assert (
        "The 12 images of the test split are no more than the 12 features of a test: their covariance is singular"
        in caplog.text
    )
