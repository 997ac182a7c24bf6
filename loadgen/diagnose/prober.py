"""The probes of a diagnosis: a minute of small requests of several kinds at each member of somebody's cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import gevent
import gevent.event
import gevent.socket

from cluster.base.dial import connect
from cluster.base.endpoint import Endpoint
from cluster.base.errors import ClusterError, RaftloadError
from cluster.base.security import Security
from cluster.observe import calls, metrics
from cluster.observe.record import Poll, Scrape
from loadgen.client.channel import tls_options
from loadgen.client.connect_errors import HINTS, ConnectError
from loadgen.client.etcd import EtcdClient, MemberInfo, probe_all
from loadgen.diagnose import observed
from loadgen.diagnose.facts import PROBES, ClientEvidence, Evidence, MemberEvidence, Times
from loadgen.history.operation import Operation, Outcome
from loadgen.load.keyspace import KeySpace, KeySpaceError
from loadgen.load.loop_lag import LoopLag
from loadgen.load.settings import Settings
from loadgen.proto import etcd_pb2 as pb
from loadgen.wire import Code

if TYPE_CHECKING:
    from cluster.local.cpu_times import CpuTimes

MOST_PER_S = 20.0
"""Requests a second, of all probes at all members together, that are never exceeded."""
TIMEOUT_S = 2.0
"""How long a probe may take; one that takes longer has failed."""
SCRAPE_S = 5.0
LARGE_BYTES = 16 << 10
_SMALL_BYTES = 64
# Of MOST_PER_S what the rounds take, so that they keep their pace.
_PACE_PER_S = 18.0
_REQUESTS = tuple(each for each in PROBES if each != "connect")
_WRITES = ("put", "large_put")
# A member that is slow takes long to log somebody in, too.
_FIRST_S = 5.0
_TICK_S = 0.2
# Of the connections over TLS the share that is left out: a handshake takes 2 ms of a processor here, and as much there,
# and what it takes here all other answers wait for.
_SPARED_TLS = 0.5

_DENIED, _LEARNER, _FULL = "PermissionDenied", "NotSupportedForLearner", "NoSpace"
# Refusals that say as much of the member as an answer: it has done all that the probe is about before it refuses.
_AS_GOOD = {
    "members": (_DENIED, _LEARNER), "status": (_DENIED,), "linearizable": (_DENIED,),
}  # fmt: skip
# Whom those follow whose metrics alone are known.
_SOMEBODY = "somebody"
# What no repetition changes.
_FINAL = (_DENIED, _LEARNER, _FULL)


class _Pace:
    """Lets requests go one by one, never more than MOST_PER_S in a second."""

    def __init__(self) -> None:
        self._next = 0.0
        self.sent = 0

    def wait(self) -> None:
        """Wait for the turn of the next request."""
        now = time.monotonic()
        at = max(now, self._next)
        self._next = at + 1 / MOST_PER_S
        gevent.sleep(at - now)
        self.sent += 1


class _Member:
    """One member: its probes, one after the other, and what came of them."""

    def __init__(self, url: str, info: MemberInfo | None, security: Security) -> None:
        self.url = url
        self.endpoint = Endpoint.parse(security.url(url))
        self.client = EtcdClient([url], timeout_s=TIMEOUT_S, security=security)
        self.id = info.member_id if info is not None else 0
        self.version = info.version if info is not None else ""
        self.name = ""
        self.learns = info is not None and info.is_learner
        self.samples: dict[str, list[float]] = {each: [] for each in PROBES}
        self.failed = dict.fromkeys(PROBES, 0)
        self.left_out: set[str] = set()
        self.polls: list[Poll] = []
        self.scrapes: list[Scrape] = []
        self._wrote = self._is_unsure = self._is_writing = False
        # It shows its status to other users only: who leads is read from its metrics then.
        self.hides_status = info is not None and not info.member_id
        self._standing: tuple[str, str] = "", ""
        self._tls = tls_options([self.endpoint], security)
        self._address: tuple[int, object] | None = None

    @property
    def wrote(self) -> bool:
        """Whether it was given keys that are to be removed."""
        return self._wrote or self._is_writing

    @property
    def is_unsure(self) -> bool:
        """Whether it was given keys of which nobody knows what became."""
        return self._is_unsure or self._is_writing

    # ---- the connection

    def connect(self) -> float:
        """Return how long a connection takes, in milliseconds. Raises OSError and ConnectError."""
        if self._address is None or self.endpoint.path:
            # The first one asks for the address, which is no matter of the network to the member.
            with contextlib.closing(connect(self.endpoint, TIMEOUT_S, gevent.socket)) as opened:
                self._greet(opened)
                if not self.endpoint.path:
                    self._address = opened.family, opened.getpeername()
        family, address = self._address or (gevent.socket.AF_UNIX, self.endpoint.path)
        with contextlib.closing(gevent.socket.socket(family, gevent.socket.SOCK_STREAM)) as opened:
            opened.settimeout(TIMEOUT_S)
            began = time.perf_counter()
            opened.connect(address)
            took_ms = (time.perf_counter() - began) * 1e3
            with contextlib.suppress(OSError):
                self._greet(opened)
        return took_ms

    def _greet(self, opened: object) -> None:
        """Shake hands where TLS is spoken: etcd logs each connection that ends before that."""
        if self._tls is not None:
            self._tls.begin(self.endpoint.tls_name).handshake(opened, time.monotonic() + TIMEOUT_S)  # type: ignore[arg-type]

    # ---- the requests

    def ask(self, kind: str, key: bytes, rng: random.Random) -> Operation:
        """Make one of the probes that are requests."""
        client = self.client
        if kind == "members":
            return client.member_list(linearizable=False)
        if kind == "status":
            return client.status()
        if kind in ("serializable", "linearizable"):
            return client.get(key, serializable=kind == "serializable")
        self._is_writing = True
        # Random, since a file system or a link may compress.
        if kind == "put":
            return client.put(key, rng.randbytes(_SMALL_BYTES))
        return client.put(key + b"/large", rng.randbytes(LARGE_BYTES))  # which no read is to carry

    def take(self, kind: str, done: Operation, at: float) -> str | None:
        """Take a request that has ended, and when it was sent; return the error for which it is not asked again."""
        took_ms = (done.return_ns - done.call_ns) / 1e6
        self._is_writing = False
        answered = done.outcome is Outcome.OK or done.error in _AS_GOOD.get(kind, ())
        if answered:
            self.samples[kind].append(took_ms)
        elif done.error in _FINAL:
            self.left_out.add(kind)
            return done.error
        else:
            self.failed[kind] += 1
            self._is_unsure |= kind in _WRITES and done.outcome is Outcome.INFO
        self._wrote |= kind in _WRITES and done.outcome is not Outcome.FAIL
        if kind == "status":
            self.hides_status = done.error == _DENIED
            self.polls.append(self._poll(done, at, took_ms if answered else None))
        return None

    def _poll(self, done: Operation, at: float, took_ms: float | None) -> Poll:
        said = done.response
        if said is None:
            reason = "timeout" if done.error == Code.DEADLINE_EXCEEDED.name else done.error or ""
            answers, standing = took_ms is not None, self._standing if took_ms is not None else ("", "")
            return Poll(at, self.url, answers, *standing, None, None, None, None, None, took_ms, reason)
        self.id, self.version, self.learns = said.header.member_id, said.version, said.isLearner
        role = "learner" if said.isLearner else "follower" if said.leader else "no leader"
        role = "leader" if said.leader and said.leader == said.header.member_id else role
        leader = f"{said.leader:x}" if said.leader else ""
        return Poll(
            at, self.url, True, role, leader, said.raftTerm, said.raftIndex, said.raftAppliedIndex,
            said.header.revision, said.dbSize, took_ms, "; ".join(said.errors),
        )  # fmt: skip

    def take_metrics(self, text: str, at: float) -> None:
        """Take the text of its metrics, and when it was asked for them. Raises ValueError."""
        found = metrics.parse(text)
        if not found.values:
            return
        self.scrapes.append(Scrape(at, self.url, "", found))
        if self.hides_status:
            said = metrics.standing(text)
            self.id, self.version, self.learns = said.member_id, said.version, said.learns
            role = "learner" if said.learns else "leader" if said.leads else "follower" if said.follows else "no leader"
            self._standing = role, "" if role == "no leader" else _SOMEBODY

    def evidence(self, cpu_wait_share: float | None) -> MemberEvidence:
        """Return what the probes tell of it. Takes its wait for a processor, where that is known."""
        probes = {
            kind: Times.of(self.samples[kind], self.failed[kind])
            for kind in PROBES
            if self.samples[kind] or self.failed[kind]
        }
        return MemberEvidence(
            self.name, self.endpoint.authority, self.version, learns=self.learns, probes=probes,
            cpu_wait_share=cpu_wait_share,
        )  # fmt: skip


class Prober:
    """The probes of one diagnosis. Close it, which removes what it has written.

    Attributes:
        notes: what a reader should know of the evidence, a sentence each.
        elapsed_s: how long the probes have gone on.
    """

    def __init__(
        self, endpoints: Sequence[str], *, security: Security | None = None, prefix: bytes = b"",
        cpu_times: Callable[[], Mapping[str, CpuTimes]] | None = None, seed: int | None = None,
    ) -> None:  # fmt: skip
        """Find the members behind endpoints, and a prefix under which there is no key.

        Takes client URLs or ``host:port``; how to reach them; what the keys are to begin with, empty for five bytes
        that nobody uses; and what tells how long each member had a processor of this machine, where that is known.
        Raises ClusterError where no endpoint answers, SettingsError where there are keys under the prefix, and
        ValueError for a malformed endpoint.
        """
        self.notes: list[str] = []
        self._security = security = security or Security()
        self._rng = random.Random(seed)
        self._pace = _Pace()
        self._cpu_times = cpu_times
        self._stop = gevent.event.Event()
        self._began_at: float | None = None
        self._ended_at: float | None = None
        self._keys: KeySpace | None = None
        self._client: EtcdClient | None = None
        self._listed: list[pb.Member] = []
        self._members = self._found(endpoints)
        try:
            self._choose_prefix(prefix)
        except BaseException:
            self.close()
            raise

    def _found(self, endpoints: Sequence[str]) -> list[_Member]:
        """Return the members behind endpoints, one behind several of them once. Raises ClusterError."""
        found: list[_Member] = []
        answers = probe_all(endpoints, _FIRST_S, self._security)
        if all(isinstance(each, ConnectError) for each in answers.values()):
            raise ClusterError("no endpoint answers: " + "; ".join(map(str, answers.values())))
        for url, info in answers.items():
            if isinstance(info, ConnectError):
                self.notes.append(f"{info}; it is asked all the same")
                found.append(_Member(url, None, self._security))
                continue
            again = [each.url for each in found if info.member_id and each.id == info.member_id]
            if again:
                self.notes.append(f"{again[0]} and {url} lead to one member, which is asked through the first")
                continue
            found.append(_Member(url, info, self._security))
        for member in found:
            if member.learns:
                member.left_out.update(("linearizable", *_WRITES))
                self.notes.append(f"{member.endpoint.authority} is a learner: it serves serializable reads only")
        return found

    def _choose_prefix(self, wanted: bytes) -> None:
        """Find a prefix that is free; without one nothing is written. Raises SettingsError."""
        there = [each.url for each in self._members if each.id and not each.learns] or [self._members[0].url]
        self._client = EtcdClient(there, timeout_s=TIMEOUT_S, security=self._security)
        self._keys = KeySpace(self._client, Settings(endpoints=tuple(there), mix={"put": 1.0}), wanted)
        try:
            self._keys.prepare()
        except KeySpaceError as error:
            self._leave_out(_WRITES, f"nothing is written, and puts are not measured: {error}")

    def _leave_out(self, kinds: Sequence[str], note: str) -> None:
        for member in self._members:
            member.left_out.update(kinds)
        if note not in self.notes:
            self.notes.append(note)

    # ---- the minute

    @property
    def elapsed_s(self) -> float:
        """For how many seconds the probes have gone on."""
        if self._began_at is None:
            return 0.0
        return (self._ended_at or time.monotonic()) - self._began_at

    @property
    def sent(self) -> int:
        """How many requests were sent."""
        return self._pace.sent

    @property
    def failed(self) -> int:
        """How many probes have failed."""
        return sum(sum(each.failed.values()) for each in self._members)

    def describe(self) -> str:
        """Return in words what is sent."""
        prefix = self._keys.settings.prefix.decode("ascii") if self._keys is not None else ""
        sent = f"at most {MOST_PER_S:.0f} requests a second"
        return f"{sent}, with keys under {prefix}, which are removed" if prefix else f"{sent}, which write nothing"

    def stop(self) -> None:
        """End the probes before their time. For another greenlet."""
        self._stop.set()

    def run(self, seconds: float, tick: Callable[[], object] = lambda: None) -> Evidence:
        """Probe for so many seconds, or until ``stop``; return what came of it.

        ``tick`` is called five times a second.
        """
        self._warm_up()
        hub = gevent.get_hub()
        self._scrape_all()
        lag = LoopLag(hub)
        times = self._read_cpu_times()
        used = _cpu_s()
        self._began_at = time.monotonic()
        until = self._began_at + seconds
        greenlets = [gevent.spawn(self._rounds, at, member, until) for at, member in enumerate(self._members)]
        greenlets += [gevent.spawn(self._scrapes, member, until) for member in self._members]
        try:
            while (left := until - time.monotonic()) > 0 and not self._stop.wait(min(_TICK_S, left)):
                tick()
                for each in greenlets:
                    if each.ready():
                        each.get()
            self._stop.set()
            # What has been sent is waited for, as it would otherwise be missing just where it is slow.
            gevent.joinall(greenlets, timeout=TIMEOUT_S + 1, raise_error=True)
        finally:
            gevent.killall(greenlets)
            self._ended_at = time.monotonic()
            lag.stop()
        share = (_cpu_s() - used) / max(self.elapsed_s, 1e-9)
        waits = self._waits(times)
        self._scrape_all()
        self._name_members()
        return self._evidence(lag.percentile_ms(0.99), share, waits)

    def _warm_up(self) -> None:
        """Ask each member once, so that connections and logins are not measured, and for the members' names."""

        def ask(member: _Member) -> Operation:
            self._pace.wait()
            return member.client.member_list(linearizable=False)

        asked = [gevent.spawn(ask, member) for member in self._members]
        gevent.joinall(asked)
        for each in asked:
            done = each.get()
            if done.outcome is Outcome.OK:
                self._listed = [member for member in done.response.members if member.ID and member.name]
                return

    def _rounds(self, number: int, member: _Member, until: float) -> None:
        """Probe one member, round after round, each in another order and with uneven pauses."""
        rng = random.Random(self._rng.random())
        round_s = len(self._members) * len(_REQUESTS) / _PACE_PER_S
        key = (self._keys.settings.prefix if self._keys else b"") + b"%d" % number
        due = time.monotonic() + rng.random() * round_s
        while True:
            kinds = [each for each in PROBES if each not in member.left_out]
            rng.shuffle(kinds)
            for at, kind in enumerate(kinds):
                moment = due + round_s * (at + rng.random()) / len(kinds)
                if self._ends_before(moment, until):
                    return
                self._probe(member, kind, key, rng)
            due = max(due + round_s, time.monotonic())

    def _ends_before(self, moment: float, until: float) -> bool:
        """Wait for a moment; return whether the probes are over by then."""
        left = min(moment, until) - time.monotonic()
        return self._stop.wait(max(0.0, left)) or time.monotonic() >= until

    def _probe(self, member: _Member, kind: str, key: bytes, rng: random.Random) -> None:
        if kind == "connect":
            if member.endpoint.tls and rng.random() < _SPARED_TLS:
                return
            try:
                member.samples[kind].append(member.connect())
            except (OSError, ConnectError):
                member.failed[kind] += 1
            return
        if kind in member.left_out:
            return
        self._pace.wait()
        if self._stop.is_set():
            return
        at = time.time()
        error = member.take(kind, member.ask(kind, key, rng), at)
        if error == _LEARNER:
            return
        if error is not None and kind in _WRITES:
            self._leave_out(_WRITES, f"puts are not measured: {error}: {_WHY_REFUSED[error]}")
        elif error is not None:
            self._leave_out((kind,), f"{kind} reads are not measured: {error}: {_WHY_REFUSED[error]}")

    # ---- the members' own figures

    def _scrapes(self, member: _Member, until: float) -> None:
        due = time.monotonic() + SCRAPE_S
        while not self._ends_before(due, until):
            self._scrape(member)
            due = max(due + SCRAPE_S, time.monotonic())

    def _scrape_all(self) -> None:
        gevent.joinall([gevent.spawn(self._scrape, member) for member in self._members], raise_error=True)

    def _scrape(self, member: _Member) -> None:
        """Read a member's metrics, in a thread, as these are blocking sockets."""
        at = time.time()
        try:
            code, body = gevent.get_hub().threadpool.apply(
                calls.http, (str(member.endpoint), "GET", "/metrics", b"", TIMEOUT_S, self._security)
            )
            if code == 200:
                member.take_metrics(body.decode("utf-8", "replace"), at)
        except (RaftloadError, ValueError):
            return

    def _read_cpu_times(self) -> Mapping[str, CpuTimes]:
        if self._cpu_times is None:
            return {}
        try:
            return dict(self._cpu_times())
        except ClusterError:
            return {}

    def _waits(self, before: Mapping[str, CpuTimes]) -> dict[str, float]:
        """Return, by the member's name, how much of the time in which it would have run it waited for a processor."""
        waits = {}
        for name, (ran_ns, waited_ns) in self._read_cpu_times().items():
            if name in before:
                ran, waited = ran_ns - before[name].ran_ns, waited_ns - before[name].waited_ns
                if ran + waited > 0:
                    waits[name] = round(waited / (ran + waited), 4)
        return waits

    # ---- the end

    def _name_members(self) -> None:
        """Give each member the name that the cluster lists it by, and note who was not asked."""
        others = {each.ID: each.name for each in self._listed}
        for member in self._members:
            if not member.id:  # it never answered
                where = member.endpoint.authority
                member.id = next((each.ID for each in self._listed if where in map(_authority, each.clientURLs)), 0)
            member.name = others.pop(member.id, "") or member.endpoint.authority
        if others and len(others) < len(self._listed):
            names = ", ".join(sorted(others.values()))
            self.notes.append(f"of {len(self._listed)} members these were not asked: {names}")

    def _evidence(self, lag_ms: float, cpu_share: float, waits: Mapping[str, float]) -> Evidence:
        names = {f"{each.id:x}": each.name for each in self._members if each.id}
        polls = [
            dataclasses.replace(poll, member=each.name, leader=names.get(poll.leader, poll.leader))
            for each in self._members
            for poll in each.polls
        ]
        members = tuple(each.evidence(waits.get(each.name)) for each in self._members)
        for each in self._members:
            if len(each.scrapes) < 2:
                self.notes.append(f"{each.name}: its metrics cannot be read, so its own figures are missing")
        client = client_evidence(lag_ms, cpu_share, members)
        evidence = Evidence("probes", round(self.elapsed_s, 3), members, client=client)
        return observed.filled(evidence, polls, {each.name: each.scrapes for each in self._members})

    def close(self) -> None:
        """Remove the keys and close the connections; harmless when repeated.

        Where the keys cannot be removed, there is a note that says which.
        """
        if self._keys is not None and any(each.wrote for each in self._members):
            keys, self._keys = self._keys, None
            try:
                keys.remove()
                if any(each.is_unsure for each in self._members):
                    # A put that was given up may be on its way to the leader still.
                    gevent.sleep(1.0)
                    keys.remove()
            except KeySpaceError as error:
                prefix = keys.settings.prefix.decode("ascii", "replace")
                self.notes.append(f"{error}; they begin with {prefix}")
        if self._client is not None:
            self._client.close()
        for member in self._members:
            member.client.close()

    def __enter__(self) -> Prober:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_WHY_REFUSED = {
    _DENIED: "the user has no right to do that under the prefix of the probes; --prefix names one where it has",
    _LEARNER: HINTS[_LEARNER],
    _FULL: "the database is full, and an alarm stops every write; docs/diagnose.md says what to do",
}


