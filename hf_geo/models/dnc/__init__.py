"""The Differentiable Neural Computer: importing this package registers it with transformers' Auto classes."""

from .build import build_copy_model
from .cell import DncState
from .configuration_dnc import DncConfig
from .modeling_dnc import DncForSequenceCopy, copy_loss

__all__ = ["DncConfig", "DncForSequenceCopy", "DncState", "build_copy_model", "copy_loss"]
