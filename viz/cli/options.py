"""The options of ``raftload viz``: checked, and turned into the model that is to be drawn."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.base import naming
from cluster.base.console import say
from cluster.base.errors import RaftloadError, UsageError
from cluster.base.security import Security, of_ours
from cluster.base.topology import member_names
from viz.diagrams.model import ClusterSnapshot, Model, iso
from viz.diagrams.raft import DIAGRAMS, diagram
from viz.live.snapshot import DEFAULT_ENDPOINT, ask, parse_endpoints

if TYPE_CHECKING:
    from viz.live.polled import ClusterPoll

STATUS = "cluster-status"
TIMELINE = "timeline"
TYPES = (*DIAGRAMS, STATUS, TIMELINE)
OBSERVED = ("leader-election", "state-machine", TIMELINE)
MOST_NODES = 25
POLL_FOR_S = 10.0


class NothingObserved(RaftloadError):  # noqa: N818
    """The logs say nothing about Raft."""


def model(args: argparse.Namespace) -> Model:
    """Return what is to be drawn. Raises UsageError, NothingObserved, and ClusterError where nobody answers."""
    if args.observed or args.logs or args.polls:
        return _observed(args)
    if args.for_ is not None:
        raise UsageError("--for needs --observed and --endpoints")
    if args.since is not None or args.until is not None:
        raise UsageError("--since and --until need --observed")
    if args.log_timezone is not None:
        raise UsageError("--log-timezone needs --observed, or --logs FILE…")
    if args.type == TIMELINE:
        raise UsageError(f"--type {TIMELINE} needs --observed, or --logs FILE…")
    if args.nodes is not None and not 1 <= args.nodes <= MOST_NODES:
        raise UsageError(f"--nodes takes 1 to {MOST_NODES}, not {args.nodes}")
    if args.nodes is not None and (naming.option(args) is not None or args.type == STATUS):
        raise UsageError("--nodes excludes --endpoints and cluster-status, which show the members of a real cluster")
    if args.type == STATUS:
        if args.variant is not None:
            raise UsageError(f"{STATUS} has no variants; leave out --variant")
        return _ask(args)
    variants = DIAGRAMS[args.type]
    variant = choose(f"--variant of {args.type}", variants[0] if args.variant is None else args.variant, variants)
    if naming.option(args) is None:
        return diagram(args.type, member_names(args.nodes or 3), variant)
    return _diagram_of(_ask(args), args.type, variant)


def _diagram_of(cluster: ClusterSnapshot, kind: str, variant: str) -> Model:
    """Return a diagram of Raft with the members of a cluster that lives, and what they are now."""
    # Learners have no vote, so they are in no election; whoever is silent is a member all the same.
    voters = [member for member in cluster.members if member.role != "learner"]
    leader = next((number for number, member in enumerate(voters) if member.role == "leader"), 0)
    now: dict[str, list[str]] = {}
    for member in cluster.members:
        now.setdefault(member.role, []).append(member.name)
    return diagram(kind, [member.name for member in voters], variant, leader, now)


def _observed(args: argparse.Namespace) -> Model:
    """Return a picture of what happened, by logs or by polls."""
    choose("--type with --observed", args.type, OBSERVED)
    for name in ("variant", "nodes"):
        if getattr(args, name) is not None:
            raise UsageError(f"--{name} and --observed exclude each other")
    zone = _zone(args)
    since, until = (_time(f"--{name}", getattr(args, name), zone) for name in ("since", "until"))
    if since is not None and until is not None and since > until:
        raise UsageError(f"--since {args.since} is after --until {args.until}")
    if sum(each is not None for each in (args.logs, args.polls, naming.option(args) is not None or None)) > 1:
        raise UsageError("--logs, --polls and --endpoints exclude each other: give one")
    if args.for_ is not None and naming.option(args) is None:
        raise UsageError("--for needs --endpoints")
    if args.polls is not None or naming.option(args) is not None:
        return _by_polls(args, since, until)
    return _by_logs(args, since, until, zone)


def _by_logs(args: argparse.Namespace, since: float | None, until: float | None, zone: tzinfo) -> Model:
    """Take a range of time, in seconds since 1970, and the zone of times in logs that do not say theirs; what could
    not be read is counted on stderr.
    """
    from viz.diagrams import elections, observed

    try:
        if args.logs:
            found = elections.read_files([Path("/dev/stdin" if name == "-" else name) for name in args.logs], zone)
        else:
            found = elections.read(_logs_of_ours(), zone)
    except OSError as exc:
        raise UsageError(f"cannot read {exc.filename}: {exc.strerror or exc}") from exc
    for note in found.notes:
        say(f"note: {note}")
    if not found.logs:
        where = ", ".join(args.logs or ["the cluster's logs"])
        raise NothingObserved(f"no line about Raft with a time in {where}: are these logs of etcd at level info?")
    if (since is not None and since > found.last) or (until is not None and until < found.first):
        say(f"note: the logs are of another time: {iso(found.first)} to {iso(found.last)}")
    if args.type == "state-machine":
        return observed.state_graph(found, since, until)
    if args.type == TIMELINE:
        return observed.timeline(found, since, until)
    return observed.sequence(found, elections.between(found.elections, since, until))


def _logs_of_ours() -> list[tuple[str, str, list[str]]]:
    """Return the logs of the cluster that `raftload cluster up` started. Raises NothingObserved where there is none."""
    from cluster.lifecycle.up import find

    cluster = find()
    if cluster is None:
        raise NothingObserved(
            "`raftload cluster up` has started no cluster: give the members' logs with --logs FILE…, or --endpoints"
        )
    with cluster:
        names = [member.name for member in cluster.members]
        return [(f"log of {name}", name, cluster.log(name).splitlines()) for name in names]


def _by_polls(args: argparse.Namespace, since: float | None, until: float | None) -> Model:
    """Return the same by polls, which each picture says."""
    from viz.live import polled

    if args.polls is not None:
        polls = _polls(args.polls)
    else:
        named, security = endpoints(args)
        seconds = POLL_FOR_S if args.for_ is None else args.for_
        say(f"note: polling for {seconds:g} s; only the members' logs (--logs) show candidates and votes")
        polls = polled.poll(named, seconds, security=security)
    polls = polled.between(polls, since, until)
    if args.type == "state-machine":
        return polled.state_graph(polls)
    if args.type == TIMELINE:
        return polled.timeline(polls)
    return polled.sequence(polls, last_only=since is None and until is None)


def _polls(name: str) -> list[ClusterPoll]:
    """Return the polls in a file, or on stdin. Raises NothingObserved where there is none."""
    from cluster.observe.log_files import open_logs
    from viz.live import polled

    try:
        files = open_logs([Path("/dev/stdin" if name == "-" else name)])
        polls, garbage = polled.read(line for file in files for line in file.lines())
    except OSError as exc:
        raise UsageError(f"cannot read {exc.filename}: {exc.strerror or exc}") from exc
    if garbage:
        say(f"note: {name}: left out {garbage} lines that --watch --json did not write")
    if not polls:
        raise NothingObserved(f"no poll in {name}: make it with --type cluster-status --watch --json")
    return polls


def _ask(args: argparse.Namespace) -> ClusterSnapshot:
    named, security = endpoints(args)
    picture, answers = ask(named, security=security)
    first: dict[int, str] = {}
    for answer in answers:
        if answer.status and (known := first.setdefault(answer.status.member_id, answer.endpoint)) != answer.endpoint:
            say(f"note: {known} and {answer.endpoint} lead to one member: it is counted once")
    return picture


def endpoints(args: argparse.Namespace) -> tuple[tuple[str, ...], Security | None]:
    """Return the endpoints to ask, and how to reach them. Raises UsageError."""
    from cluster.observe.running import find_running, security_at

    try:
        if (told := naming.named(args) or naming.named_by_environment(args)) is not None:
            security = security_at(told[0], args)
            return parse_endpoints(told[0], security), security
    except ValueError as exc:
        raise UsageError(str(exc)) from exc
    running = find_running()
    security = of_ours(args, running.access.security() if running else Security())
    return parse_endpoints(",".join(running.endpoints) if running else DEFAULT_ENDPOINT), security


def _zone(args: argparse.Namespace) -> tzinfo:
    """Return the zone of times in logs that do not say theirs. Raises UsageError."""
    from cluster.observe.log_times import parse_zone

    if args.log_timezone is None:
        return UTC
    if args.polls is not None or naming.option(args) is not None:
        raise UsageError("--log-timezone is for logs: polls say their zone")
    try:
        return parse_zone(args.log_timezone)
    except ValueError as exc:
        raise UsageError(f"--log-timezone: {exc}") from exc


def _time(option: str, text: str | None, zone: tzinfo) -> float | None:
    from cluster.observe.log_times import parse_time

    try:
        return None if text is None else parse_time(text, zone)
    except ValueError as exc:
        raise UsageError(f"{option} {text!r} is not a time: write 2026-01-31T12:00:00Z or seconds since 1970") from exc


def choose(what: str, value: str, valid: Sequence[str]) -> str:
    """One of the valid values. Takes what it is, for people; raises UsageError for any other."""
    if value not in valid:
        raise UsageError(f"unknown {what} {value!r}; choose one of {', '.join(valid)}")
    return value
