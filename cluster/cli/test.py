"""`raftload cluster test`: its options, the cluster that it tests, and what it prints."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal, Protocol

from cluster.base import naming
from cluster.base.console import print_json, say, terminal_width, wants_color
from cluster.base.endpoint import Endpoint, read_endpoints
from cluster.base.errors import ClusterError, UsageError
from cluster.base.naming import add_arguments as add_naming_arguments
from cluster.base.parser import Whole
from cluster.base.security import Security, export, given, of_ours, said_of_ours
from cluster.base.security import add_arguments as add_security_arguments
from cluster.base.topology import Member
from cluster.base.units import parse_whole
from cluster.base.verdict import Verdict
from cluster.base.versions import parse_version, version_or_path
from cluster.conformance.model import Disturber, Result
from cluster.conformance.suite import TESTS, run, select
from cluster.conformance.table import render
from cluster.gateway.client import Client, ClientFactory
from cluster.gateway.conformance_client import gateway_factory
from cluster.observe.calls import bare, speaks_grpc
from cluster.observe.status import NEVER_STARTED, look

if TYPE_CHECKING:
    from cluster.observe.running import Running

EXAMPLES = """\
examples:
  raftload cluster test                               the cluster that runs, else a new one in Docker, else an
                                                      embedded one
  raftload cluster test --backend embedded --all      all tests, on processes that end with the tests
  raftload cluster test --nodes 5 --json | jq .summary
  raftload cluster test --endpoints 10.0.0.1:2379,10.0.0.2:2379
                                                      an existing cluster, which the tests do not disturb
  raftload cluster test --only kv watch.order         one group and one test
  raftload cluster test --transport gateway           over etcd's JSON gateway, with etcd3-py

exit codes: 0 all tests passed or were skipped, 1 one failed, 2 usage, 3 one was inconclusive, 4 no cluster
"""


@dataclasses.dataclass(frozen=True, slots=True)
class ClusterUnderTest:
    """A cluster to test.

    Attributes:
        kind: how its members run.
        endpoints: of every member.
        handle: stops and starts them; None where nobody of ours does.
        requested_version: of etcd; None where none was asked for.
        stays: whether it is there after the tests.
        security: how to reach its members.
    """

    kind: Literal["embedded", "local", "docker", "external"]
    endpoints: tuple[str, ...]
    handle: Disturber | None = None
    requested_version: str | None = None
    stays: bool = False
    security: Security = dataclasses.field(default_factory=Security)


# Takes the options and what tells the person at the terminal; gives the cluster for a block.
Provider = Callable[[argparse.Namespace, Callable[[str], None]], contextlib.AbstractContextManager[ClusterUnderTest]]


class TransportFactory(Protocol):
    """Makes what makes a client of an endpoint."""

    def __call__(self, *, security: Security | None) -> ClientFactory: ...


TRANSPORTS: dict[str, TransportFactory] = {"gateway": gateway_factory}
"""By the word for ``--transport``. Whoever has another client adds it: `raftload` does, since this package imports
nothing of it."""
# Without a quorum for so long there is no election that would end it (etcd's default election timeout is 1 s).
_ELECTION_S = 5.0
_POLL_S = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `raftload cluster test`."""
    group = parser.add_argument_group("target")
    group.add_argument(
        "--endpoints", metavar="HOST:PORT,…",
        help="client URLs of the members of an existing cluster: host:port, https://host:port, unix:///path (default: "
        "$ETCDCTL_ENDPOINTS, else as --backend says)",
    )  # fmt: skip
    add_naming_arguments(group)
    group.add_argument("--nodes", metavar="N", help="number of members of a new cluster (default: $NODES, else 3)")
    group.add_argument(
        "--backend", choices=sorted(BACKENDS),
        help="docker or local: the cluster of `raftload cluster up`, which is started if none runs, and keeps running; "
        "embedded: processes that end with the tests (default: the backend of the cluster that runs, else docker, and "
        "embedded where there is no Docker)",
    )  # fmt: skip
    group.add_argument(
        "--etcd", metavar="VERSION|PATH",
        help="etcd of a new cluster: a release such as 3.6.14, or the path of a binary (default: $ETCD_VERSION, else "
        "as `raftload cluster up`)",
    )  # fmt: skip
    group.add_argument(
        "--base-port", type=Whole(), metavar="PORT", help="client port of a new cluster's first member (default: 2379)"
    )
    group.add_argument("--down", action="store_true", help="remove the cluster after the tests")
    group.add_argument("--cleanup", action="store_true", help="only remove the cluster: no test is run")
    group.add_argument(
        "--transport", choices=sorted(TRANSPORTS),
        help="protocol of the tests: grpc, with the client of bench, or gateway, etcd's JSON gateway through etcd3-py "
        "(default: at each endpoint grpc, and gateway where gRPC is not spoken)",
    )  # fmt: skip
    add_security_arguments(group)
    group = parser.add_argument_group("tests")
    group.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="run only these tests or groups of tests; --list shows them",
    )
    group.add_argument("--all", action="store_true", help="also test members, users, snapshots and alarms")
    group.add_argument(
        "--destructive", action="store_true",
        help="with --endpoints: also run tests that other users of the cluster would notice, such as a compaction",
    )  # fmt: skip
    group.add_argument("--list", action="store_true", help="print the name of each test and what it checks, and exit")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")


