"""What a run's folder holds: settings, results, figures, hardware."""
