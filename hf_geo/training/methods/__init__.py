"""The optimizers that `--optim` may name besides transformers' own, and their `--optim_args`."""

from .libraries import library_method, library_names
from .names import SHORT_NAMES, find_method, known_methods, nearest_names
from .settings import (
    apply_module_settings,
    check_parameters,
    parse_optim_args,
    parse_value,
    refuse_adam_flags,
    refuse_unknown_modules,
    split_module_settings,
)

__all__ = [
    "SHORT_NAMES",
    "apply_module_settings",
    "check_parameters",
    "find_method",
    "known_methods",
    "library_method",
    "library_names",
    "nearest_names",
    "parse_optim_args",
    "parse_value",
    "refuse_adam_flags",
    "refuse_unknown_modules",
    "split_module_settings",
]
