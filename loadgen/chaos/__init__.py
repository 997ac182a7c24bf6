"""Runs under faults: traffic, rounds, and the outcome."""
