"""The optimizers' names inside other libraries' own registries."""

from .timm import register_timm
from .transformers import register_transformers

__all__ = ["register_timm", "register_transformers"]
