"""Metrics that need no network."""

from .classification import Accuracy, CrossEntropy, compute_metrics

__all__ = ["Accuracy", "CrossEntropy", "compute_metrics"]
