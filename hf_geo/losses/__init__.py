"""Losses the papers trained with and torch lacks. They run on torch alone."""

from .choice import LOSSES, ClassificationLoss, make_loss
from .hinge import crammer_singer_loss
from .top_k import check_top_k, smooth_top_k_loss, truncated_top_k_loss

__all__ = [
    "LOSSES",
    "ClassificationLoss",
    "check_top_k",
    "crammer_singer_loss",
    "make_loss",
    "smooth_top_k_loss",
    "truncated_top_k_loss",
]
