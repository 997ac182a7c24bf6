"""Distributed runs: the master, its workers, the target, the run folder."""
