"""Checkpoints and results on disk that are complete or absent; knows files, not Trainers."""
