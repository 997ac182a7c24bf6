"""``raftload viz``, also installed as ``visualize-raft-state``: diagrams of Raft and of a live cluster."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster.base import exits
from cluster.base.console import take_any_text
from cluster.base.errors import UsageError
from cluster.base.files import write_bytes, writing
from cluster.base.naming import add_arguments as add_naming_arguments
from cluster.base.parser import Duration, Parser, Whole
from cluster.base.security import add_arguments as add_security_arguments
from cluster.base.signals import interruptible
from viz.cli.options import OBSERVED, STATUS, TYPES, choose, endpoints, model
from viz.diagrams.ascii import COLUMNS
from viz.diagrams.output import FORMATS, SUFFIXES, render
from viz.diagrams.raft import DIAGRAMS
from viz.live.snapshot import DEFAULT_ENDPOINT

EXAMPLES = (
    """\
variants (the first is the default):
"""
    + "".join(f"  {kind:<17} {', '.join(variants)}\n" for kind, variants in DIAGRAMS.items())
    + f"""
examples:
  raftload viz --type state-machine                          the diagram as Mermaid, on stdout
  raftload viz --type state-machine --variant etcd --output states.svg
  raftload viz --type leader-election --variant split-vote --nodes 5 --format ascii
  raftload viz --type cluster-status --endpoints {DEFAULT_ENDPOINT}
  raftload viz --type leader-election --observed --logs n1.log n2.log n3.log
  raftload viz --type timeline --observed --logs *.log --output who-led.svg
  raftload viz --type timeline --observed --endpoints {DEFAULT_ENDPOINT} --for 30s     from polls, without logs
  raftload viz --type cluster-status --watch
  watch -n 1 'raftload viz --type cluster-status'

exit codes:
  0 drawn   2 usage   4 environment (no cluster, no Graphviz, a file cannot be written, logs without a line about Raft)