def main(
    args: argparse.Namespace,
    *,
    client_factory: ClientFactory | None = None,
    backends: Mapping[str, Provider] | None = None,
) -> int:
    """Run `raftload cluster test`; return the exit code.

    Takes the options of ``add_arguments``; another client than those of ``TRANSPORTS``; other providers of clusters
    than ``BACKENDS``. Raises UsageError, and ClusterError where there is no cluster and none can be started.
    """
    from cluster.observe.running import security_at

    if args.list:
        for test in TESTS:
            print(f"{test.name:<24} {test.promise}")
        return 0
    try:
        select(args.only)
        option = naming.option(args)
        if option and (args.nodes or args.backend or args.etcd or args.down or args.cleanup):
            raise UsageError(
                f"{option} is for an existing cluster: leave out --nodes, --backend, --etcd, --down and --cleanup"
            )
        # The environment's endpoints do not count where options are about a cluster of ours.
        own = any(each is not None for each in (args.nodes, args.backend, args.etcd))
        told = naming.named(args) or (None if own else naming.named_by_environment(args))
        foreign = told is not None
        said = security_at(told[0], args) if told else said_of_ours(args)  # once: it may ask for a password
        endpoints = read_endpoints(told[0], said) if told else ()
        nodes(args)
        if args.etcd is not None:
            version_or_path(args.etcd)
        asks = not foreign and (given(args) is not None or not (args.backend or args.cleanup))
        found = _found(args.backend) if asks else None
        if not foreign and given(args) is not None:  # before a cluster is started
            of_ours(args, found.access.security() if found else Security(), said)
    except (ValueError, UsageError) as exc:
        raise UsageError(f"{exc} (see 'raftload cluster test --help')") from exc
    if args.cleanup:
        return _cleanup(args)
    if foreign:
        provider = _external(endpoints, said)
    else:
        provider = (backends or BACKENDS)[args.backend or (found.backend if found else _without_a_cluster())]
    with provider(args, say) as tested:
        security = tested.security if foreign else of_ours(args, tested.security, said)
        transport = _Transport(args.transport, security)
        report = run(
            client_factory or transport.client, tested.endpoints, tested.handle,
            only=args.only, extended=args.all, destructive=args.destructive or tested.handle is not None,
            hopeless=_why_hopeless(tested.endpoints, security),
            on_result=_progress,
        )  # fmt: skip
        report = dataclasses.replace(
            report, kind=tested.kind, requested_version=tested.requested_version, transport=transport.name
        )
        if args.json:
            print_json(report.to_json())
        else:
            print(render(report, color=wants_color(sys.stdout), width=terminal_width()))
        for endpoint, first in report.again.items():
            say(f"note: {first} and {endpoint} lead to one member: it is counted once")
        for endpoint, why in report.unreachable.items():
            say(f"warning: {endpoint} does not answer: {why}")
        urls = ",".join(tested.endpoints)
        say(f"tested etcd {report.version}: {', '.join(target.name for target in report.targets)} at {urls}")
        if tested.stays and not args.down:
            up_says_it = tested.kind != "external" and security != Security()
            how = "`raftload cluster up` says how" if up_says_it else export(tested.endpoints, security)
            say(f"the cluster keeps running; to use it: {how}")
    return report.exit_code


