"""Sweeps over a recipe, and tables that compare their results and finished runs with what the papers published."""
