"""Measurements, as ratios against peers in the same run; pytest does not collect them."""
