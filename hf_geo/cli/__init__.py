"""The command line: recipes, options, one-sentence errors, and checks before a run."""
