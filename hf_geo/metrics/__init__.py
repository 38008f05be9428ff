"""Metrics that need no network."""

from .classification import Accuracy, CrossEntropy, image_classification_metrics, score_samples
from .perplexity import Perplexity, language_metrics, nll_per_row

__all__ = [
    "Accuracy",
    "CrossEntropy",
    "Perplexity",
    "image_classification_metrics",
    "language_metrics",
    "nll_per_row",
    "score_samples",
]