class _Transport:
    """Makes clients of endpoints.

    Takes a word for ``--transport``, None for what each endpoint answers, and how to reach the endpoints.
    """

    def __init__(self, wanted: str | None, security: Security | None) -> None:
        self._wanted = wanted
        self._security = security
        self._factories: dict[str, ClientFactory] = {}
        self._chosen: dict[str, str] = {}

    def client(self, endpoint: str) -> Client:
        """Return a client of an endpoint. Raises what the transports raise."""
        name = self._chosen.get(endpoint)
        if name is None:
            name = self._chosen[endpoint] = self._wanted or self._answered(endpoint)
        if name not in self._factories:
            self._factories[name] = TRANSPORTS[name](security=self._security)
        return self._factories[name](endpoint)

    def _answered(self, endpoint: str) -> str:
        is_json = "grpc" not in TRANSPORTS or speaks_grpc(endpoint, security=self._security) is False
        return "gateway" if is_json else "grpc"

    @property
    def name(self) -> str:
        """What was spoken: ``grpc``, ``gateway``, or ``grpc and gateway``."""
        return " and ".join(sorted(set(self._chosen.values()), reverse=True)) or self._wanted or "gateway"


def _why_hopeless(endpoints: tuple[str, ...], security: Security | None) -> str:
    """Return why tests would only wait, as where there is no quorum; empty where they would not.

    An election may be going on, so it asks again for as long as one may take. Says what else is amiss. Raises
    ClusterError where all that answer show this user nothing.
    """
    members = tuple(Member(bare(url), str(Endpoint.parse(url)), "", "") for url in endpoints)
    until = time.monotonic() + _ELECTION_S
    while True:
        view = look(members, security=security)
        is_over = view.quorum is not False or not view.answering or not view.may_have_quorum
        if is_over or time.monotonic() >= until:
            break
        time.sleep(_POLL_S)
    answering = [each for each in view.members if each.answers]
    if answering and all(each.denied for each in answering):
        raise ClusterError(f"no cluster to test: {'; '.join(each.reason for each in answering)}")
    for line in view.warnings:
        say(f"warning: {line}")
    if view.alarms and view.quorum:
        return f"alarm {view.alarms[0].kind}: the members refuse writes until it is disarmed"
    if view.quorum is not False or not view.answering:
        return ""
    never = [f"; {each.reason}" for each in view.members if each.state == NEVER_STARTED]
    return f"there is no quorum: {view.answering} of {len(view.members)} members answer{''.join(never)}"


def nodes(args: argparse.Namespace) -> int:
    """Return the number of members asked for. Raises UsageError."""
    text, where = (args.nodes, "--nodes") if args.nodes is not None else (os.environ.get("NODES") or "3", "$NODES")
    try:
        count = parse_whole(text)
    except ValueError:
        count = 0
    if not 1 <= count <= 99:
        raise UsageError(f"{where} must be a whole number from 1 to 99, not {text!r}")
    return count


