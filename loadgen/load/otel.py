"""Locust's own OpenTelemetry, for the workers of a run: ``--otel``, which docs/monitoring.md describes.

Not for the master: it starts programs meanwhile (members, the observer). OpenTelemetry starts its threads anew in each
fork, which under gevent waits for an event loop that the child never has.
"""

from __future__ import annotations

import argparse
import importlib.util

from cluster.base.errors import UsageError

OPTION = "--otel"


def add_argument(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the option that asks for it."""
    parser.add_argument(
        OPTION, action="store_true",
        help="have workers send Locust's OpenTelemetry metrics and logs to where the OTEL_* variables say; needs "
        "`pip install 'locust[otel]'`, and runs on the Python engine",
    )  # fmt: skip


def check(asked: bool) -> None:
    """Raise UsageError where it is asked for and its packages are not there."""
    try:
        missing = asked and importlib.util.find_spec("opentelemetry.sdk") is None
    except ModuleNotFoundError:
        missing = True
    if missing:
        raise UsageError(f"{OPTION}: OpenTelemetry is not installed; `pip install 'locust[otel]'` brings it")


def start(scenario: str) -> None:
    """Set it up in this worker, before Locust's environment is made. Takes the scenario."""
    from loadgen.load.locust_internals import set_up_opentelemetry

    set_up_opentelemetry(scenario)
