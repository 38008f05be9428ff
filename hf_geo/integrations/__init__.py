"""The optimizers under their names in the registries of other libraries."""

from .timm import register_timm
from .transformers import register_transformers

__all__ = ["register_timm", "register_transformers"]
