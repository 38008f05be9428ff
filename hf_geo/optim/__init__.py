"""Geometry-aware optimizers. Imports torch and the standard library only."""

from .adam_srt import AdamS, AdamSRT
from .alig import AliG
from .create import create_optimizer
from .fromage import Fromage
from .grassmann import SGDG, AdamG
from .invariance import Invariance, first_samples, measure_invariance, scale_invariant_parameters
from .param_groups import geometry_weights, param_groups
from .registry import Method, Paper, get_method, list_optimizers, register_optimizer
from .sgd_mrt import SGDMRT

__all__ = [
    "SGDG",
    "SGDMRT",
    "AdamG",
    "AdamS",
    "AdamSRT",
    "AliG",
    "Fromage",
    "Invariance",
    "Method",
    "Paper",
    "create_optimizer",
    "first_samples",
    "geometry_weights",
    "get_method",
    "list_optimizers",
    "measure_invariance",
    "param_groups",
    "register_optimizer",
    "scale_invariant_parameters",
]
