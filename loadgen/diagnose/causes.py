"""The rules of a diagnosis: from evidence to one word for the cluster, and one for each member.

Pure: the same evidence has the same answer. Each cause has a strength, which is how many times its figure is what is
usual: below 1 nothing is slow. What one cause adds to the figure of another is taken off first, as docs/diagnose.md
says of each. The strongest is the answer where the next one is far enough behind, and else it is unsure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cluster.local.cpu_times import LARGE_SHARE
from loadgen.diagnose import advice
from loadgen.diagnose.answer import Answer, Diagnosis, Figure
from loadgen.diagnose.parts import (
    CUT_OFF,
    ELECTIONS,
    GAVE_UP_MS,
    Parts,
    commit_in_the_way,
    fastest,
    large_bytes,
    parts_of,
    took_ms,
)

if TYPE_CHECKING:
    from cluster.schema.diagnose_documents import Word
    from loadgen.diagnose.facts import Evidence, MemberEvidence, Times

CONNECT_MS, PROCESSOR_MS, STORE_MS, AGREEMENT_MS = 10.0, 10.0, 10.0, 10.0
"""Up to where these parts are usual; a round of heartbeats takes a tenth of the default interval between them."""
SYNC_MS, COMMIT_MS = 10.0, 25.0
"""The same of syncs of the log and of commits of the database, as etcd's FAQ has it."""
WAIT_MS = 5.0
"""How long one may wait on average for a sync or a commit that is under way: half of what a sync may take."""
BURST_MS = 20.0
"""What a read or a write may take at the 99th percentile while there is work that comes in bursts."""
QUEUE = 50.0
"""Proposals that may wait in a busy cluster at one moment, beyond those that wait for disks."""
BYTES_MS = 20.0
"""How much longer a put of 16 KiB may take than one of some bytes: 6.5 Mbit/s."""
LAG_MS = 5.0
"""How late a client may read an answer, at the 99th percentile."""
MARGIN = 1.5
"""How many times stronger than the next best a cause has to be, to be the answer."""
# What an election by itself may cost: of what is stronger it is a consequence.
_OF_ELECTIONS = 3.0
_QUOTA, _CPU_SHARE = 0.8, 0.85
# Of a load's requests, the share that fails from which on a cluster is not healthy.
_FAILED = 0.01
# In a linearizable read the Raft loops of the leader, of a follower and of the member that is asked take part, each of
# which may be in a sync, and then begins another one for what has come meanwhile. At each member four goroutines or
# more have their turns: the connection's, the reader's, the Raft loop's, and the one that sends to a peer.
_SYNCS_OF_A_READ, _RUNS_OF_A_READ = 3.0, 4.0
_RUNS_OF_A_STATUS = 2.0
# A larger put is synced as often, and may meet others in the log.
_LOGS_OF_A_PUT = 1.0
# Of the median of what a load measured, what its client may add without a word on it.
_OF_LATENCY = 0.1


@dataclasses.dataclass(frozen=True, slots=True)
class Cause:
    """Something that may be slow.

    Attributes:
        word: what the answer is then.
        times: how many times its figure is what is usual.
        kind: of it, by which ``advice`` has its sentence.
        figures: what decides.
        member: at whom; empty for no member.
    """

    word: Word
    times: float
    kind: advice.Kind
    figures: tuple[Figure, ...]
    member: str = ""


def diagnose(evidence: Evidence) -> Diagnosis:
    """Return what is slow."""
    found = _Causes(evidence)
    of_member = {name: found.of_member(each) for name, each in found.parts.items()}
    of_cluster = found.of_cluster()
    members = {
        name: advice.silent([each.evidence]) if is_silent(each.evidence) else _answer(of_member[name], name)
        for name, each in found.parts.items()
    }
    every = [*of_cluster, *(cause for causes in of_member.values() for cause in causes)]
    return Diagnosis(found.verdict(every), members, evidence, found.notes())


class _Inside(NamedTuple):
    """What a request waits for beside messages between members, in milliseconds.

    ``lag`` is of its client and of the way to it.
    """

    processors: float
    disks: float
    lag: float


