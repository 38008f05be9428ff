"""What scripts/results.py gathers from finished runs, beside what papers published."""
