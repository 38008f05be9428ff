"""Evaluation along a subspace: norm statistics (`recalibrate_norms`), and in modules of their own walks and figures."""

from .norms import recalibrate_norms

__all__ = ["recalibrate_norms"]
