"""The parts of a conformance test: the test, its environment, its result."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, Self, TypeVar

from cluster.base.errors import ClusterError, EtcdError
from cluster.base.etcd_values import prefix_end
from cluster.base.topology import Member
from cluster.base.verdict import Verdict
from cluster.gateway.client import Client, ClientFactory

T = TypeVar("T")
POLL_S = 0.02

# Codes by which etcd refuses what is valid; any other one tells of a cluster that cannot serve just now.
_REFUSALS = frozenset({3, 5, 6, 9, 11, 12, 13, 15})


class Broken(Exception):  # noqa: N818
    """A guarantee of etcd does not hold; the text says what was seen instead."""


class Inconclusive(Exception):  # noqa: N818
    """The test could not find out; the text says why."""


class NotApplicable(Exception):  # noqa: N818
    """The test does not apply here; the text says why."""


class Stopped(Exception):  # noqa: N818
    """The run was interrupted while the test waited."""


class Disturber(Protocol):
    """A hold on the members' processes, by name, for the tests that break the cluster.

    LocalCluster is one. Each method raises KeyError for an unknown member and ClusterError where it fails.
    """

    @property
    def members(self) -> Sequence[Member]:
        """All members, running or not."""

    def kill(self, name: str) -> None:
        """End a member at once, as SIGKILL does; its data stays."""

    def start(self, name: str) -> None:
        """Start a member that is down on its data; return without waiting for its health."""

    def is_running(self, name: str) -> bool:
        """Whether it runs, paused or not."""


@dataclasses.dataclass(frozen=True, slots=True)
class Bounds:
    """How long what must happen may take, in seconds, and how hard it is tried.

    Attributes:
        lag_s: until every member has an acknowledged write.
        lease_grace_s: from the end of a lease's time until its keys are gone.
        event_s: until a watch delivers what happened.
        load_s: how long readers and writers run beside each other.
        load_at_most_s: how long they do where a slow machine has not let each of them do enough to tell.
        failover_s: from the death of the leader to a new one.
        heal_s: from starting members to a healthy cluster.
    """

    lag_s: float = 5.0
    lease_grace_s: float = 10.0
    event_s: float = 5.0
    load_s: float = 1.0
    load_at_most_s: float = 10.0
    failover_s: float = 15.0
    heal_s: float = 30.0


@dataclasses.dataclass(frozen=True, slots=True)
class Test:
    """One guarantee of etcd and how it is tried.

    Attributes:
        name: ``group.what``.
        promise: what etcd guarantees, in a sentence.
        run: takes an Env, returns what it saw in a few words; raises Broken, Inconclusive or NotApplicable.
        waits: it mostly sleeps, and may run beside others.
        disturbs: others who use the cluster would notice; such a test runs alone.
        needs_handle: it stops members.
        needs_all: its guarantee is about every member, so one that does not answer leaves it open.
        min_members: with fewer it does not apply.
        extended: it runs only with ``--all``, or where it is named.
    """

    name: str
    promise: str
    run: Callable[[Env], str]
    waits: bool = False
    disturbs: bool = False
    needs_handle: bool = False
    needs_all: bool = False
    min_members: int = 1
    extended: bool = False

    @property
    def group(self) -> str:
        """``kv`` of ``kv.own-member``."""
        return self.name.partition(".")[0]


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What became of a test. ``figures`` are numbers it measured, such as ``lag_ms``."""

    name: str
    promise: str
    verdict: Verdict
    reason: str
    duration_s: float
    figures: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def group(self) -> str:
        """``kv`` of ``kv.own-member``."""
        return self.name.partition(".")[0]


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A member under test, as it was when the run began."""

    name: str
    endpoint: str
    member_id: int


class Env:
    """What a test is given: a key prefix, clients of its own to every member, and bounds.

    Close it: it closes the clients and deletes the keys.
    """

    def __init__(
        self,
        factory: ClientFactory,
        targets: Sequence[Target],
        prefix: bytes,
        *,
        bounds: Bounds,
        stop: threading.Event,
        handle: Disturber | None = None,
    ) -> None:
        self.targets = tuple(targets)
        self.prefix = prefix
        self.end = prefix_end(prefix)
        self.bounds = bounds
        self.handle = handle
        self.figures: dict[str, float] = {}
        self._factory, self._stop = factory, stop
        self._clients: dict[int, Client] = {}
        self._fresh: list[Client] = []

    def __len__(self) -> int:
        return len(self.targets)

    def key(self, name: str) -> bytes:
        """Return a key of this test's own."""
        return self.prefix + name.encode()

    def client(self, index: int = 0) -> Client:
        """Return the client of a member, by its place, modulo their number; for the test's own thread."""
        index %= len(self.targets)
        if index not in self._clients:
            self._clients[index] = self._factory(self.targets[index].endpoint)
        return self._clients[index]

    def clients(self) -> list[Client]:
        """One of every member, in order."""
        return [self.client(index) for index in range(len(self.targets))]

    def fresh(self, index: int = 0) -> Client:
        """Another client of a member, for another thread; closed with the rest."""
        client = self._factory(self.targets[index % len(self.targets)].endpoint)
        self._fresh.append(client)
        return client

    def fresh_at(self, endpoint: str) -> Client:
        """Return a client of another endpoint, closed with the rest."""
        client = self._factory(endpoint)
        self._fresh.append(client)
        return client

    def name(self, index: int) -> str:
        """Return what to call a member."""
        return self.targets[index % len(self.targets)].name

    def sleep(self, seconds: float) -> None:
        """Wait. Raises Stopped where the run is being interrupted."""
        if self._stop.wait(max(seconds, 0.0)):
            raise Stopped

    def until(self, condition: Callable[[], T | None], within_s: float) -> T | None:
        """Asks until the answer is neither None nor False; returns it, or None after so many seconds."""
        deadline = time.monotonic() + within_s
        while True:
            answer = condition()
            if answer is not None and answer is not False:
                return answer
            if time.monotonic() >= deadline:
                return None
            self.sleep(POLL_S)

    def together(self, works: Iterable[Callable[[], T]]) -> list[T]:
        """Run functions at the same time, a thread each; return their answers, or raise the first error."""
        works = list(works)
        with concurrent.futures.ThreadPoolExecutor(len(works)) as pool:
            futures = [pool.submit(work) for work in works]
            return [future.result() for future in futures]

    def close(self) -> None:
        """Delete the test's keys where that can be done, and close the clients."""
        clients = [*self._clients.values(), *self._fresh]
        for client in clients:
            try:
                client.delete(self.prefix, range_end=self.end)
                break
            except ClusterError:
                continue
        for client in clients:
            client.close()


