"""The conformance suite: the selection, the run and the report of its tests."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import datetime
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from cluster.base.errors import ClusterError, EtcdError, NoAnswer, UsageError
from cluster.base.verdict import Verdict, overall
from cluster.conformance import kv, lease, operations, outage, replication, txn, watch
from cluster.conformance.model import Bounds, Disturber, Env, Result, Target, Test, judge
from cluster.gateway.client import ClientFactory
from cluster.observe.calls import bare, refused
from cluster.observe.probe import version_key

if TYPE_CHECKING:
    from cluster.schema.documents import Conformance

TESTS: tuple[Test, ...] = (
    *kv.TESTS,
    *replication.TESTS,
    *lease.TESTS,
    *txn.TESTS,
    *watch.TESTS,
    *outage.TESTS,
    *operations.TESTS,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """A run: what was tested and what each test found.

    Attributes:
        started_at: ISO 8601, UTC.
        duration_s: of the whole run.
        version: of etcd, the lowest where members differ.
        targets: the members that were tested, one an endpoint.
        unreachable: endpoints that did not answer, with why.
        results: of every test, in order.
        kind: how the members run, ``embedded``, ``local``, ``docker`` or ``external``.
        requested_version: of etcd; None where none was asked for.
        transport: how the tests spoke to etcd: ``gateway``, ``grpc``, or ``grpc and gateway``.
        again: endpoints that lead to a member which another endpoint, their value here, leads to.
    """

    started_at: str
    duration_s: float
    version: str
    targets: tuple[Target, ...]
    unreachable: dict[str, str]
    results: tuple[Result, ...]
    kind: str = "external"
    requested_version: str | None = None
    transport: str = "gateway"
    again: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def count(self, verdict: Verdict) -> int:
        """How many tests ended so."""
        return sum(result.verdict == verdict for result in self.results)

    @property
    def verdict(self) -> Verdict:
        """FAIL where one failed, else UNKNOWN where one is, or where none passed; else PASS."""
        return overall(result.verdict for result in self.results)

    @property
    def exit_code(self) -> int:
        """0 passed or skipped, 1 a FAIL, 3 an UNKNOWN."""
        return self.verdict.exit_code if any(result.verdict.exit_code for result in self.results) else 0

    def to_json(self) -> Conformance:
        """As plain values, after the schema ``conformance``."""
        return {
            "schema": "raftload.conformance/1",
            "started_at": self.started_at,
            "duration_s": self.duration_s,
            "target": {
                "kind": self.kind,
                "version": self.version,
                "requested_version": self.requested_version,
                "transport": self.transport,
                "members": [
                    {"name": target.name, "endpoint": target.endpoint, "member_id": str(target.member_id)}
                    for target in self.targets
                ],
                "unreachable": [{"endpoint": name, "reason": why} for name, why in self.unreachable.items()],
            },
            "tests": [
                {
                    "name": result.name,
                    "group": result.group,
                    "promise": result.promise,
                    "verdict": result.verdict.name,
                    "reason": result.reason,
                    "duration_s": result.duration_s,
                    "figures": result.figures,
                }
                for result in self.results
            ],
            "summary": {
                "pass": self.count(Verdict.PASS),
                "fail": self.count(Verdict.FAIL),
                "unknown": self.count(Verdict.UNKNOWN),
                "skip": self.count(Verdict.SKIP),
            },
            "verdict": self.verdict.name,
        }


def run(
    client_factory: ClientFactory,
    endpoints: Sequence[str],
    handle: Disturber | None = None,
    *,
    only: Iterable[str] = (),
    extended: bool = False,
    destructive: bool | None = None,
    bounds: Bounds | None = None,
    hopeless: str = "",
    on_result: Callable[[Result], None] = lambda _: None,
) -> Report:
    """Test the cluster behind the endpoints.

    Args:
        client_factory: makes a client of an endpoint.
        endpoints: of the members, as the factory takes them; of one cluster.
        handle: stops and starts members; without it tests that need that are skipped.
        only: names of tests or groups, ``kv`` or ``kv.delete``; default all but those that are extended.
        extended: those too.
        destructive: whether tests may run that other users of the cluster would notice. Default: with a handle.
        bounds: how long things may take.
        hopeless: why no test can find out anything, as where there is no quorum: each is UNKNOWN with this reason, and
            none is run. Empty: they are run.
        on_result: told of each result as it comes.

    Returns the report. Raises NoAnswer where no endpoint answers and UsageError for an unknown name in ``only``.
    """
    chosen = select(only, extended=extended)
    destructive = handle is not None if destructive is None else destructive
    started = datetime.datetime.now(datetime.UTC)
    began = time.monotonic()
    targets, unreachable, again, version = _survey(client_factory, endpoints, named=not hopeless)
    stop, run_id = threading.Event(), secrets.token_hex(4)
    results: dict[str, Result] = {}

    def one(test: Test) -> Result:
        env = Env(
            client_factory, targets, f"/raftload-test/{run_id}/{test.name}/".encode(),
            bounds=bounds or Bounds(), stop=stop, handle=handle,
        )  # fmt: skip
        return judge(test, env, tuple(unreachable))

    def done(result: Result) -> None:
        results[result.name] = result
        on_result(result)

    runnable = []
    for test in chosen:
        if why := _why_not(test, len(targets), handle, destructive):
            done(Result(test.name, test.promise, Verdict.SKIP, why, 0.0))
        elif hopeless:
            done(Result(test.name, test.promise, Verdict.UNKNOWN, hopeless, 0.0))
        else:
            runnable.append(test)
    waiting = [test for test in runnable if test.waits]
    with concurrent.futures.ThreadPoolExecutor(max(len(waiting), 1)) as pool:
        try:
            futures = [pool.submit(one, test) for test in waiting]
            for test in runnable:
                if not test.waits and not test.disturbs:
                    done(one(test))
            for future in concurrent.futures.as_completed(futures):
                done(future.result())
        except BaseException:
            stop.set()
            raise
    for test in runnable:
        if test.disturbs:
            done(one(test))
    return Report(
        started_at=started.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        duration_s=round(time.monotonic() - began, 3),
        version=version,
        targets=targets,
        unreachable=unreachable,
        results=tuple(results[test.name] for test in chosen),
        again=again,
    )


def select(only: Iterable[str], *, extended: bool = False) -> list[Test]:
    """Take names of tests and groups, return those tests in order; for none all, extended ones if asked for.

    Raises UsageError for an unknown name.
    """
    names = set(only)
    known = {test.name for test in TESTS} | {test.group for test in TESTS}
    if unknown := sorted(names - known):
        groups = ", ".join(dict.fromkeys(test.group for test in TESTS))
        raise UsageError(f"no test or group of tests {unknown[0]!r}; the groups are {groups}")
    if not names:
        return [test for test in TESTS if extended or not test.extended]
    return [test for test in TESTS if names & {test.name, test.group}]


def _survey(
    client_factory: ClientFactory, endpoints: Sequence[str], *, named: bool
) -> tuple[tuple[Target, ...], dict[str, str], dict[str, str], str]:
    """Return the voting members that answer, once each; the endpoints that do not, with why; those that lead to a
    member that another one leads to, with that one; and the lowest version.

    ``named``: by the names that the cluster lists, which takes a quorum; else by their endpoints.
    """
    targets: dict[int, Target] = {}
    unreachable: dict[str, str] = {}
    again: dict[str, str] = {}
    versions: list[str] = []
    for endpoint in endpoints:
        try:
            client = client_factory(endpoint)
        except EtcdError as exc:
            unreachable[endpoint] = str(refused(bare(endpoint), exc))
            continue
        except ClusterError as exc:
            unreachable[endpoint] = str(exc)
            continue
        try:
            status = client.status()
            names: dict[int, str] = {}
            if named:
                with contextlib.suppress(ClusterError):
                    names = {member.id: member.name for member in client.members()}
        except EtcdError as exc:
            unreachable[endpoint] = str(refused(client.endpoint, exc))
            continue
        except ClusterError as exc:
            unreachable[endpoint] = str(exc)
            continue
        finally:
            client.close()
        versions.append(status.version)
        if not status.is_learner:
            name = names.get(status.member_id) or client.endpoint
            first = targets.setdefault(status.member_id, Target(name, endpoint, status.member_id))
            if first.endpoint != endpoint:
                again[endpoint] = first.endpoint
    if not targets:
        raise NoAnswer("no cluster to test: " + ("; ".join(unreachable.values()) or "no endpoint of a voting member"))
    return tuple(targets.values()), unreachable, again, min(versions, key=version_key)


def _why_not(test: Test, members: int, handle: Disturber | None, destructive: bool) -> str:
    """Why a test does not apply; empty where it does."""
    if members < test.min_members:
        return f"needs {test.min_members} members, there are {members}"
    if test.disturbs and not destructive:
        return "would disturb others who use the cluster; --destructive runs it"
    if test.needs_handle and handle is None:
        return "needs to stop members, and these endpoints give no hold on their processes"
    return ""
