"""Evaluation along a subspace: norm statistics (`recalibrate_norms`), walks and figures."""

from .norms import recalibrate_norms

__all__ = ["recalibrate_norms"]
