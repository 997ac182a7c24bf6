"""What each part of a cluster takes at a member: the differences between probes, and the member's own figures.

All times are milliseconds at the 90th percentile, unless a name says otherwise. docs/diagnose.md says which part of
etcd each probe takes beyond the one before, and where that stands in etcd's source.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from loadgen.diagnose.facts import Evidence, MemberEvidence, Times

GAVE_UP_MS = 2000.0
"""What a probe took that failed: it is given up then."""
CUT_OFF = 0.05
"""Of a member's answers, or of a cluster's time, the share without a leader from which on that is no accident."""
ELECTIONS = 2
"""Elections in one interval that are more than an accident."""
# Of probes that failed, the share from which on one of ten took too long; while leaders change some are refused.
_FAILED, _FAILED_IN_ELECTIONS = 0.1, 0.34
# How long one waits on average for a sync or a commit that is under way, from which on it stands still now and then.
_STALLS_MS = 2.0
# A sync that does not return is not counted; its member has noted few, and short ones, while others noted many.
_FEW, _ENOUGH_SYNCS, _SHORT_SYNC_MS = 0.25, 10, 10.0
# Of a time, the share in which one led from which on it was the leader; and the proposals for each turn of its loop
# from which on that has no pause.
_MOSTLY, _WITHOUT_PAUSE = 0.5, 2.0


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    """What the parts take at one member, in milliseconds; None where that was not measured.

    Attributes:
        evidence: what it is made of.
        connect: the network between client and member.
        processor: what the member takes for the least request beyond that.
        store: what a status or a serializable read takes beyond that: the lock of its store.
        agreement: what a linearizable read takes beyond a serializable one: the network between members, and their
            Raft loops, which wait for syncs.
        agreement_median: the same at the median: of a cluster whose leader is away again and again, what it takes at
            other times.
        average: what linearizable reads and writes take on average, failures included, beyond a read of its own store.
            Of a member that is stuck now and then it is large, and no percentile of few requests need be.
        bytes: how much longer a put of 16 KiB takes than one of some bytes, at the median.
        sync, sync_wait: a sync of the log without the wait for a processor after it; how long one waits on average
            for the one that is under way.
        commit, commit_wait: likewise of the database.
        hangs: whether a sync of it does not return.
        stands_still: whether it stands still now and then: then the least request takes as long as a read of its store,
            and both count for ``processor``.
        turn: of a leader whose Raft loop has no pause, how long a turn of it takes, as one of ten does; else None.
        heavy: work of kinds that keep others waiting, in words, each with its figure and unit: large requests and
            answers, compaction, defragmentation, watchers that are behind. Empty where it has none.
        busy: the same, and how much of a processor it used, where that is much.
        wrote_much: of that work, what its disk has to do.
    """

    evidence: MemberEvidence
    connect: float | None
    processor: float | None
    store: float | None
    agreement: float | None
    agreement_median: float | None
    average: float | None
    bytes: float | None
    sync: float | None
    sync_wait: float
    commit: float | None
    commit_wait: float
    hangs: bool
    stands_still: bool
    turn: float | None
    heavy: Mapping[str, tuple[float, str]]
    busy: Mapping[str, tuple[float, str]]
    wrote_much: Mapping[str, tuple[float, str]]

    @property
    def name(self) -> str:
        """Of the member."""
        return self.evidence.name

    @property
    def log_ms(self) -> float:
        """How long its Raft loop may stand still for its log, or for whatever else a turn of it does."""
        if self.hangs:
            return GAVE_UP_MS
        longest = self.evidence.histograms["wal_fsync"].most_ms if self.sync_wait >= _STALLS_MS else None
        return max(self.sync or 0.0, longest or 0.0, self.turn or 0.0)


def parts_of(evidence: Evidence) -> dict[str, Parts]:
    """Return the parts of each member, by its name."""
    asked, answered = (large_bytes(evidence, f"client_{way}_bytes") for way in ("received", "sent"))
    return {
        member.name: _parts(member, evidence, _work_of(member, asked, answered)) for member in evidence.members
    }  # fmt: skip


def _parts(member: MemberEvidence, evidence: Evidence, work: _Work) -> Parts:
    stuck = _FAILED_IN_ELECTIONS if member.counts.get("leader_changes", 0) >= ELECTIONS else _FAILED
    took = {kind: took_ms(times, stuck) for kind, times in member.probes.items()}
    sync, commit = (member.histograms.get(name) for name in ("wal_fsync", "backend_commit"))
    hangs = _hangs(member, evidence, took.get("status"))
    connect, listed, status = took.get("connect"), took.get("members"), took.get("status")
    locks = [each for each in (status, took.get("serializable")) if each is not None]
    if listed is None:
        # An observer that asks for the status alone, as over JSON or of an older raftload: it waits for a commit that
        # is under way.
        listed, locks = _less(status, commit_in_the_way(commit)), []
        listed = None if hangs else listed
    lag = evidence.client.lag_p99_ms or 0.0 if evidence.source == "probes" else 0.0
    stands_still = "members" in took and _is_as_slow(member.probes["members"], locks, member)
    if stands_still:
        listed, locks = max(listed or 0.0, *locks), []
    processor = _less(listed, (connect or 0.0) + lag)
    # A sync that has ended waits for the processor, which comes on top of what the request waits for.
    waits, base = processor or 0.0, max([*locks, listed or 0.0])
    return Parts(
        member, _less(connect, 0.0), processor,
        _less(max(locks, default=None), (listed or 0.0) + lag),
        _less(took.get("linearizable"), base), _agreement_median(member), _less(_average(member), base),
        _of_bytes(member),
        _less(sync.p90_ms if sync else None, 2 * waits), _less(sync.wait_ms if sync else None, waits) or 0.0,
        _less(commit.p90_ms if commit else None, 2 * waits), _less(commit.wait_ms if commit else None, waits) or 0.0,
        hangs, stands_still, _turn(member, evidence), work.heavy, work.busy, work.wrote_much,
    )  # fmt: skip


def took_ms(times: Times, stuck: float = _FAILED) -> float | None:
    """Return how long a probe took, failures included, where so large a share of them failed; None if none was made."""
    tried = times.count + times.failed
    if not tried:
        return None
    return GAVE_UP_MS if times.failed >= max(1, stuck * tried) else times.p90_ms


def _is_as_slow(least: Times, locks: Sequence[float], member: MemberEvidence) -> bool:
    """Whether the least request to a member takes now and then what reads of its store do: then nobody holds that.

    Percentiles of some twenty questions differ by chance, which of both kinds they meet; the longest one of each and
    their averages do not.
    """
    takes = max(locks, default=0.0)
    others = [member.probes[kind].mean_ms or 0.0 for kind in ("status", "serializable") if kind in member.probes]
    return (
        takes >= _SHORT_SYNC_MS
        and (least.most_ms or 0.0) >= takes / 2
        and (least.mean_ms or 0.0) >= max(others, default=0.0) / 4
    )


def _agreement_median(member: MemberEvidence) -> float | None:
    times = member.probes.get("linearizable")
    if times is None or not times.count + times.failed:
        return None
    if times.failed >= times.count:
        return GAVE_UP_MS
    least = [member.probes[kind].p50_ms or 0.0 for kind in ("members", "serializable") if kind in member.probes]
    return _less(times.p50_ms, max(least, default=0.0))


def _turn(member: MemberEvidence, evidence: Evidence) -> float | None:
    """Return how long a turn of a leader's Raft loop takes at one of ten, where it has no pause.

    A turn syncs the log once for all proposals that came during the one before. Where at least two have come each time,
    it goes from turn to turn. Of times that vary, one of ten is twice their average or more.
    """
    synced = member.histograms.get("wal_fsync")
    if synced is None or not synced.count or member.leads < _MOSTLY or not evidence.seconds:
        return None
    if evidence.leaderless > CUT_OFF or member.counts.get("leader_changes"):
        return None
    turns_s = synced.count / evidence.seconds
    return 2 * 1e3 / turns_s if member.rates.get("proposals", 0.0) >= _WITHOUT_PAUSE * turns_s else None


def _average(member: MemberEvidence) -> float | None:
    found = [member.probes[kind] for kind in ("linearizable", "put", "large_put") if kind in member.probes]
    tried = sum(each.count + each.failed for each in found)
    total = sum((each.mean_ms or 0.0) * each.count + GAVE_UP_MS * each.failed for each in found)
    return total / tried if tried else None


def _of_bytes(member: MemberEvidence) -> float | None:
    small, large = (member.probes.get(kind) for kind in ("put", "large_put"))
    if small is None or large is None or small.p50_ms is None or large.p50_ms is None:
        return None
    return max(0.0, large.p50_ms - small.p50_ms)


def _less(value: float | None, part: float) -> float | None:
    return None if value is None else max(0.0, value - part)


def commit_in_the_way(commit: Times | None) -> float:
    """Return for how long commits of the database may keep a read of the store, in milliseconds.

    It may come while one holds the lock, and wait for the next one as well, which was there before it.
    """
    if commit is None:
        return 0.0
    stuck = commit.most_ms if (commit.wait_ms or 0.0) >= _STALLS_MS else None
    return max(2 * (commit.p90_ms or 0.0), stuck or 0.0)


def _hangs(member: MemberEvidence, evidence: Evidence, status_ms: float | None) -> bool:
    """Whether a sync of a member does not return.

    Its own figures have few syncs, and short ones, and few applies, while others noted many. It is no member that is
    cut off: it knows its leader, and has work that waits, or its status waits for the lock that the commit holds. One
    whose link loses messages syncs seldom, too, since it gets many entries at once; but it applies all of them.
    """
    mine = member.histograms.get("wal_fsync")
    if mine is None or member.without_leader > CUT_OFF:
        return False
    if not (member.highest.get("proposals_pending", 0) >= 1 or status_ms is None or status_ms >= GAVE_UP_MS):
        return False
    if mine.count == 0 and member.leads:
        return True
    others = [each for each in evidence.members if each.name != member.name]
    most = max((each.histograms["wal_fsync"].count for each in others if "wal_fsync" in each.histograms), default=0)
    if most < _ENOUGH_SYNCS or mine.count > _FEW * most or (mine.p90_ms or 0.0) >= _SHORT_SYNC_MS:
        return False
    return _applied(member) <= _FEW * max(map(_applied, others), default=0.0)


def _applied(member: MemberEvidence) -> float:
    """Return how much a member has applied: entries, or writes where its release does not count these."""
    applies = member.histograms.get("apply")
    return (
        float(applies.count) if applies is not None else member.rates.get("puts", 0.0) + member.rates.get("txns", 0.0)
    )


# What a member is at

# A member that uses so much of a processor, or of those that its runtime has, is at work, and does not wait for one.
_CORES, _SHARE = 0.25, 0.7
_LARGE_BYTES, _MANY_BYTES_S = 64 << 10, 1e6
_COMPACTED_S, _PENDING_EVENTS, _SLOW_WATCHERS = 1000.0, 1000.0, 1.0


class _Work(NamedTuple):
    """What a member was at, as `Parts` has it: each holds what the one before it does, and more."""

    wrote_much: dict[str, tuple[float, str]]
    heavy: dict[str, tuple[float, str]]
    busy: dict[str, tuple[float, str]]


def _work_of(member: MemberEvidence, asked: float | None, answered: float | None) -> _Work:
    """Return what a member was at. Takes the mean size of the cluster's requests and of its answers, where large."""
    rates, highest = member.rates, member.highest
    wrote = {}
    if asked:
        wrote["size of a request, on average"] = asked / 1024, "KiB"
    if (keys := rates.get("compacted_keys", 0.0)) >= _COMPACTED_S:
        wrote["keys that compaction removed"] = keys, "/s"
    if highest.get("defragmenting", 0.0):
        wrote["defragmentations under way"] = 1.0, ""
    heavy = {**wrote}
    if answered:
        heavy["sent to clients for each request, on average"] = answered / 1024, "KiB"
    if (events := highest.get("pending_events", 0.0)) >= _PENDING_EVENTS:
        heavy["events that waited to be sent to watchers"] = events, ""
    if (slow := highest.get("slow_watchers", 0.0)) >= _SLOW_WATCHERS:
        heavy["watchers that were behind"] = slow, ""
    busy = {**heavy}
    cores, runs_on = rates.get("cpu_cores", 0.0), highest.get("gomaxprocs", 0.0)
    if cores >= _CORES or (runs_on and cores >= _SHARE * runs_on):
        busy["CPU time that it used"] = cores, "processors"
    return _Work(wrote, heavy, busy)


def large_bytes(evidence: Evidence, rate: str) -> float | None:
    """Return the mean size of the cluster's requests or answers in bytes, where these are large and many."""
    rates = [each.rates for each in evidence.members]
    bytes_s = sum(each.get(rate, 0.0) for each in rates)
    # What is written is counted by each member, and what is read by the one that was asked.
    written = max((each.get("puts", 0.0) + each.get("txns", 0.0) for each in rates), default=0.0)
    requests = written + sum(each.get("ranges", 0.0) for each in rates)
    size = bytes_s / max(requests, 1.0)
    return size if bytes_s >= _MANY_BYTES_S and size >= _LARGE_BYTES else None


def fastest(parts: Sequence[Parts], value: str) -> float:
    """Return the least of a figure among members; 0 where nobody has it."""
    found = [getattr(each, value) for each in parts]
    return min((each for each in found if each is not None), default=0.0)
