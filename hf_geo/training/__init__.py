"""Training: typed arguments, a thin Trainer and its callbacks."""
