"""Training: typed arguments, a thin Trainer, and what scripts share."""
