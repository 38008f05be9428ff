"""Geometry-aware optimizers. Imports torch and the standard library only."""

from .adam_srt import AdamS, AdamSRT
from .alig import AliG
from .fromage import Fromage
from .grassmann import SGDG, AdamG
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
    "Method",
    "Paper",
    "create_optimizer",
    "get_method",
    "list_optimizers",
    "param_groups",
    "register_optimizer",
]
