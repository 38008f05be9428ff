"""Metrics that need no network."""

from .classification import (
    Accuracy,
    CrossEntropy,
    image_classification_metrics,
    score_samples,
    score_with_confidence,
    text_classification_metrics,
)
from .directions import METRICS, Metric, find_metric, higher_is_better, is_quality, is_share, main_metric
from .perplexity import Perplexity, language_metrics, nll_per_row

__all__ = [
    "METRICS",
    "Accuracy",
    "CrossEntropy",
    "Metric",
    "Perplexity",
    "find_metric",
    "higher_is_better",
    "image_classification_metrics",
    "is_quality",
    "is_share",
    "language_metrics",
    "main_metric",
    "nll_per_row",
    "score_samples",
    "score_with_confidence",
    "text_classification_metrics",
]
