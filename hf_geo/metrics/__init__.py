"""Metrics that need no network."""

from .classification import Accuracy, CrossEntropy, image_classification_metrics

__all__ = ["Accuracy", "CrossEntropy", "image_classification_metrics"]
