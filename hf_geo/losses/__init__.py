"""Losses the papers trained with and torch lacks. They run on torch alone."""

from .top_k import LOSSES, ClassificationLoss, check_top_k, smooth_top_k_loss, truncated_top_k_loss

__all__ = ["LOSSES", "ClassificationLoss", "check_top_k", "smooth_top_k_loss", "truncated_top_k_loss"]