class Load:
    """A writer and readers beside each other, in threads: for so many seconds, and longer where a slow machine has not
    let each of them do enough to tell.

    Each works in a ``with`` of it; where one ends, by an error too, all do.

    Attributes:
        counts: what each has done, the writer first.
        over: the readers are to end.
    """

    ENOUGH = 5

    def __init__(self, readers: int, bounds: Bounds) -> None:
        self.counts = [0] * (1 + readers)
        self.over = False
        self._bounds = bounds
        self._began = time.monotonic()

    @property
    def goes_on(self) -> bool:
        """Whether the writer is to write once more."""
        took_s = time.monotonic() - self._began
        enough = min(self.counts) >= self.ENOUGH
        return not self.over and took_s < (self._bounds.load_s if enough else self._bounds.load_at_most_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.over = True

    def judge(self, writes: str) -> None:
        """Raise Inconclusive where one has not done enough; take what the writes are called."""
        if min(self.counts) < self.ENOUGH:
            raise Inconclusive(f"too little load to tell: {self.counts[0]} {writes}, {sum(self.counts[1:])} reads")


def expect(condition: bool, otherwise: str) -> None:
    """Raise Broken with the text where the condition does not hold."""
    if not condition:
        raise Broken(otherwise)


def judge(test: Test, env: Env, unreachable: Sequence[str] = ()) -> Result:
    """Run a test; return its result and raise nothing but what interrupts the program.

    ``unreachable`` are the endpoints that did not answer when the run began.
    """
    began = time.monotonic()
    try:
        verdict, reason = _verdict(test, env, unreachable)
        duration = time.monotonic() - began
    finally:
        with contextlib.suppress(ClusterError):
            env.close()
    return Result(test.name, test.promise, verdict, reason, round(duration, 3), dict(env.figures))


def _verdict(test: Test, env: Env, unreachable: Sequence[str]) -> tuple[Verdict, str]:
    try:
        reason = test.run(env)
        verdict = Verdict.PASS
        if test.needs_all and unreachable:
            verdict = Verdict.UNKNOWN
            reason = f"{', '.join(unreachable)} did not answer; on the others: {reason}"
    except Broken as exc:
        verdict, reason = Verdict.FAIL, str(exc)
    except Inconclusive as exc:
        verdict, reason = Verdict.UNKNOWN, str(exc)
    except NotApplicable as exc:
        verdict, reason = Verdict.SKIP, str(exc)
    except Stopped:
        verdict, reason = Verdict.UNKNOWN, "interrupted"
    except EtcdError as exc:
        refused = exc.code in _REFUSALS
        verdict = Verdict.FAIL if refused else Verdict.UNKNOWN
        reason = f"etcd {'refused a valid request' if refused else 'could not serve'}: {exc}"
    except ClusterError as exc:
        verdict, reason = Verdict.UNKNOWN, str(exc)
    return verdict, reason


def refused(call: Callable[[], object], names: Sequence[str], what: str) -> None:
    """Expect etcd to refuse a call with one of these errors, by etcd's names; raise Broken where it does not."""
    wanted = " or ".join(names)
    try:
        call()
    except EtcdError as exc:
        expect(exc.name in names, f"{what} was refused with {exc}, not with {wanted}")
        return
    raise Broken(f"{what} was accepted, not refused with {wanted}")


def ms(seconds: float) -> float:
    """Seconds as milliseconds, to the microsecond, for figures."""
    return round(seconds * 1000, 3)