class _Causes:
    """What may be slow by one evidence."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.parts = parts_of(evidence)
        self._voters = [each for each in self.parts.values() if not each.evidence.learns]
        self._leader = max(self._voters, key=lambda each: each.evidence.leads, default=None)
        # One that alone sees them has lost the leader from sight, and that is no election.
        seen = sorted(each.counts.get("leader_changes", 0) for each in evidence.members)
        self._changes = seen[len(seen) // 2] if seen else 0

    # ---- of a member

    def of_member(self, parts: Parts) -> list[Cause]:
        """Return what may be slow at a member, each with its strength; nothing of one that does not answer at all."""
        if is_silent(parts.evidence):
            return []
        found = [self._log(parts), self._database(parts), self._connection(parts), *self._processor(parts)]
        found += self._agreement(parts)
        found += [self._short_waits(parts), self._loop(parts), self._cut_off(parts)]
        found += self._heavy(parts)
        found.append(self._bandwidth(parts))
        return [cause for cause in found if cause is not None]

    def _log(self, parts: Parts) -> Cause | None:
        if parts.hangs:
            count = parts.evidence.histograms["wal_fsync"].count
            figures = (Figure("syncs of the log that ended", count), *_pending(parts.evidence))
            return Cause("disk", GAVE_UP_MS / SYNC_MS, "hung disk", figures, parts.name)
        if parts.sync is None:
            return None
        measured = parts.evidence.histograms["wal_fsync"]
        times = max(parts.sync / SYNC_MS, parts.sync_wait / WAIT_MS)
        figures = (
            Figure("sync of the log, p90", measured.p90_ms or 0.0, "ms", SYNC_MS),
            *((Figure("the longest", measured.most_ms, "ms"),) if measured.most_ms else ()),
        )
        kind: advice.Kind = "log" if parts.sync / SYNC_MS >= parts.sync_wait / WAIT_MS else "stalls"
        return self._of_disk(parts, times, kind, figures)

    def _database(self, parts: Parts) -> Cause | None:
        if parts.commit is None or parts.hangs:
            return None
        measured = parts.evidence.histograms["backend_commit"]
        times = max(parts.commit / COMMIT_MS, parts.commit_wait / (WAIT_MS * COMMIT_MS / SYNC_MS))
        figures = (
            Figure("commit of the database, p90", measured.p90_ms or 0.0, "ms", COMMIT_MS),
            *((Figure("the longest", measured.most_ms, "ms"),) if measured.most_ms else ()),
        )
        return self._of_disk(parts, times, "database", figures)

    def _of_disk(self, parts: Parts, times: float, kind: advice.Kind, figures: tuple[Figure, ...]) -> Cause:
        if parts.wrote_much:
            return Cause("overload", times, "written", (*_doing(parts.wrote_much), *figures), parts.name)
        return Cause("disk", times, kind, figures, parts.name)

    def _connection(self, parts: Parts) -> Cause | None:
        if parts.connect is None:
            return None
        figure = Figure("connection to it, p90", parts.connect, "ms", CONNECT_MS)
        return Cause("network", parts.connect / CONNECT_MS, "connection", (figure,), parts.name)

    def _processor(self, parts: Parts) -> list[Cause]:
        found = []
        if parts.processor is not None:
            found.append(self._of_processor(parts, parts.processor))
        if parts.store is not None and not parts.hangs:
            found.append(self._store(parts, parts.store))
        return found

    def _of_processor(self, parts: Parts, waits_ms: float) -> Cause:
        what = "least request or read of its own store" if parts.stands_still else "least request to it"
        figure = Figure(f"{what}, beyond the connection, p90", waits_ms, "ms", PROCESSOR_MS)
        if parts.busy:
            return Cause("overload", waits_ms / PROCESSOR_MS, "busy", (*_doing(parts.busy), figure), parts.name)
        cores = parts.evidence.rates.get("cpu_cores")
        used = () if cores is None else (Figure("CPU time that it used", cores, "processors"),)
        waited = parts.evidence.cpu_wait_share  # which the kernel of this machine knows, of its own processes
        late = () if waited is None else (Figure("of the time in which it was ready, without one", 100 * waited, "%"),)
        return Cause("cpu", waits_ms / PROCESSOR_MS, "processor", (figure, *used, *late), parts.name)

    def _store(self, parts: Parts, takes_ms: float) -> Cause:
        """Return how long somebody else holds the lock of a member's store: it is work that was asked of it.

        Of commits the disk decides how long they hold it, and a member without a processor is late with a read, too.
        """
        commits = commit_in_the_way(parts.evidence.histograms.get("backend_commit"))
        beyond = max(0.0, takes_ms - commits - _RUNS_OF_A_STATUS * (parts.processor or 0.0))
        figure = Figure("read of its own store, beyond the least request, p90", takes_ms, "ms", STORE_MS)
        return Cause("overload", beyond / STORE_MS, "store", (figure, *_doing(parts.busy)), parts.name)

    def _agreement(self, parts: Parts) -> list[Cause]:
        """Return how slow messages between members are, by what a linearizable read takes beyond their syncs.

        Where it is slow at the leader, its way to a majority is, and members that are asked wait for that, too.
        """
        if parts.agreement is None or self._leader is None or len(self._voters) < 2:
            return []
        beyond = self._beyond_agreement(parts)
        leader = self._leader
        if parts is not leader and leader.agreement is not None:
            # Beside what the leader waits for, its own way to the leader and back.
            beyond = max(0.0, beyond - self._beyond_agreement(leader))
        figure = Figure("agreement with a majority, p90", parts.agreement, "ms", AGREEMENT_MS)
        if self._has_too_much(leader) and not self._is_cut_off(parts):
            return [Cause("overload", beyond / AGREEMENT_MS, "busy", (*_doing(leader.busy), figure), leader.name)]
        kind: advice.Kind = "majority" if parts is leader else "leader's link"
        return [Cause("network", beyond / AGREEMENT_MS, kind, (figure,), parts.name)]

    def _short_waits(self, parts: Parts) -> Cause | None:
        """Return how much of a linearizable read is waits that are short each, and many."""
        agreed = self._agreed(parts)
        if agreed is None or self._leader is None or len(self._voters) < 2 or self._is_starved(parts):
            return None
        figure = Figure("agreement with a majority, p90", parts.agreement or agreed, "ms", AGREEMENT_MS)
        return self._of_short_waits(parts, agreed, self._inside(parts), figure)

    def _of_short_waits(self, parts: Parts, took_ms: float, inside: _Inside, figure: Figure) -> Cause:
        """Return the cause that is left of what `_agreement` takes off, where no log or processor alone is slow.

        A read has many turns at the processors of three members. Where members are busy, or have no processor when they
        are ready, short syncs and applies are late by that as well.
        """
        takes = took_ms - inside.lag
        busy = next((each for each in (parts, self._leader) if each is not None and each.busy), None)
        are_short = all(each.log_ms < SYNC_MS and (each.commit or 0.0) < COMMIT_MS for each in self._voters)
        if are_short and (busy is not None or self._lack_processors):
            takes = min(inside.processors + inside.disks, max(0.0, takes))
        else:
            takes = min(inside.processors, max(0.0, takes - inside.disks))
        if busy is None:
            return Cause("cpu", takes / AGREEMENT_MS, "turns", (figure,), parts.name)
        return Cause("overload", takes / AGREEMENT_MS, "short waits", (figure, *_doing(busy.busy)), busy.name)

    @property
    def _lack_processors(self) -> bool:
        """Whether a member was without a processor for so much of its time that a run is called contended."""
        return any((each.evidence.cpu_wait_share or 0.0) >= LARGE_SHARE for each in self._voters)

    def _loop(self, parts: Parts) -> Cause | None:
        """Return how long the leader's Raft loop stands still for something else than syncs and its processor.

        A turn sends messages, writes to the log, syncs it, and hands over what is to be applied: what is left is the
        write, which the kernel may hold up. etcd measures no write of a few bytes by itself. What waits for the loop
        takes as long, so where reads are faster it has many proposals at a time.
        """
        took = self._took[1] if parts.agreement is None else parts.agreement
        if parts is not self._leader or parts.turn is None or self._is_starved(parts) or took is None:
            return None
        mean_ms = parts.turn / 2
        beyond = parts.turn - 2 * (parts.sync or 0.0) - _RUNS_OF_A_READ * (parts.processor or 0.0)
        beyond = max(0.0, min(beyond, took))
        figure = Figure("turn of its Raft loop, on average", mean_ms, "ms", SYNC_MS)
        return self._of_disk(parts, beyond / SYNC_MS, "loop", (figure,))

    def _cut_off(self, parts: Parts) -> Cause | None:
        """Return whether one member alone does not know the leader that others follow, or loses it from sight."""
        mine = parts.evidence
        others = [each for each in self.evidence.members if each.name != parts.name]
        if not others or self._moves or parts.hangs or mine.counts.get("restarts") or self._is_starved(parts):
            return None
        away = max(0.0, mine.without_leader - max(each.without_leader for each in others))
        seen = mine.counts.get("leader_changes", 0) - max(each.counts.get("leader_changes", 0) for each in others)
        knew_none = Figure("time in which it knew no leader", 100 * away, "%", 100 * CUT_OFF)
        if away / CUT_OFF >= seen / ELECTIONS:
            return Cause("network", away / CUT_OFF, "cut off", (knew_none,), parts.name)
        alone = Figure("changes of the leader that it alone has seen", seen, "", 0)
        return Cause("network", seen / ELECTIONS, "lost from sight", (alone, knew_none), parts.name)

    def _bandwidth(self, parts: Parts) -> Cause | None:
        """Return how much longer a larger put takes: its bytes go over the links, and into the logs."""
        if parts.bytes is None or self._leader is None or len(self._voters) < 2:
            return None
        others = [each for each in self._voters if each is not self._leader]
        logs = _LOGS_OF_A_PUT * max(self._leader.log_ms, fastest(others, "log_ms"), parts.log_ms)
        applies = commit_in_the_way(parts.evidence.histograms.get("backend_commit"))
        beyond = max(0.0, parts.bytes - logs - applies - (self.evidence.client.lag_p99_ms or 0.0))
        if self._is_starved(parts):
            beyond = 0.0
        figure = Figure("put of 16 KiB, beyond one of 64 bytes, median", parts.bytes, "ms", BYTES_MS)
        if self._has_too_much(self._leader):
            return Cause("overload", beyond / BYTES_MS, "busy", (*_doing(self._leader.busy), figure), parts.name)
        return Cause("network", beyond / BYTES_MS, "bandwidth", (figure,), parts.name)

    def _is_starved(self, parts: Parts) -> bool:
        """Whether it or the leader gets so little of a processor that nothing is known of the way between them."""
        return any((each.processor or 0.0) >= PROCESSOR_MS for each in (parts, self._leader) if each is not None)

    def _heavy(self, parts: Parts) -> list[Cause]:
        """Return how long reads and writes take at a member that has work that keeps others waiting.

        That comes in bursts, of which a percentile that is high tells.
        """
        found = [parts.evidence.probes[kind] for kind in ("linearizable", "put") if kind in parts.evidence.probes]
        return self._waits(parts, found, parts.name)

    def _waits(self, parts: Parts, found: Sequence[Times], member: str) -> list[Cause]:
        if not parts.heavy or not found:
            return []
        other = (parts.connect or 0.0) + (self.evidence.client.lag_p99_ms or 0.0)
        p90 = max(took_ms(each) or 0.0 for each in found)
        p99 = max(each.p99_ms or 0.0 for each in found)
        times = max(0.0, p90 - other) / AGREEMENT_MS, max(0.0, p99 - other) / BURST_MS
        figure = Figure("read or write, p99", p99, "ms", BURST_MS)
        return [Cause("overload", max(times), "heavy", (*_doing(parts.heavy), figure), member)]

    def _beyond_agreement(self, parts: Parts) -> float:
        if self._is_starved(parts):
            return 0.0
        average = 0.0 if self._moves else parts.average or 0.0
        return max(0.0, max(self._agreed(parts) or 0.0, average) - sum(self._inside(parts)))

    def _agreed(self, parts: Parts) -> float | None:
        """Return what a linearizable read takes beyond a read of its own store.

        Of a cluster whose leader moves the median, since in an election all wait.
        """
        return parts.agreement_median if self._moves else parts.agreement

    def _inside(self, parts: Parts) -> _Inside:
        """Return what a linearizable read at a member waits for beside messages, at most."""
        leader = self._leader
        others = [each for each in self._voters if each is not leader]
        taking = [each for each in (leader, parts if parts is not leader else None) if each is not None]
        logs = sum(each.log_ms for each in taking) + fastest(others, "log_ms")
        runs = sum(each.processor or 0.0 for each in taking) + fastest(others, "processor")
        # The read waits until its member has applied what was committed, and a commit of the database is in the way.
        applies = commit_in_the_way(parts.evidence.histograms.get("backend_commit"))
        lag = self.evidence.client.lag_p99_ms or 0.0
        return _Inside(_RUNS_OF_A_READ * runs, _SYNCS_OF_A_READ * logs + applies, lag)

    def _is_cut_off(self, parts: Parts) -> bool:
        return parts.evidence.without_leader > CUT_OFF

    # ---- of the cluster

    def of_cluster(self) -> list[Cause]:
        """Return what may be slow and is of no member."""
        found = [cause for cause in (self._client(), *self._between(), self._queue()) if cause is not None]
        if self.evidence.load is not None:
            for parts in self.parts.values():
                found += self._waits(parts, [*self.evidence.load.operations.values()], "")
        return found

    def _client(self) -> Cause | None:
        client = self.evidence.client
        if client.lag_p99_ms is None and client.cpu_share is None:
            return None
        if large_bytes(self.evidence, "client_sent_bytes"):
            return None  # it is busy with the answers that it asks for
        lag = client.lag_p99_ms or 0.0
        load = self.evidence.load
        # What it adds may be little beside what it measured.
        times = 0.0 if load is not None and lag < _OF_LATENCY * (load.p50_ms or 0.0) else lag / LAG_MS
        figures = [Figure("answers that were ready, read late by, p99", lag, "ms", LAG_MS)]
        if client.cpu_share is not None and client.cpu_share >= _CPU_SHARE:
            figures.append(Figure("processor that its busiest process used", 100 * client.cpu_share, "%"))
            if self._is_out_of_cpu:
                times = max(times, MARGIN * 2)
        return Cause("client", times, "client", tuple(figures))

    @property
    def _is_out_of_cpu(self) -> bool:
        client = self.evidence.client
        return self.evidence.source == "run" and bool(client.saturated) and (client.cpu_share or 0.0) >= _CPU_SHARE

    def _between(self) -> list[Cause]:
        """Return how slow messages between members are, by what a run's operations took beyond all that is known.

        And how much of that is short waits, as in `_short_waits`.
        """
        leader, (are_reads, took) = self._leader, self._took
        if took is None or leader is None or len(self._voters) < 2 or self._is_out_of_cpu:
            return []  # a client that has no processor left measures its own wait
        # At whichever member it was: the way to it, its processor, its store, and what it waits for with the others.
        inside = max(map(self._inside_an_operation, self.parts.values()), key=sum)
        if not are_reads:  # a put is in the log of a majority
            logs = leader.log_ms + max(each.log_ms for each in self._voters if each is not leader)
            inside = inside._replace(disks=inside.disks + logs)
        what, percentile = "reads" if are_reads else "writes", "median" if self._moves else "p90"
        figure = Figure(f"{what} of the load, {percentile}", took, "ms")
        found = []
        if not any(map(self._is_starved, self.parts.values())):
            found.append(self._of_short_waits(leader, took, inside, figure))
        times = max(0.0, took - sum(inside)) / AGREEMENT_MS
        if self._has_too_much(leader):
            return [*found, Cause("overload", times, "busy", (*_doing(leader.busy), figure), leader.name)]
        return [*found, Cause("network", times, "between", (figure,))]

    @property
    def _took(self) -> tuple[bool, float | None]:
        """Whether a run's load has reads, and what one of ten of these takes or more; of writes where it has none."""
        load = self.evidence.load
        if load is None:
            return False, None
        reads = [each for name, each in load.operations.items() if name == "get" and each.count]
        asked = reads or [
            each for name, each in load.operations.items() if name in ("put", "txn", "cas") and each.count
        ]
        took = ((each.p50_ms if self._moves else took_ms(each, 0.34)) or 0.0 for each in asked)
        return bool(reads), max(took, default=None)

    def _inside_an_operation(self, parts: Parts) -> _Inside:
        inside = self._inside(parts)
        applies = commit_in_the_way(parts.evidence.histograms.get("backend_commit"))
        return _Inside(
            inside.processors + (parts.processor or 0.0), inside.disks + applies, inside.lag + (parts.connect or 0.0)
        )

    def _has_too_much(self, leader: Parts) -> bool:
        """Whether what comes late from a leader does so since it has too much to do: not of each one that is busy."""
        if not leader.busy:
            return False
        queue = self._queue()
        late = (leader.processor or 0.0) >= PROCESSOR_MS / 2
        # What holds its store, as hashes of it do, keeps what it applies.
        held = self._store(leader, leader.store).times >= 1 if leader.store is not None else False
        return bool(leader.heavy) or late or held or (queue is not None and queue.times >= 1)

    def _queue(self) -> Cause | None:
        """Return whether more proposals wait in a busy cluster than its disks explain; etcd's docs call it a high load.

        Each waits at the member that got it. Of those that a sync of the log keeps, there are as many as come meanwhile
        (Little's law).
        """
        leader = self._leader
        if leader is None or not leader.busy:
            return None
        waits = sum(each.evidence.highest.get("proposals_pending", 0.0) for each in self.parts.values())
        others = [each for each in self._voters if each is not leader]
        synced_s = _SYNCS_OF_A_READ * (leader.log_ms + fastest(others, "log_ms")) / 1e3
        beyond = max(0.0, waits - leader.evidence.rates.get("proposals", 0.0) * synced_s)
        figure = Figure("proposals that waited at one moment, at all members", waits, "", QUEUE)
        return Cause("overload", beyond / QUEUE, "queue", (figure, *_doing(leader.busy)))

    # ---- the verdict

    def verdict(self, causes: Sequence[Cause]) -> Answer:
        """Return the answer for the cluster. Takes all that may be slow."""
        silent = [each for each in self.evidence.members if is_silent(each)]
        strongest = max((cause.times for cause in causes), default=0.0)
        if silent and strongest < GAVE_UP_MS / CONNECT_MS / 2:
            return advice.silent(silent)
        if not causes and not any(each.probes or each.histograms for each in self.evidence.members):
            return advice.unknown()
        if self._moves and strongest < _OF_ELECTIONS:
            return advice.elections(
                Figure("changes of the leader", self._changes, "", 0),
                Figure("time without a leader", 100 * self.evidence.leaderless, "%", 100 * CUT_OFF),
            )
        load = self.evidence.load
        if strongest < 1 and load is not None and load.failed_share >= _FAILED:
            return advice.failing(
                Figure("requests of the load that failed", 100 * load.failed_share, "%", 100 * _FAILED)
            )
        return _answer(causes)

    @property
    def _moves(self) -> bool:
        return self._changes >= ELECTIONS or self.evidence.leaderless > CUT_OFF

    def notes(self) -> list[str]:
        """Return what a reader should know beside the answers."""
        found = []
        for each in self.evidence.members:
            size, quota = each.highest.get("db_size"), each.highest.get("quota")
            if size and quota and size >= _QUOTA * quota:
                found.append(
                    f"{each.name}'s database has {100 * size / quota:.0f} % of its quota: at 100 % it takes no writes; "
                    "compact and defragment it, or raise --quota-backend-bytes"
                )
            if again := each.counts.get("restarts"):
                found.append(f"{each.name} was started again {again} {'times' if again > 1 else 'time'} meanwhile")
        if self._changes >= 1:
            found.append(f"{self._changes} elections or moves of the leader were seen meanwhile")
        return found


