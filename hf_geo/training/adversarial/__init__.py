"""Training two networks against each other."""

from .trainer import AdversarialTrainer

__all__ = ["AdversarialTrainer"]
