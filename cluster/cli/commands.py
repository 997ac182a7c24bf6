"""The `raftload cluster` commands: each takes the parsed options and returns the exit code."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.base import naming
from cluster.base.console import print_json, say
from cluster.base.endpoint import Endpoint, read_endpoints
from cluster.base.errors import ClusterError, UsageError
from cluster.base.security import Security, of_ours
from cluster.base.state import state_dir

if TYPE_CHECKING:
    from cluster.base.topology import Member
    from cluster.lifecycle.up import Cluster, ClusterRequest
    from cluster.observe.status import ClusterView
    from cluster.schema.documents import ClusterOrigin

# Set by whoever has a live view: takes the endpoints, the parsed options, and how to reach the endpoints; returns the
# exit code.
watch: Callable[[tuple[str, ...], argparse.Namespace, Security | None], int] | None = None


def up(args: argparse.Namespace) -> int:
    """Start a cluster that stays, or report the one that is there."""
    from cluster.lifecycle.up import ClusterRequest, saying_what_stays

    request = ClusterRequest.from_env(
        backend=args.backend, nodes=args.nodes, base_port=args.base_port, image=args.image, version=args.version,
        binary=args.binary, etcd=args.etcd, data=args.data, wait_s=args.wait, replace=args.replace, pull=args.pull,
        pull_timeout_s=args.pull_timeout, links=args.links,
        etcd_args=None if args.etcd_arg is None else tuple(args.etcd_arg), tls=args.tls, auth=args.auth,
        disk_faults=args.disk_faults,
    )  # fmt: skip
    with saying_what_stays(args.backend, say):
        return _report_up(request, as_json=args.json)


def _report_up(request: ClusterRequest, *, as_json: bool) -> int:
    from cluster.lifecycle.up import describe
    from cluster.lifecycle.up import up as bring_up
    from cluster.observe.status import SCHEMA

    began = time.monotonic()
    cluster, done = bring_up(request, say)
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
        say("there is no quorum: try `raftload cluster heal`, or `raftload cluster down` and `raftload cluster up`")
    if not as_json:
        if cluster.access.folder:
            for line in cluster.access.describe(cluster.endpoints):
                say(line)
            if what["backend"] == "docker" and cluster.access.auth:
                say("in the containers: docker exec -e ETCDCTL_USER -e ETCDCTL_PASSWORD etcd-node1 etcdctl …")
        else:
            endpoints = ",".join(view.to_json()["endpoints"])
            say(f"to use it: export ETCDCTL_ENDPOINTS={endpoints}; `raftload cluster down` removes it")
    return 0 if view.quorum else 1


def _asked(what: ClusterOrigin) -> str:
    wanted = what["requested_version"]
    return f" (asked for {wanted})" if wanted and wanted != what["version"] else ""


def _look(cluster: Cluster, security: Security | None = None) -> ClusterView:
    from cluster.observe.status import look

    return look(
        cluster.members, cluster.states(), cluster.isolated(), security=security or cluster.security,
        disks=cluster.disks(),
    )  # fmt: skip


def status(args: argparse.Namespace) -> int:
    """Show who leads and how each member is: of the endpoints that are named, else of our cluster."""
    from cluster.lifecycle.up import describe, find
    from cluster.observe.running import security_at
    from cluster.observe.status import SCHEMA, look

    told = naming.named(args) or (None if args.backend else naming.named_by_environment(args))
    named = told[0] if told else None
    security = security_at(named, args) if named is not None else Security()
    what = describe(None)
    cluster = find(args.backend) if named is None else None
    if cluster is not None:
        with cluster:
            members = cluster.members
            security = of_ours(args, cluster.security)
            view = _look(cluster, security)
            what = describe(cluster)
    elif named is None and args.backend:
        raise ClusterError(
            f"there is no {args.backend} cluster: `raftload cluster up --backend {args.backend}` starts one"
        )
    else:
        if named is None:
            security = of_ours(args, security)
        members = _foreign(named or "127.0.0.1:2379", security)
        view = look(members, security=security)
        for endpoint, first in view.again.items():
            say(f"note: {first} and {endpoint} lead to one member: it is counted once")
    if watch is not None and args.watch:
        return watch(tuple(Endpoint.parse(member.client_url).bare for member in members), args, security)
    if args.json:
        print_json({"schema": SCHEMA, **what, **view.to_json()})
    else:
        print(view.table())
    _say_how_it_is(view, may_start_one=not (named or what["backend"]))
    return int(view.exit_code)


def _say_how_it_is(view: ClusterView, *, may_start_one: bool) -> None:
    from cluster.observe.status import NEVER_STARTED

    reasons = [
        each.reason if each.reason.startswith(each.member.name) else f"{each.member.name}: {each.reason}"
        for each in view.members
        if each.reason and each.state != NEVER_STARTED
    ]
    if not view.answering:
        advice = "; `raftload cluster up` starts a cluster" if may_start_one else ""
        say(f"no member answers ({', '.join(reasons) or 'none is running'}){advice}")
        return
    for line in [*reasons, *view.warnings]:
        say(line)
    leader = view.leader
    count = f"{view.answering} of {len(view.members)} members answer"
    if view.quorum is None:
        say("quorum not known: only learners answer, which serve no linearizable read; name a voting member, too")
    elif not view.quorum:
        say(f"no quorum: {count}")
    elif leader is not None:
        say(f"{leader.name} leads in term {leader.term}; {count}")
    else:
        say(f"there is a quorum; {count}")


def _foreign(text: str, security: Security | None) -> tuple[Member, ...]:
    """Return the members of which only the endpoints are known. Raises UsageError."""
    from cluster.base.topology import Member

    try:
        named = [Endpoint.parse(each) for each in read_endpoints(text, security or Security())]
    except ValueError as exc:
        raise UsageError(str(exc)) from exc
    return tuple(Member(name=each.authority, client_url=str(each), peer_url="", data_dir="") for each in named)


def down(args: argparse.Namespace) -> int:
    """Remove the cluster, and say what was removed."""
    from cluster.lifecycle.up import down as take_down
    from cluster.lifecycle.up import saying_what_stays

    with saying_what_stays(args.backend, say):
        removed = take_down(args.backend, say)
    if args.json:
        print_json({"schema": "raftload.removed/1", "removed": removed})
    elif removed:
        print("\n".join(f"removed {name}" for name in removed))
    else:
        print("nothing to remove")
    return 0


def logs(args: argparse.Namespace) -> int:
    """Print a member's log."""
    with need(args.backend) as cluster:
        name = args.target
        if name == "leader" and (leader := _look(cluster).leader):
            name = leader.name
        if name not in {member.name for member in cluster.members}:
            raise UsageError(f"no member {name!r}: there are {', '.join(member.name for member in cluster.members)}")
        sys.stdout.write(cluster.log(name, args.lines))
    return 0