@contextlib.contextmanager
def _embedded(args: argparse.Namespace, say: Callable[[str], None]) -> Iterator[ClusterUnderTest]:
    """Yield a cluster of processes on loopback, for the length of the tests."""
    from cluster.lifecycle.up import ClusterRequest
    from cluster.local.cluster import LocalCluster

    count = nodes(args)
    if count % 2 == 0:
        say(f"warning: {count} members tolerate no more failures than {count - 1}")
    request = ClusterRequest.from_env(backend="local", nodes=count, base_port=args.base_port, etcd=args.etcd)
    cluster = LocalCluster(count, base_port=args.base_port, binary=request.find_binary())
    binary = cluster.binary
    say(f"starting {count} members on 127.0.0.1 for these tests, etcd {binary.version} from {binary.whence}")
    if binary.note:
        say(f"note: {binary.note}")
    with cluster:
        asked = parse_version(request.version) if request.version and not request.binary else None
        yield ClusterUnderTest("embedded", cluster.endpoints, cluster, asked)


def _standing(backend: Literal["docker", "local"]) -> Provider:
    """Return a cluster that is there, or is started, and stays unless --down."""

    @contextlib.contextmanager
    def provide(args: argparse.Namespace, say: Callable[[str], None]) -> Iterator[ClusterUnderTest]:
        from cluster.lifecycle.up import ClusterRequest, describe, saying_what_stays, up

        count = nodes(args) if args.nodes is not None else None
        request = ClusterRequest.from_env(backend=backend, nodes=count, base_port=args.base_port, etcd=args.etcd)
        with saying_what_stays(backend, say):
            cluster, done = up(request, say)
        ended = False
        try:
            with cluster:
                say(f"{done}: {len(cluster.members)} members, {backend}")
                yield ClusterUnderTest(
                    backend, cluster.endpoints, cluster, describe(cluster)["requested_version"], stays=not args.down,
                    security=cluster.security,
                )  # fmt: skip
            ended = True
        finally:
            if args.down:
                _remove(backend)
            elif not ended:
                say("the cluster stays: `raftload cluster down` removes it")

    return provide


def _found(backend: str | None) -> Running | None:
    """Return the cluster of a backend, or of any, that is there; None where none is."""
    from cluster.observe import running

    return running.find_running(backends=[each for each in running.BACKENDS if backend in (None, each)])


def _without_a_cluster() -> str:
    """Return the backend for a new cluster where nobody named one: docker, and embedded where there is no Docker.

    Raises ClusterError where there is no Docker, but something that only Docker has was asked for: an image, or the
    cluster that we remember there.
    """
    from cluster.docker.engine import NoEngine, connect
    from cluster.observe import running

    try:
        connect().close()
    except NoEngine as exc:
        if os.environ.get("ETCD_IMAGE") or running.load("docker") is not None:
            raise
        say(f"{exc.reason}: testing an embedded cluster instead; with --backend docker that is an error")
        return "embedded"
    return "docker"


def _cleanup(args: argparse.Namespace) -> int:
    names = ("nodes", "etcd", "base_port", "down", "transport", "only", "all", "destructive")
    unused = [f"--{name.replace('_', '-')}" for name in names if getattr(args, name) not in (None, False, [])]
    more = f"; not used: {', '.join(unused)}" if unused else ""
    say(f"--cleanup only removes the cluster, and no test is run{more}")
    removed = _remove(args.backend)
    if args.json:
        print_json({"schema": "raftload.removed/1", "removed": removed})
    return 0


def _remove(backend: str | None) -> list[str]:
    if backend == "embedded":
        return []
    from cluster.lifecycle.up import down

    removed = down(backend, say)
    for name in removed:
        say(f"removed {name}")
    if not removed:
        say("nothing to remove")
    return removed


def _external(endpoints: tuple[str, ...], security: Security) -> Provider:
    """Return somebody's cluster, as it is."""

    @contextlib.contextmanager
    def provide(args: argparse.Namespace, say: Callable[[str], None]) -> Iterator[ClusterUnderTest]:
        yield ClusterUnderTest("external", endpoints, stays=True, security=security)

    return provide


BACKENDS: dict[str, Provider] = {"docker": _standing("docker"), "local": _standing("local"), "embedded": _embedded}


def _progress(result: Result) -> None:
    if sys.stderr.isatty() and result.verdict != Verdict.SKIP:
        say(f"{result.verdict.name:<7} {result.name}")
