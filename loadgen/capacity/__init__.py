"""The search for the highest rate at which thresholds hold."""
