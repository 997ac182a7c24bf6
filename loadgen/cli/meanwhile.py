"""The options of what happens while a run goes on: conditions that end it, metrics, and progress for programs."""

from __future__ import annotations

import argparse

from cluster.base.console import tell_programs
from loadgen.load import otel
from loadgen.run import exporter

PEOPLE, NDJSON = "text", "ndjson"


def add_arguments(parser: argparse.ArgumentParser, *, shows_progress: bool = True) -> None:
    """Add the options. Takes whether the command shows a run's progress on its terminal."""
    group = parser.add_argument_group("while it runs")
    group.add_argument(
        "--abort-on", action="append", default=[], metavar="'EXPR for DURATION'",
        help="end the run, with exit code 1 and its results kept, once this holds over the last seconds of it, such as "
        "'total.success_rate < 0.9 for 5s'; EXPR as in --threshold, DURATION 1s to 10m; may be repeated",
    )  # fmt: skip
    exporter.add_argument(group)
    otel.add_argument(group)
    if shows_progress:
        group.add_argument(
            "--progress", choices=(PEOPLE, NDJSON), default=PEOPLE,
            help="what stderr says: a line for people (text, the default), or one JSON object a line, for programs "
            "(ndjson; see docs/formats.md)",
        )  # fmt: skip


def begin(args: argparse.Namespace) -> None:
    """Have stderr tell programs, where that is asked for: first of all, so that they are told of errors, too."""
    if args.progress == NDJSON:
        tell_programs()


def check(args: argparse.Namespace) -> None:
    """Raise SettingsError for an address that is none, and UsageError where OpenTelemetry is not installed."""
    exporter.check(args.metrics_listen)
    otel.check(args.otel)
