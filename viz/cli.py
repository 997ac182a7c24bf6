"""``raftload viz``, also installed as ``visualize-raft-state``: diagrams of Raft and of a live cluster."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from cluster.errors import ClusterError
from cluster.security import Security, given
from cluster.security import add_arguments as add_security_arguments
from cluster.topology import member_names
from viz.diagrams import DIAGRAMS, diagram
from viz.model import ClusterSnapshot, Model
from viz.output import FORMATS, SUFFIXES, NoGraphviz, render, write
from viz.snapshot import DEFAULT_ENDPOINT, ask, parse_endpoints

PASS, USAGE, ENVIRONMENT = 0, 2, 4
STATUS = "cluster-status"
TIMELINE = "timeline"
TYPES = (*DIAGRAMS, STATUS, TIMELINE)
OBSERVED = ("leader-election", "state-machine", TIMELINE)
MOST_NODES = 25
EXAMPLES = (
    """\
variants (the first is the default):
"""
    + "".join(f"  {kind:<17} {', '.join(variants)}\n" for kind, variants in DIAGRAMS.items())
    + f"""
examples:
  raftload viz --type state-machine                          Mermaid on stdout
  raftload viz --type state-machine --variant etcd --output states.svg
  raftload viz --type leader-election --variant split-vote --nodes 5 --format ascii
  raftload viz --type cluster-status --endpoints {DEFAULT_ENDPOINT}
  raftload viz --type leader-election --observed --logs n1.log n2.log n3.log
  raftload viz --type timeline --observed --logs *.log --output who-led.svg
  raftload viz --type timeline --observed --endpoints {DEFAULT_ENDPOINT} --for 30s     without logs: by polls
  raftload viz --type cluster-status --watch
  watch -n 1 'raftload viz --type cluster-status'

exit codes: 0 drawn, 2 usage, 4 no cluster to be found, no Graphviz, a file that cannot be written,
  logs without a line about Raft
"""
)


class UsageError(ValueError):
    """A command line that cannot be meant, in one line."""


class NothingObserved(RuntimeError):  # noqa: N818
    """The logs say nothing about Raft."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this command to a parser."""
    parser.add_argument("--type", required=True, metavar="TYPE", help=f"what to draw: {', '.join(TYPES)}")
    parser.add_argument(
        "--format",
        metavar="FORMAT",
        help=f"{', '.join(FORMATS)}; default: by the suffix of --output, else ascii for {STATUS} and mermaid "
        "for the rest; svg and png need Graphviz's dot",
    )
    parser.add_argument("--output", metavar="FILE", help=f"write to a file ({' '.join(SUFFIXES)}) instead of stdout")
    parser.add_argument("--variant", metavar="VARIANT", help="which of the type's variants, see below")
    parser.add_argument("--nodes", type=int, metavar="N", help="how many members to draw (default 3)")
    parser.add_argument(
        "--watch", nargs="?", const="1s", metavar="INTERVAL", help=f"{STATUS} again and again (default every 1s)"
    )
    parser.add_argument("--json", action="store_true", help="the same as --format json; with --watch a line a tick")
    parser.add_argument(
        "--observed",
        action="store_true",
        help=f"what really happened, from --logs or those of `raftload cluster up`: {', '.join(OBSERVED)}",
    )
    parser.add_argument(
        "--logs", nargs="+", metavar="FILE", help="the members' logs, JSON or text, of etcd 3.4 and later; - is stdin"
    )
    parser.add_argument(
        "--polls",
        metavar="FILE",
        help="instead of logs, what --watch --json wrote: no candidates and votes; - is stdin",
    )
    parser.add_argument(
        "--for", dest="for_", metavar="T", help="with --observed --endpoints: poll for so long, or until Ctrl-C (10s)"
    )
    parser.add_argument(
        "--since", metavar="TIME", help="with --observed: from this time on, 2026-01-31T12:00:00Z or seconds since 1970"
    )
    parser.add_argument(
        "--until", metavar="TIME", help="and up to this; without both, the last election, and all of the rest"
    )
    parser.add_argument(
        "--endpoints",
        metavar="HOST:PORT,…",
        help=f"the cluster to ask for its state or its members' names; without it {STATUS} takes "
        f"$ETCDCTL_ENDPOINTS, else a cluster of `raftload cluster up`, else {DEFAULT_ENDPOINT}",
    )
    add_security_arguments(parser.add_argument_group("TLS and user, for --endpoints"))


