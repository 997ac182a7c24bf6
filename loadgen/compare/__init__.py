"""The question whether NEW is slower than BASE: differences of runs with confidence intervals, and a verdict."""
