"""Geometry-aware optimizers and neural-network subspaces for the Hugging Face training stack."""

import importlib
from typing import Any

__version__ = "0.1.0"

# The few names users import from the top, and where they live: loaded on first use, so that
# `import hf_geo.optim` stays free of transformers.
_LAZY = {
    "GeoTrainer": "hf_geo.training.trainer",
    "GeoTrainingArguments": "hf_geo.training.arguments",
    "Subspace": "hf_geo.subspaces",
    "SubspaceConfig": "hf_geo.subspaces",
}

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'hf_geo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
