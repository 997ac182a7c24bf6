"""The HTML report of a run, the comparison of two, and plots."""
