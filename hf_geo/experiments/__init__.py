"""Many runs: sweeps over a recipe, and what they and the papers measured side by side."""
