"""The state of members, and their logs: probes, polls, metrics, elections; and what a percentile takes to be known."""
