"""The `raftload cluster` commands."""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import time
from collections.abc import Callable
from typing import Any

from cluster import state
from cluster.errors import ClusterError, UsageError
from cluster.interrupt import Interrupted, interruptible
from cluster.security import Security, SecurityError, given
from cluster.security import add_arguments as add_security_arguments

EXAMPLES = """\
examples:
  raftload cluster up                          three members in Docker, on 127.0.0.1:2379 to 2381
  raftload cluster up --backend local          the same as processes, without Docker
  raftload cluster status
  raftload cluster kill leader                 says who leads next, and after how long
  raftload cluster heal
  raftload cluster down
"""
FAULTS = {
    "kill": "end a member at once, as SIGKILL does",
    "crash": "end a member at once and start it again",
    "stop": "end a member in order",
    "start": "start a member that is down, on its data",
    "restart": "end a member in order and start it again",
    "pause": "freeze a member: connected and silent",
    "resume": "undo pause",
    "partition": "cut each member of TARGET off from all its peers; clients still reach it",
    "delay": "delay what goes between a member and its peers (local backend)",
    "drop": "lose a share of what goes between a member and its peers (local backend)",
    "transfer-leader": "hand leadership to a member",
    "defrag": "have a member defragment its store, during which it answers nothing",
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m)?")
_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, None: 1.0}

# Set by whoever has a live view: takes the endpoints, the parsed options, and how to reach the endpoints; returns the
# exit code.
watch: Callable[[tuple[str, ...], argparse.Namespace, Security | None], int] | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the commands of the group."""
    commands = parser.add_subparsers(dest="cluster_command", metavar="COMMAND", required=True)

    def command(name: str, text: str, main: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        made.set_defaults(cluster_main=main)
        return made

    up = command("up", "start a cluster that stays, or report the one that is there", _up)
    _add_up(up)
    status = command("status", "show who leads and how each member is", _status)
    _add_backend(status)
    status.add_argument("--endpoints", metavar="A,B", help="default: $ETCDCTL_ENDPOINTS, else ours")
    status.add_argument("--json", action="store_true", help="one JSON document on stdout")
    add_security_arguments(status.add_argument_group("TLS and user, for --endpoints"))
    if watch is not None:
        status.add_argument("--watch", action="store_true", help="live, until interrupted")
    down = command("down", "remove the cluster and everything that was made for it", _down)
    _add_backend(down)
    down.add_argument("--json", action="store_true", help="one JSON document on stdout")
    logs = command("logs", "print a member's log", _logs)
    _add_backend(logs)
    logs.add_argument("target", metavar="TARGET", help="a member by name, or leader")
    logs.add_argument("--lines", type=int, metavar="N", help="only the last N lines")
    for kind, text in FAULTS.items():
        _add_fault(command(kind, text, _fault), kind)
    heal = command("heal", "undo every fault, and start what is down; idempotent", _fault)
    _add_fault(heal, "heal")
    _add_test(command("test", "test what etcd promises, on a cluster that is brought up where none is", _test))


def _add_test(parser: argparse.ArgumentParser) -> None:
    from cluster import conformance

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = conformance.EXAMPLES
    conformance.add_arguments(parser)


def _add_fault(parser: argparse.ArgumentParser, kind: str) -> None:
    from cluster.faults import TARGETS

    if kind != "heal":
        parser.add_argument("target", metavar="TARGET", help=f"members by name, with commas, or {', '.join(TARGETS)}")
        parser.add_argument("--seed", type=int, metavar="N", help="for what is chosen at random")
    if kind == "delay":
        parser.add_argument("--by", type=duration, required=True, metavar="T", help="each way, such as 50ms")
        parser.add_argument("--jitter", type=duration, default=0.0, metavar="T", help="more or less (default: 0)")
    if kind == "drop":
        parser.add_argument("--share", type=_share, required=True, metavar="P", help="such as 10%% or 0.1")
    _add_backend(parser)
    parser.add_argument("--wait", type=duration, default=30.0, metavar="T", help="for the effect (default: 30s)")
    parser.add_argument("--timeline", metavar="FILE", help="append events to it too (not only events.csv by the state)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _add_up(up: argparse.ArgumentParser) -> None:
    up.add_argument("--nodes", type=int, metavar="N", help="members (default: $NODES, else 3)")
    up.add_argument("--backend", choices=state.BACKENDS, default="docker", help="default: docker")
    up.add_argument("--base-port", type=int, metavar="PORT", help="the first client port (default: 2379)")
    up.add_argument("--image", help="run this image and no other (default: $ETCD_IMAGE)")
    up.add_argument("--etcd-version", dest="version", metavar="V", help="default: $ETCD_VERSION, else a current one")
    up.add_argument("--binary", metavar="PATH", help="run this etcd (default: $ETCD_BINARY)")
    up.add_argument("--data", choices=("container", "volume", "shm"),
                    help="container (default), volume: named volumes, or shm: in memory")  # fmt: skip
    up.add_argument("--wait", type=duration, default=60.0, metavar="T", help="until all are healthy (default: 60s)")
    up.add_argument("--replace", action="store_true", help="replace even a cluster with named volumes")
    up.add_argument("--pull", action="store_true", help="ask the registries again although a built image is there")
    up.add_argument("--pull-timeout", type=duration, default=300.0, metavar="T", help="for the image (default: 300s)")
    up.add_argument("--links", choices=("relay", "direct"), default="relay",
                    help="local peers through a relay, for partition, delay and drop (default)")  # fmt: skip
    up.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _add_backend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", choices=state.BACKENDS, help="default: the one that has a cluster")


def duration(text: str) -> float:
    """Takes ``60s``, ``250ms``, ``2m`` or ``5`` (seconds), returns seconds. Raises ArgumentTypeError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: write 60s, 250ms or 2m")
    return float(match[1]) * _UNITS[match[2]]


