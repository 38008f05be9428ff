"""The Fréchet distance between the features of two sets of images (Heusel et al. 2017, arXiv 1706.08500)."""

import numpy as np
import torch


def frechet_distance(features: np.ndarray, others: np.ndarray) -> float:
    """The squared Fréchet distance of the normal distributions with the features' means and covariances.

        |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))

    In the features of Inception it is the Fréchet inception distance, FID. Covariances are unbiased, over N - 1. It is
    computed in float64 with trace (S1 S2)^(1/2) = trace (R S2 R)^(1/2), where R is the symmetric root of S1: eigenvalues of
    symmetric matrices alone, real and not negative, also where a covariance is singular.

    Args:
        features: (N, D).
        others: (M, D).

    Returns:
        The distance; NaN where a feature is not finite.

    Raises:
        ValueError: A set has fewer than two images.
    """
    first, second = (torch.from_numpy(np.asarray(x)).double() for x in (features, others))
    if min(len(first), len(second)) < 2:
        raise ValueError(f"A covariance needs two images, and there are {len(first)} and {len(second)}.")
    if not (first.isfinite().all() and second.isfinite().all()):
        return float("nan")
    root = symmetric_root(_covariance(first))
    middle = root @ _covariance(second) @ root
    shift = (first.mean(0) - second.mean(0)).square().sum()
    traces = first.var(0).sum() + second.var(0).sum()
    return float(shift + traces - 2 * torch.linalg.eigvalsh(middle).clamp(min=0).sqrt().sum())


def symmetric_root(matrix: torch.Tensor) -> torch.Tensor:
    """The symmetric square root of a symmetric matrix without negative eigenvalues (D, D)."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _covariance(features: torch.Tensor) -> torch.Tensor:
    return torch.atleast_2d(torch.cov(features.T))
