"""The state of members, and their logs: probes, polls, metrics, elections."""
