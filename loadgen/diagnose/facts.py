"""The evidence of a diagnosis: what probes, members and the load generator tell of one interval of time.

It is plain values, so that it can be stored and judged again. `rules` makes a verdict of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from cluster.schema.diagnose_documents import EvidenceDocument, TimesDocument

SCHEMA = "raftload.evidence/1"

PROBES = {
    "connect": "a TCP connection, which the member's kernel accepts: the network between client and member alone",
    "members": "the members as the member knows them, for which it asks nobody and takes no lock of its store: its "
    "processor, too",
    "status": "the member's status, which has the revision of its store: the lock of the store, too",
    "serializable": "a serializable read of a key: the lock of the member's store, and the read",
    "linearizable": "a linearizable read of a key: a round of heartbeats between the leader and a majority, too",
    "put": "a put of some bytes: the log of a majority and its sync, and the apply, too",
    "large_put": "a put of 16 KiB: what more bytes cost, too",
}
"""The probes, and the parts of a cluster that each takes beyond the one before."""

HISTOGRAMS = {
    "wal_fsync": "a sync of the log",
    "backend_commit": "a commit of the database, with its sync",
    "apply": "the apply of an entry",
    "peer_round_trip": "a round trip to a peer, smoothed over a minute; a member notes one every 30 s",
}
"""What members measure themselves, and its unit of work."""

RATES = {
    "cpu_cores": "processors' worth of CPU time",
    "gc_pause_share": "the share of time in which garbage collection stopped it",
    "puts": "puts a second",
    "ranges": "reads a second",
    "txns": "transactions of more than one operation a second",
    "proposals": "proposals that were committed a second",
    "proposals_failed": "proposals that failed a second",
    "client_received_bytes": "bytes from clients a second",
    "client_sent_bytes": "bytes to clients a second",
    "peer_sent_bytes": "bytes to peers a second",
    "compacted_keys": "keys that compaction removed a second",
}
"""What members count, as rates."""

COUNTS = {
    "leader_changes": "elections that it has seen",
    "slow_applies": "applies that took 100 ms or more",
    "slow_reads": "linearizable reads that waited for a majority for long",
    "failed_reads": "linearizable reads that heard of no majority",
    "heartbeat_failures": "heartbeats that it could not send in time",
    "peer_failures": "messages to peers that failed",
    "snapshots": "snapshots of its store that it sent or took",
    "restarts": "times that it was started again",
}
"""What members count, as numbers of the interval."""

HIGHEST = {
    "proposals_pending": "proposals that waited",
    "apply_lag": "committed entries that were not applied",
    "slow_watchers": "watchers that were behind",
    "pending_events": "events that waited to be sent to watchers",
    "watchers": "watchers",
    "db_size": "bytes of its database",
    "db_in_use": "bytes of these in use",
    "quota": "bytes that its database may have",
    "rss_bytes": "bytes of memory",
    "goroutines": "goroutines",
    "defragmenting": "1 while it defragmented",
    "snapshots_in_progress": "snapshots that it was taking",
    "gomaxprocs": "processors that its runtime uses; from 3.6 on",
}
"""What members tell of a moment: the highest of the interval."""


@dataclasses.dataclass(frozen=True, slots=True)
class Times:
    """How long something took, in milliseconds.

    Attributes:
        count: how often it was done.
        failed: how often it was tried in vain, beside that; these took at least ``most_ms`` where they hung.
        p10_ms, p50_ms, p90_ms, p99_ms, most_ms: percentiles and the longest; None where nothing was done. Of a member's
            own histogram they are interpolated, and the longest is a bound of a bucket.
        mean_ms: the mean of what ended; None of a member's own histogram. It tells of what is stuck
            seldom, and then for long, where no percentile does.
        wait_ms: of a member's own histogram, how long somebody who comes at any moment waits on average for what is
            under way then: the sum of squares over twice the interval. It is small where it is done often and takes
            little, and large where it is stuck now and then, which no percentile tells. None of what clients measure.
    """

    count: int
    failed: int = 0
    p10_ms: float | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    most_ms: float | None = None
    wait_ms: float | None = None
    mean_ms: float | None = None

    @classmethod
    def of(cls, samples_ms: Iterable[float], failed: int = 0) -> Self:
        """Take durations in milliseconds, and how many tries failed; percentiles are of the nearest rank."""
        ordered = sorted(samples_ms)
        if not ordered:
            return cls(0, failed)
        ranks = [ordered[max(0, math.ceil(share * len(ordered)) - 1)] for share in (0.1, 0.5, 0.9, 0.99, 1.0)]
        p10, p50, p90, p99, most, mean = (round(each, 3) for each in (*ranks, sum(ordered) / len(ordered)))
        return cls(len(ordered), failed, p10, p50, p90, p99, most, mean_ms=mean)


@dataclasses.dataclass(frozen=True, slots=True)
class MemberEvidence:
    """What is known of one member.

    Attributes:
        name: of the member.
        endpoint: ``host:port`` of its clients' address.
        version: of its etcd; empty where it did not say.
        leads: the share of the interval in which it led.
        learns: whether it has no vote.
        answers: the share of questions for its status that it answered in time.
        without_leader: of these answers, the share in which it knew of no leader.
        probes: of those in PROBES that were made. Of a run these are ``connect``, ``members`` and
            ``status``, of the observer.
        histograms: of those in HISTOGRAMS that its release has.
        rates, counts, highest: likewise of RATES, COUNTS and HIGHEST.
        cpu_wait_share: of the time in which its threads would have run, how much they waited for a processor; None
            where only its own kernel knows.
    """

    name: str
    endpoint: str
    version: str = ""
    leads: float = 0.0
    learns: bool = False
    answers: float = 1.0
    without_leader: float = 0.0
    probes: Mapping[str, Times] = dataclasses.field(default_factory=dict)
    histograms: Mapping[str, Times] = dataclasses.field(default_factory=dict)
    rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    highest: Mapping[str, float] = dataclasses.field(default_factory=dict)
    cpu_wait_share: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class ClientEvidence:
    """What is known of the client: of the load generator of a run, or of the prober.

    Attributes:
        lag_p99_ms: how long a ready answer waited to be read, at the 99th percentile.
        cpu_share: of one processor, of its busiest process.
        saturated: whether what it added is a large part of what it measured; None where that is not known.
        why: the same in words; empty where it is not saturated.
    """

    lag_p99_ms: float | None = None
    cpu_share: float | None = None
    saturated: bool | None = None
    why: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class LoadEvidence:
    """What a run's own load saw; a diagnosis of endpoints has none.

    Attributes:
        rate: operations that succeeded a second.
        p50_ms, p99_ms: their latency.
        failed_share: of all operations.
        open: operations that were open on average.
        asked: operations a second that an open loop was to send; None of a closed one.
        operations: how long those of each type took from sending, by the type's name.
    """

    rate: float
    p50_ms: float | None
    p99_ms: float | None
    failed_share: float
    open: float
    asked: float | None = None
    operations: Mapping[str, Times] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a cluster in one interval.

    Attributes:
        source: ``probes``, of endpoints, or ``run``, of a run folder.
        seconds: how long the interval was.
        members: those that were asked.
        leaderless: the share of the interval in which no member said that it led, nor that it followed one that is
            silent.
        client, load: see there.
    """

    source: str
    seconds: float
    members: tuple[MemberEvidence, ...]
    leaderless: float = 0.0
    client: ClientEvidence = dataclasses.field(default_factory=ClientEvidence)
    load: LoadEvidence | None = None

    def to_json(self) -> EvidenceDocument:
        """Return it as plain values, as ``cluster/schema/diagnose_documents.py`` has them."""
        document: EvidenceDocument = {
            "schema": SCHEMA,
            "source": self.source,
            "seconds": round(self.seconds, 3),
            "leaderless": round(self.leaderless, 4),
            "client": dataclasses.asdict(self.client),  # type: ignore[typeddict-item]
            "load": dataclasses.asdict(self.load) if self.load else None,  # type: ignore[typeddict-item]
            "members": [dataclasses.asdict(each) for each in self.members],  # type: ignore[misc]
        }
        return document

    @classmethod
    def from_json(cls, document: EvidenceDocument) -> Self:
        """Take what ``to_json`` returned. Raises KeyError and TypeError for what is no such document."""
        load = document["load"]
        return cls(
            source=document["source"],
            seconds=document["seconds"],
            leaderless=document["leaderless"],
            client=ClientEvidence(**document["client"]),
            load=LoadEvidence(**{**load, "operations": _times(load["operations"])}) if load else None,  # type: ignore[arg-type]
            members=tuple(
                MemberEvidence(**{  # type: ignore[arg-type]
                    **each,
                    "probes": _times(each["probes"]), "histograms": _times(each["histograms"]),
                })
                for each in document["members"]
            ),
        )  # fmt: skip


def _times(documents: Mapping[str, TimesDocument]) -> dict[str, Times]:
    return {name: Times(**each) for name, each in documents.items()}