def main(args: argparse.Namespace) -> int:
    """Runs one command of the group. Returns the exit code."""
    try:
        with interruptible():
            return int(args.cluster_main(args))
    except Interrupted as exc:
        say(f"interrupted by {exc}")
        return exc.exit_code
    except ClusterError as exc:
        print(f"raftload: error: {exc}", file=sys.stderr)
        return exc.exit_code


def say(text: str) -> None:
    """Tells the person at the terminal what goes on."""
    print(f"raftload: {text}", file=sys.stderr, flush=True)


def print_json(document: dict[str, Any]) -> None:
    """The one document of a command with ``--json``."""
    print(json.dumps(document, indent=2))


def _up(args: argparse.Namespace) -> int:
    from cluster.up import Wish, saying_what_stays

    wish = Wish.from_env(
        backend=args.backend, nodes=args.nodes, base_port=args.base_port, image=args.image, version=args.version,
        binary=args.binary, data=args.data, wait_s=args.wait, replace=args.replace, pull=args.pull,
        pull_timeout_s=args.pull_timeout, links=args.links,
    )  # fmt: skip
    with saying_what_stays(args.backend, say):
        return _report_up(wish, as_json=args.json)


def _report_up(wish: Any, *, as_json: bool) -> int:
    from cluster.status import SCHEMA
    from cluster.up import describe, up

    began = time.monotonic()
    cluster, done = up(wish, say)
    took = time.monotonic() - began
    with cluster:
        view = _look(cluster)
        if as_json:
            head = {"schema": SCHEMA, "done": done, "duration_s": round(took, 3)}
            print_json({**head, **describe(cluster), **view.to_json()})
        else:
            print(view.table())
        what = describe(cluster)
    say(f"{done} in {took:.1f} s: etcd {what['version']}" + _asked(what) + f", {what['source']}")
    if not view.quorum:
        say("there is no quorum: `raftload cluster heal`, or `raftload cluster down` and up again")
    if not as_json:
        endpoints = ",".join(view.to_json()["endpoints"])
        say(f"reach it by ETCDCTL_ENDPOINTS={endpoints}; `raftload cluster down` removes it")
    return 0 if view.quorum else 1


def _asked(what: dict[str, Any]) -> str:
    wanted = what["requested_version"]
    return f" (asked for {wanted})" if wanted and wanted != what["version"] else ""


def _look(cluster: Any) -> Any:
    from cluster.status import look

    return look(cluster.members, cluster.states(), cluster.isolated())


