"""The load generator: workers, runs, results, checks."""
