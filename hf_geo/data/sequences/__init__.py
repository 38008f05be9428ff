"""Sequences that are drawn as they are needed."""
