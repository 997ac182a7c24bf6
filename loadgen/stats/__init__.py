"""Histograms, series by second, and the rounding of latencies."""