def probe(
    endpoints: Sequence[str], seconds: float = 60.0, *, security: Security | None = None, prefix: bytes = b"",
    cpu_times: Callable[[], Mapping[str, CpuTimes]] | None = None,
) -> Evidence:  # fmt: skip
    """Probe a cluster for so many seconds, and remove what that wrote. Takes and raises what `Prober` does."""
    with Prober(endpoints, security=security, prefix=prefix, cpu_times=cpu_times) as prober:
        return prober.run(seconds)


def client_evidence(lag_p99_ms: float, cpu_share: float, members: Sequence[MemberEvidence]) -> ClientEvidence:
    """Return what is known of the prober.

    Takes its lag, its share of a processor, and what it measured: the lag is large where it is above 1 ms and a tenth
    of how long the slowest member took for the least request.
    """
    took = [each.probes["members"].p90_ms for each in members if "members" in each.probes]
    least_ms = max((each for each in took if each is not None), default=0.0)
    saturated = lag_p99_ms > max(1.0, least_ms / 10)
    why = f"it read answers up to {lag_p99_ms:.1f} ms late (p99)" if saturated else ""
    return ClientEvidence(round(lag_p99_ms, 3), round(cpu_share, 4), saturated, why)


def _authority(url: str) -> str:
    try:
        return Endpoint.parse(url).authority
    except ValueError:  # what a member advertises need not be one
        return ""


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