def _status(args: argparse.Namespace) -> int:
    from cluster.status import SCHEMA, look
    from cluster.up import describe, find

    named = args.endpoints or (None if args.backend else os.environ.get("ETCDCTL_ENDPOINTS"))
    security = None
    try:
        if named is not None:
            security = Security.from_arguments(args)
        elif (option := given(args)) is not None:
            raise UsageError(f"{option} is for a cluster that --endpoints names")
    except SecurityError as exc:
        raise UsageError(str(exc)) from exc
    what = describe(None)
    if named is None:
        cluster = find(args.backend)
        if cluster is None and args.backend:
            raise ClusterError(f"no {args.backend} cluster is there: `raftload cluster up --backend {args.backend}`")
        if cluster is not None:
            with cluster:
                members = cluster.members
                view = _look(cluster)
                what = describe(cluster)
    if named is not None or cluster is None:
        members = _foreign(named or "127.0.0.1:2379", security)
        view = look(members, security=security)
    if watch is not None and args.watch:
        return watch(tuple(member.client_url.removeprefix("http://") for member in members), args, security)
    if args.json:
        print_json({"schema": SCHEMA, **what, **view.to_json()})
    else:
        print(view.table())
    for each in view.members:
        if each.reason:
            say(each.reason if each.reason.startswith(each.member.name) else f"{each.member.name}: {each.reason}")
    leader = view.leader
    if view.exit_code == 4:
        hint = "" if named or what["backend"] else ": `raftload cluster up` starts a cluster"
        say(f"nobody answers{hint}")
    elif not view.quorum:
        say(f"no quorum: {view.answering} of {len(view.members)} members answer")
    elif leader is not None:
        say(f"{leader.name} leads in term {leader.term}; {view.answering} of {len(view.members)} members answer")
    return int(view.exit_code)


def _foreign(text: str, security: Security | None) -> tuple[Any, ...]:
    """Members of which only the endpoints are known. Raises UsageError."""
    from cluster.control import split_endpoint
    from cluster.topology import Member

    members = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        try:
            endpoint, scheme, _, _ = split_endpoint(security.url(part) if security is not None else part)
        except ValueError as exc:
            raise UsageError(str(exc)) from exc
        members.append(Member(name=endpoint, client_url=f"{scheme}://{endpoint}", peer_url="", data_dir=""))
    if not members:
        raise UsageError("no endpoint was named")
    return tuple(members)


def _down(args: argparse.Namespace) -> int:
    from cluster.up import down, saying_what_stays

    with saying_what_stays(args.backend, say):
        removed = down(args.backend, say)
    if args.json:
        print_json({"schema": "raftload.removed/1", "removed": removed})
    elif removed:
        print("\n".join(f"removed {name}" for name in removed))
    else:
        print("nothing to remove")
    return 0


def _logs(args: argparse.Namespace) -> int:
    with need(args.backend) as cluster:
        name = args.target
        if name == "leader" and (leader := _look(cluster).leader):
            name = leader.name
        if name not in {member.name for member in cluster.members}:
            raise UsageError(f"no member {name!r}: there are {', '.join(member.name for member in cluster.members)}")
        sys.stdout.write(cluster.log(name, args.lines))
    return 0


def _fault(args: argparse.Namespace) -> int:
    from pathlib import Path

    from cluster.faults import Fault
    from cluster.nemesis import Nemesis
    from cluster.timeline import Timeline

    with need(args.backend) as cluster:
        # A run that is going on takes its events from the one beside the state.
        kept = state.state_dir() / "events.csv"
        timeline = Timeline(Path(args.timeline), kept) if args.timeline else Timeline(kept)
        rng = random.Random(getattr(args, "seed", None))
        nemesis = Nemesis(cluster, timeline, rng=rng, wait_s=args.wait)
        if args.cluster_command == "heal":
            effect = nemesis.heal()
        else:
            fault = Fault(
                args.cluster_command, args.target, delay_s=getattr(args, "by", 0.0),
                jitter_s=getattr(args, "jitter", 0.0), share=getattr(args, "share", 0.0),
            )  # fmt: skip
            effect = nemesis.inject(fault)
    if args.json:
        print_json(effect.to_json())
    else:
        print(effect.text)
    return 0


def _share(text: str) -> float:
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{text!r} is no share: write 10% or 0.1") from exc


def _test(args: argparse.Namespace) -> int:
    from cluster import conformance

    return conformance.main(args)


def need(backend: str | None) -> Any:
    """The cluster that is there, for ``with``. Raises ClusterError where none is."""
    from cluster.up import find

    cluster = find(backend)
    if cluster is None:
        raise ClusterError("no cluster is there: `raftload cluster up` starts one")
    return cluster


def standalone(argv: list[str] | None = None) -> int:
    """Runs `raftload cluster …` without the rest of raftload, for tests: takes what follows those words."""
    parser = argparse.ArgumentParser(prog="raftload cluster", epilog=EXAMPLES)
    add_arguments(parser)
    return main(parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(standalone())