"""
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command to a parser."""
    parser.add_argument("--type", required=True, metavar="TYPE", help=f"what to draw: {', '.join(TYPES)}")
    parser.add_argument(
        "--format",
        metavar="FORMAT",
        help=f"{', '.join(FORMATS)} (default: from the suffix of --output, else ascii for {STATUS} and mermaid for the "
        "other types); svg and png need Graphviz's dot",
    )
    parser.add_argument(
        "--output", metavar="FILE", help=f"write to this file instead of stdout; suffixes: {' '.join(SUFFIXES)}"
    )
    parser.add_argument("--variant", metavar="VARIANT", help="variant of the type, listed below (default: its first)")
    parser.add_argument("--nodes", type=Whole(), metavar="N", help="number of members to draw (default: 3)")
    parser.add_argument(
        "--watch", nargs="?", type=Duration(0.1, 3600), const=1.0, metavar="INTERVAL",
        help=f"with --type {STATUS}: draw it again at this interval, until Ctrl-C (default INTERVAL: 1s)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="same as --format json; with --watch one line each time")
    parser.add_argument(
        "--observed",
        action="store_true",
        help="draw what happened on a cluster, from --logs, --polls, or polls of --endpoints (default: the logs of the "
        f"cluster that `raftload cluster up` started); for the types {', '.join(OBSERVED)}",
    )
    parser.add_argument(
        "--logs",
        nargs="+",
        metavar="FILE",
        help="logs of the members to draw from (implies --observed), of etcd 3.4 and later: files in any order, as "
        "etcd, Docker, Kubernetes, journald and others write them, also compressed; folders and archives; - for stdin",
    )
    parser.add_argument(
        "--log-timezone", metavar="ZONE",
        help="zone of the times in logs, and in --since and --until, that do not say theirs, such as Europe/Berlin, "
        "local, or =-05:00 (default: UTC); etcd 3.4's text log is in local time",
    )  # fmt: skip
    parser.add_argument(
        "--polls",
        metavar="FILE",
        help="output of --watch --json to draw from instead of logs (implies --observed); it has no candidates and "
        "votes; - for stdin",
    )
    parser.add_argument(
        "--for", dest="for_", type=Duration(0.1, 86400), metavar="DURATION",
        help="with --observed --endpoints: how long to poll; Ctrl-C ends it earlier (default: 10s)",
    )  # fmt: skip
    parser.add_argument(
        "--since", metavar="TIME",
        help="with --observed: begin at this time, such as 2026-01-31T12:00:00Z or seconds since 1970",
    )  # fmt: skip
    parser.add_argument(
        "--until", metavar="TIME",
        help="with --observed: end at this time (default without --since: the last election for leader-election, "
        "everything for the other types)",
    )  # fmt: skip
    parser.add_argument(
        "--endpoints",
        metavar="HOST:PORT,…",
        help="client URLs of the cluster whose state or member names to draw (default, for cluster-status only: "
        f"$ETCDCTL_ENDPOINTS, else the cluster that `raftload cluster up` started, else {DEFAULT_ENDPOINT})",
    )
    add_naming_arguments(parser)
    add_security_arguments(parser.add_argument_group("TLS and login, for --endpoints"))


def main(args: argparse.Namespace) -> int:
    """Run the command; return the exit code. Raises UsageError and RaftloadError."""
    # A signal of --watch and --for often comes while the answer of a member is freed.
    with interruptible(), writing(args.output or "to stdout"):
        if args.watch is not None:
            return _watch(args)
        name = _format(args)
        output = _output(args, name)
        # A file is read on any terminal; on this one a picture may be as wide as it is.
        columns = COLUMNS if output is not None else shutil.get_terminal_size((COLUMNS, 24)).columns
        content = render(model(args), name, columns)
        if output is not None:
            write_bytes(output, content)
        elif name == "png" and sys.stdout.isatty():
            raise UsageError("a terminal does not show png: give --output FILE.png")
        else:
            sys.stdout.flush()
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
    return 0


def visualize_raft_state(argv: Sequence[str] | None = None) -> int:
    """Return the console script ``visualize-raft-state``: this command without ``raftload`` before it."""
    take_any_text()
    parser = Parser(
        prog="visualize-raft-state",
        description="Draw diagrams of Raft, the state of a live cluster, and its elections.",
        epilog=EXAMPLES.replace("raftload viz", "visualize-raft-state"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    args = parser.parse_args(argv)
    return exits.run(lambda: main(args))


def _format(args: argparse.Namespace) -> str:
    choose("--type", args.type, TYPES)
    if args.json and args.format not in (None, "json"):
        raise UsageError(f"--json and --format {args.format} exclude each other")
    if args.json:
        return "json"
    if args.format is not None:
        return choose("--format", args.format, FORMATS)
    if args.output is None:
        return "ascii" if args.type == STATUS else "mermaid"
    suffix = Path(args.output).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            f"no --format, and the suffix of {args.output!r} is none of {' '.join(SUFFIXES)}; "
            f"give --format, one of {', '.join(FORMATS)}"
        )
    return SUFFIXES[suffix]


def _output(args: argparse.Namespace, name: str) -> Path | None:
    """Return where to write, checked before anything is asked or drawn."""
    if args.output is None:
        return None
    path = Path(args.output)
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {name} to {args.output}: there is no folder {path.parent}")
    if path.is_dir():
        raise UsageError(f"cannot write {name} to {args.output}: it is a folder")
    return path


def _watch(args: argparse.Namespace) -> int:
    from viz.live.status import watch

    choose("--type with --watch", args.type, (STATUS,))
    for name in ("output", "variant", "nodes", "logs", "log_timezone", "polls", "for_", "since", "until"):
        if getattr(args, name) is not None:
            raise UsageError(
                f"--watch writes to the terminal or a pipe; leave out --{name.strip('_').replace('_', '-')}"
            )
    if args.format not in (None, "ascii", "json"):
        raise UsageError("--watch shows a table, or JSON with --json; leave out --format")
    named, security = endpoints(args)
    as_json = args.json or args.format == "json"
    return watch(named, args.watch, sys.stdout, as_json=as_json, security=security)


if __name__ == "__main__":
    raise SystemExit(visualize_raft_state())
