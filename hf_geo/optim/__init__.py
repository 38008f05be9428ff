"""Geometry-aware optimizers. Imports torch and the standard library only."""

from .adam_srt import AdamS, AdamSRT
from .alig import AliG
from .fromage import Fromage
from .geometry import geometry_weights
from .grassmann import SGDG, AdamG
from .invariance import Invariance, measure_invariance, scale_invariant_parameters
from .param_groups import create_optimizer, param_groups
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
    "geometry_weights",
    "get_method",
    "list_optimizers",
    "measure_invariance",
    "param_groups",
    "register_optimizer",
    "scale_invariant_parameters",
]