def main(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit code, having said in one line what went wrong."""
    try:
        if args.watch is not None:
            return _watch(args)
        name = _format(args)
        output = _output(args, name)
        content = render(_model(args), name)
        if output is not None:
            write(output, content)
        elif name == "png" and sys.stdout.isatty():
            raise UsageError("png is no text for a terminal: give --output FILE.png")
        else:
            sys.stdout.flush()
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
    except UsageError as exc:
        return _fail(USAGE, exc)
    except (ClusterError, NoGraphviz, NothingObserved) as exc:
        return _fail(ENVIRONMENT, exc)
    except BrokenPipeError:
        raise
    except OSError as exc:
        return _fail(ENVIRONMENT, f"cannot write {args.output or 'to stdout'}: {exc.strerror or exc}")
    return PASS


class _Parser(argparse.ArgumentParser):
    """Errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: error: {message} (see '{self.prog} --help')\n")


def visualize_raft_state(argv: Sequence[str] | None = None) -> int:
    """The console script ``visualize-raft-state``: this command without ``raftload`` before it."""
    parser = _Parser(
        prog="visualize-raft-state",
        description="Draw Raft as it is written, and a live etcd cluster.",
        epilog=EXAMPLES.replace("raftload viz", "visualize-raft-state"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    try:
        return main(parser.parse_args(argv))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _fail(code: int, reason: object) -> int:
    print(f"raftload: error: {reason}", file=sys.stderr)
    return code


def _choice(what: str, value: str, valid: Sequence[str]) -> str:
    if value not in valid:
        raise UsageError(f"unknown {what} {value!r}; choose one of {', '.join(valid)}")
    return value


def _format(args: argparse.Namespace) -> str:
    _choice("--type", args.type, TYPES)
    if args.json and args.format not in (None, "json"):
        raise UsageError(f"--json and --format {args.format} exclude each other")
    if args.json:
        return "json"
    if args.format is not None:
        return _choice("--format", args.format, FORMATS)
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
    """Where to write, checked before anything is asked or drawn."""
    if args.output is None:
        return None
    path = Path(args.output)
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {name} to {args.output}: there is no folder {path.parent}")
    if path.is_dir():
        raise UsageError(f"cannot write {name} to {args.output}: it is a folder")
    return path


def _observed(args: argparse.Namespace) -> Model:
    """A picture of what the logs say; what could not be read is counted on stderr."""
    from viz import observed

    _choice("--type with --observed", args.type, OBSERVED)
    for name in ("variant", "nodes"):
        if getattr(args, name) is not None:
            raise UsageError(f"--{name} is for diagrams that are not --observed; leave it out")
    since, until = (_time(f"--{name}", getattr(args, name)) for name in ("since", "until"))
    if since is not None and until is not None and since > until:
        raise UsageError(f"--since {args.since} is after --until {args.until}")
    if sum(each is not None for each in (args.logs, args.polls, args.endpoints)) > 1:
        raise UsageError("--logs, --polls and --endpoints exclude each other: give one")
    if args.for_ is not None and args.endpoints is None:
        raise UsageError("--for is for polls: give --endpoints")
    if args.polls is not None or args.endpoints is not None:
        return _polled(args, since, until)
    try:
        if args.logs:
            found = observed.read_files([Path("/dev/stdin" if name == "-" else name) for name in args.logs])
        else:
            found = observed.read(_logs_of_ours())
    except OSError as exc:
        raise UsageError(f"cannot read {exc.filename}: {exc.strerror or exc}") from exc
    for note in found.notes:
        _note(note)
    if not found.logs:
        where = ", ".join(args.logs or ["the cluster's logs"])
        raise NothingObserved(f"no line about Raft in {where}: are these logs of etcd at level info?")
    if args.type == "state-machine":
        return observed.state_graph(found, since, until)
    if args.type == TIMELINE:
        return observed.timeline(found, since, until)
    return observed.sequence(found, observed.between(found.elections, since, until))


def _polled(args: argparse.Namespace, since: float | None, until: float | None) -> Model:
    """The same by polls, which each picture says."""
    from viz import polled

    if args.polls is not None:
        try:
            with Path("/dev/stdin" if args.polls == "-" else args.polls).open(
                encoding="utf-8", errors="replace"
            ) as file:
                looks, garbage = polled.read(file)
        except OSError as exc:
            raise UsageError(f"cannot read {exc.filename}: {exc.strerror or exc}") from exc
        if garbage:
            _note(f"{args.polls}: {garbage} lines are not of --watch --json and were left out")
        if not looks:
            raise NothingObserved(f"no poll in {args.polls}: write it by --type cluster-status --watch --json")
    else:
        endpoints, security = _endpoints(args)
        seconds = _interval("--for", args.for_ or "10s", 0.1, 86400)
        _note(f"polls for {seconds:g} s; the members' logs (--logs) would tell of candidates and votes too")
        looks = polled.poll(endpoints, seconds, security=security)
    looks = polled.between(looks, since, until)
    if args.type == "state-machine":
        return polled.state_graph(looks)
    if args.type == TIMELINE:
        return polled.timeline(looks)
    return polled.sequence(looks, last_only=since is None and until is None)


def _note(text: str) -> None:
    print(f"raftload: note: {text}", file=sys.stderr)


def _logs_of_ours() -> list[tuple[str, str, list[str]]]:
    """The logs of the cluster that `raftload cluster up` started. Raises NothingObserved where there is none."""
    from cluster.up import find

    cluster = find()
    if cluster is None:
        raise NothingObserved(
            "no cluster of `raftload cluster up` is there: name the members' logs with --logs FILE…, or --endpoints"
        )
    with cluster:
        names = [member.name for member in cluster.members]
        return [(f"log of {name}", name, cluster.log(name).splitlines()) for name in names]


def _watch(args: argparse.Namespace) -> int:
    from viz.status import watch

    _choice("--type with --watch", args.type, (STATUS,))
    for name in ("output", "variant", "nodes", "logs", "polls", "for_", "since", "until"):
        if getattr(args, name) is not None:
            raise UsageError(f"--watch draws on the terminal or into a pipe; leave out --{name.strip('_')}")
    if args.format not in (None, "ascii", "json"):
        raise UsageError("--watch shows a table, or JSON with --json; leave out --format")
    interval = _interval("--watch", args.watch, 0.1, 3600)
    endpoints, security = _endpoints(args)
    as_json = args.json or args.format == "json"
    return watch(endpoints, interval, sys.stdout, as_json=as_json, security=security)


def _interval(option: str, text: str, least: float, most: float) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", text)
    units = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
    seconds = float(found.group(1)) * units[found.group(2)] if found else 0.0
    if not least <= seconds <= most:
        raise UsageError(f"{option} {text!r} is no interval from {least:g}s to {most:g}s, such as 1s or 500ms")
    return seconds


def _time(option: str, text: str | None) -> float | None:
    from cluster.raftlog import parse_time

    try:
        return None if text is None else parse_time(text)
    except ValueError as exc:
        raise UsageError(f"{option} {text!r} is no time: write 2026-01-31T12:00:00Z or seconds since 1970") from exc


def _model(args: argparse.Namespace) -> Model:
    if args.observed or args.logs or args.polls:
        return _observed(args)
    if args.for_ is not None:
        raise UsageError("--for is for --observed by polls")
    if args.since is not None or args.until is not None:
        raise UsageError("--since and --until are for --observed")
    if args.type == TIMELINE:
        raise UsageError(f"{TIMELINE} is of what happened: give --observed, or --logs FILE…")
    if args.nodes is not None and not 1 <= args.nodes <= MOST_NODES:
        raise UsageError(f"--nodes takes 1 to {MOST_NODES}, not {args.nodes}")
    if args.nodes is not None and (args.endpoints is not None or args.type == STATUS):
        raise UsageError("--nodes is for a cluster that is not asked: leave it out with --endpoints and cluster-status")
    if args.type == STATUS:
        if args.variant is not None:
            raise UsageError(f"{STATUS} has no variants; leave out --variant")
        return _ask(args)
    variants = DIAGRAMS[args.type]
    variant = _choice(f"--variant of {args.type}", variants[0] if args.variant is None else args.variant, variants)
    if args.endpoints is None:
        return diagram(args.type, member_names(args.nodes or 3), variant)
    members = _ask(args)
    # Learners have no vote, so they are in no election; whoever is silent is a member all the same.
    voters = [member for member in members.members if member.role != "learner"]
    leader = next((number for number, member in enumerate(voters) if member.role == "leader"), 0)
    now: dict[str, list[str]] = {}
    for member in members.members:
        now.setdefault(member.role, []).append(member.name)
    return diagram(args.type, [member.name for member in voters], variant, leader, now)


def _ask(args: argparse.Namespace) -> ClusterSnapshot:
    endpoints, security = _endpoints(args)
    return ask(endpoints, security=security)[0]


def _endpoints(args: argparse.Namespace) -> tuple[tuple[str, ...], Security | None]:
    """The endpoints to ask, and how to reach those that were named: our own clusters speak plain and know no users."""
    text = args.endpoints
    try:
        if text is None:
            text = os.environ.get("ETCDCTL_ENDPOINTS")
        if text is not None and (text or args.endpoints is not None):
            security = Security.from_arguments(args)
            return parse_endpoints(",".join(security.url(part.strip()) for part in text.split(","))), security
        if (option := given(args)) is not None:
            raise UsageError(f"{option} is for a cluster that --endpoints names")
    except ValueError as exc:
        raise UsageError(exc) from exc
    from cluster.state import find_running

    running = find_running()
    return parse_endpoints(",".join(running.endpoints) if running else DEFAULT_ENDPOINT), None


if __name__ == "__main__":
    raise SystemExit(visualize_raft_state())
