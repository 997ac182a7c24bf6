"""Tests of what etcd promises, each with a verdict: `raftload cluster test` and ``run``."""

from cluster.cli.test import BACKENDS, EXAMPLES, Ground, add_arguments, main
from cluster.conformance.model import Bounds, Disturber, Result, Verdict
from cluster.conformance.suite import TESTS, Report, run

__all__ = [
    "BACKENDS",
    "EXAMPLES",
    "TESTS",
    "Bounds",
    "Disturber",
    "Ground",
    "Report",
    "Result",
    "Verdict",
    "add_arguments",
    "main",
    "run",
]
