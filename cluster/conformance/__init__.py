"""Tests of what etcd guarantees, each with a verdict."""

from cluster.conformance.model import Bounds, Disturber, Result
from cluster.conformance.suite import TESTS, Report, run

__all__ = [
    "TESTS",
    "Bounds",
    "Disturber",
    "Report",
    "Result",
    "run",
]