def fault(args: argparse.Namespace) -> int:
    """Do one fault, or undo them all, and say what came of it."""
    from cluster.faults.kinds import HEAL, KINDS, Fault
    from cluster.faults.nemesis import Nemesis
    from cluster.observe.timeline import Timeline

    with need(args.backend) as cluster:
        # A run that is going on takes its events from the one beside the state.
        kept = state_dir() / "events.csv"
        timeline = Timeline(Path(args.timeline), kept) if args.timeline else Timeline(kept)
        rng = random.Random(getattr(args, "seed", None))
        nemesis = Nemesis(cluster, timeline, rng=rng, wait_s=args.wait)
        kind = args.cluster_command
        if kind == HEAL:
            effect = nemesis.heal()
        else:
            options = {option.name: getattr(args, option.name) for option in KINDS[kind].options}
            effect = nemesis.inject(Fault(kind, args.target, options))
    if args.json:
        print_json(effect.to_json())
    else:
        print(effect.text)
    return 0


def test(args: argparse.Namespace) -> int:
    """Test a cluster against etcd's guarantees."""
    from cluster.cli import test

    return test.main(args)


def need(backend: str | None) -> Cluster:
    """Return the cluster that is there, for ``with``. Raises ClusterError where none is."""
    from cluster.lifecycle.up import find

    cluster = find(backend)
    if cluster is None:
        raise ClusterError("there is no cluster: `raftload cluster up` starts one")
    return cluster