def _answer(causes: Sequence[Cause], member: str = "") -> Answer:
    """Return the answer that causes make: of the cluster, or of a member."""
    best: dict[Word, Cause] = {}
    for cause in causes:
        if cause.times > best.get(cause.word, Cause(cause.word, 0.0, cause.kind, ())).times:
            best[cause.word] = cause
    ordered = sorted(best.values(), key=lambda cause: -cause.times)
    if not ordered or ordered[0].times < 1:
        figures = tuple(cause.figures[0] for cause in ordered if cause.figures[0].limit is not None)
        return advice.healthy(figures[:2])
    first, *others = ordered
    second = others[0] if others and others[0].times >= 1 / MARGIN else None
    margin = first.times / second.times if second is not None else None
    if margin is not None and second is not None and margin < MARGIN:
        return advice.unsure(first.word, second.word, (*first.figures[:2], *second.figures[:1]), margin, bool(member))
    alike = {
        cause.member: None for cause in causes
        if cause.kind == first.kind and cause.times >= max(1.0, first.times / MARGIN)
        and cause.member not in ("", first.member)
    }  # fmt: skip
    return Answer(
        first.word, advice.why(first.kind, first.member, first.figures, alike), first.figures[:3],
        second.word if second is not None else None, margin, advice.what_to_do(first.kind, first.member),
    )  # fmt: skip


def is_silent(member: MemberEvidence) -> bool:
    """Return whether a member was asked and answers nobody, not even its kernel."""
    connect = member.probes.get("connect")
    return member.answers == 0 and not member.rates and (connect is None or not connect.count)


def _doing(found: Mapping[str, tuple[float, str]]) -> tuple[Figure, ...]:
    return tuple(Figure(name, value, unit) for name, (value, unit) in found.items())[:2]


def _pending(member: MemberEvidence) -> tuple[Figure, ...]:
    waits = member.highest.get("proposals_pending")
    return (Figure("proposals that waited", waits),) if waits else ()
