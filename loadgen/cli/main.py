"""The `raftload` command: its subcommands, their error messages and their exit codes.

Nothing heavy is imported before a subcommand runs: `raftload --help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cluster.base import exits
from cluster.base.console import take_any_text
from cluster.base.errors import UsageError
from cluster.base.parser import Parser
from cluster.base.signals import done
from loadgen.cli.entry import EndingAtOnce

if TYPE_CHECKING:
    from cluster.base.security import Security
    from cluster.gateway.client import ClientFactory

# Name, module with add_arguments and main, one line of help.
COMMANDS = (
    ("bench", "loadgen.cli.bench", "load a cluster from many workers, and report throughput and latency"),
    ("chaos", "loadgen.cli.chaos", "inject faults into a cluster under load, and check what etcd guarantees"),
    ("bugs", "loadgen.cli.bugs", "try the known bugs of etcd on throwaway clusters: is this etcd affected?"),
    ("perf", "loadgen.cli.perf", "put the loads of `etcdctl check perf` on a cluster, and say why it fails"),
    (
        "ab",
        "loadgen.cli.ab",
        "compare two versions, settings or clusters by short turns: is NEW slower than BASE?",
    ),
    ("diagnose", "loadgen.cli.diagnose", "say in one word what is slow: disk, CPU, network, load, client, or nothing"),
    ("capacity", "loadgen.cli.capacity", "find the highest rate at which thresholds hold"),
    ("web", "loadgen.cli.web", "serve Locust's web UI: start loads, watch the cluster and inject faults in a browser"),
    ("worker", "loadgen.run.worker", "run a load worker for a master (bench or web) on another machine"),
    ("report", "loadgen.cli.report", "show a finished run as a table, JSON or HTML page, or compare two runs"),
    ("gate", "loadgen.cli.gate", "judge a finished run by thresholds, or by earlier runs"),
    ("compare", "loadgen.cli.compare", "say whether runs are slower than earlier ones, with statistics"),
    ("check", "loadgen.cli.check", "check a recorded history against the guarantees of etcd and Raft"),
    ("cluster", "cluster.cli.options", "start a cluster, show it, inject faults into it, test it and remove it"),
    ("etcd", "cluster.cli.releases", "download official releases of etcd, list them and remove them"),
    ("viz", "viz.cli.command", "draw diagrams of Raft, the state of a live cluster, and its elections"),
)
EXAMPLES = {
    "worker": """\
examples:
  raftload worker --master-host 10.0.0.1 --master-port 5557
  raftload worker --master-host 10.0.0.1 --scenario watch --cacert ca.pem
""",
}
OVERVIEW = """\
examples:
  raftload bench                                      1,000 operations on an embedded cluster
  raftload bench --endpoints 127.0.0.1:2379 --duration 30s --concurrency 100
  raftload gate latest --threshold 'put.p99_ms < 50'
  raftload web                                        then open http://127.0.0.1:8089

Each command has its own --help.
"""


class _Version(argparse.Action):
    """``--version``, which looks it up only when it is asked: that import takes longer than all others here."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:  # noqa: A002
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        assert isinstance(parser, Parser)
        from importlib.metadata import PackageNotFoundError, version

        from loadgen.engine import built

        try:
            found = version("raftload")
        except PackageNotFoundError:
            found = "(not installed)"
        parser.tell(f"raftload {found}, engine {built.described()}\n")
        parser.exit()


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """Return the parser; takes the one command to import the options of, None for all of them."""
    parser = Parser(
        prog="raftload",
        description="Distributed load generator and consensus test kit for etcd clusters.",
        epilog=OVERVIEW,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, help="show program's version number and its engine, and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, module_name, help_line in COMMANDS:
        command = commands.add_parser(
            name,
            help=help_line,
            description=help_line[0].upper() + help_line[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if only in (None, name):
            module = importlib.import_module(module_name)
            if name == "cluster":
                # `cluster` imports nothing of ours, so the live view and the gRPC client are brought to it.
                vars(importlib.import_module("cluster.cli.commands"))["watch"] = _watch_status
                importlib.import_module("cluster.cli.test").TRANSPORTS["grpc"] = _grpc_factory
            module.add_arguments(command)
            command.set_defaults(main=module.main)
            command.epilog = command.epilog or getattr(module, "EXAMPLES", None) or EXAMPLES.get(name)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line. Returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    named = next((word for word in argv if not word.startswith("-")), "")
    with EndingAtOnce():
        take_any_text()
        parser = build_parser(named)
        args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help(sys.stderr)
        exits.forget_unwritten()
        return UsageError.exit_code
    return exits.run(lambda: args.main(args))


def run(*words: str) -> int:
    """Run the `raftload` command, with these words before those it was given. Returns the exit code."""
    return done(main([*words, *sys.argv[1:]]))


def _grpc_factory(*, security: Security | None) -> ClientFactory:
    from loadgen.client.blocking import grpc_factory

    return grpc_factory(security=security)


def _watch_status(endpoints: tuple[str, ...], args: argparse.Namespace, security: Security | None) -> int:
    from viz.live.status import watch

    return watch(endpoints, 1.0, sys.stdout, as_json=bool(args.json), security=security)
