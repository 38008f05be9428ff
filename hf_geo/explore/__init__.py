"""A page to explore a trained network or subspace in the browser: scripts/explore.py."""
