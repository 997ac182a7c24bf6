"""A member's ``/metrics``, in Prometheus' text format.

Durations are histograms that grow from the member's start. What happened between two scrapes is the difference of
their buckets, and a percentile of that is found as PromQL's ``histogram_quantile`` finds it. The metrics are those
that etcd's operators watch, https://etcd.io/docs/latest/metrics/.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Self

# Column of metrics.csv, and etcd's name of the metric. Of a metric that is told by peer, or by another label, the sum.
SCALARS = {
    "started_at": "process_start_time_seconds",
    "cpu_s": "process_cpu_seconds_total",
    "rss_bytes": "process_resident_memory_bytes",
    "leader_changes": "etcd_server_leader_changes_seen_total",
    "proposals_committed": "etcd_server_proposals_committed_total",
    "proposals_pending": "etcd_server_proposals_pending",
    "proposals_failed": "etcd_server_proposals_failed_total",
    "slow_applies": "etcd_server_slow_apply_total",
    "heartbeat_failures": "etcd_server_heartbeat_send_failures_total",
    "db_size": "etcd_mvcc_db_total_size_in_bytes",
    "db_in_use": "etcd_mvcc_db_total_size_in_use_in_bytes",
    "quota": "etcd_server_quota_backend_bytes",
    "defragmenting": "etcd_disk_defrag_inflight",
    "puts": "etcd_mvcc_put_total",
    "ranges": "etcd_mvcc_range_total",
    "txns": "etcd_mvcc_txn_total",
    "slow_reads": "etcd_server_slow_read_indexes_total",
    "failed_reads": "etcd_server_read_indexes_failed_total",
    "compacted_keys": "etcd_debugging_mvcc_db_compaction_keys_total",
    "watchers": "etcd_debugging_mvcc_watcher_total",
    "slow_watchers": "etcd_debugging_mvcc_slow_watcher_total",
    "pending_events": "etcd_debugging_mvcc_pending_events_total",
    "client_received_bytes": "etcd_network_client_grpc_received_bytes_total",
    "client_sent_bytes": "etcd_network_client_grpc_sent_bytes_total",
    "peer_sent_bytes": "etcd_network_peer_sent_bytes_total",
    "peer_failures": "etcd_network_peer_sent_failures_total",
    "snapshots_sent": "etcd_disk_backend_snapshot_duration_seconds_count",
    "snapshots_received": "etcd_snap_db_save_total_duration_seconds_count",
    "snapshots_in_progress": "etcd_server_snapshot_apply_in_progress_total",
    "gc_pause_s": "go_gc_duration_seconds_sum",
    "goroutines": "go_goroutines",
    "gomaxprocs": "go_sched_gomaxprocs_threads",
}
HISTOGRAMS = {
    "wal_fsync": "etcd_disk_wal_fsync_duration_seconds",
    "backend_commit": "etcd_disk_backend_commit_duration_seconds",
    "apply": "etcd_server_apply_duration_seconds",
    "peer_round_trip": "etcd_network_peer_round_trip_time_seconds",
}
# A counter by peer has no line before it has counted anything.
_BY_PEER = ("peer_sent_bytes", "peer_failures")
_SCALAR_OF = {metric: column for column, metric in SCALARS.items()}
_BUCKET_OF = {f"{metric}_bucket": column for column, metric in HISTOGRAMS.items()}
# Two thirds of the lines begin so, and are passed over at once: a member is asked every two seconds.
_PASSED_OVER = ("#", "grpc_")


@dataclasses.dataclass(frozen=True, slots=True)
class Histogram:
    """How many observations were at most so long.

    Attributes:
        bounds: upper bounds in seconds, ascending; the last is infinite.
        counts: observations up to each bound, so the last is all of them.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def count(self) -> int:
        """All observations."""
        return self.counts[-1] if self.counts else 0

    def since(self, earlier: Self | None) -> Histogram:
        """Return the observations after ``earlier``; all where that is None or of another life of the process."""
        if earlier is None or earlier.bounds != self.bounds or earlier.count > self.count:
            return self
        return Histogram(self.bounds, tuple(a - b for a, b in zip(self.counts, earlier.counts, strict=True)))

    def plus(self, other: Histogram) -> Histogram:
        """Both together. Raises ValueError where their buckets differ."""
        if other.bounds != self.bounds:
            raise ValueError("histograms of different buckets")
        return Histogram(self.bounds, tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)))

    def quantile(self, q: float) -> float | None:
        """Return the duration in seconds under which the share ``q`` of the observations stayed; None of no
        observation.

        Linear within a bucket, from 0 in the first; of the last, infinite one its lower bound, as
        ``histogram_quantile`` has it (https://prometheus.io/docs/prometheus/latest/querying/functions/).
        """
        if not self.count:
            return None
        rank = q * self.count
        index = next(i for i, count in enumerate(self.counts) if count >= rank)
        low = self.bounds[index - 1] if index else 0.0
        if math.isinf(self.bounds[index]):
            return low
        below = self.counts[index - 1] if index else 0
        inside = self.counts[index] - below
        return low + (self.bounds[index] - low) * ((rank - below) / inside if inside else 1.0)

    def to_cell(self) -> str:
        """Return it as one cell of a CSV file: ``0.001:17 0.002:40 inf:41``."""
        return " ".join(f"{bound:g}:{count}" for bound, count in zip(self.bounds, self.counts, strict=True))

    @classmethod
    def from_cell(cls, cell: str) -> Histogram | None:
        """Take what ``to_cell`` made; None for an empty cell. Raises ValueError."""
        pairs = [part.partition(":") for part in cell.split()]
        if not pairs:
            return None
        return cls(tuple(float(bound) for bound, _, _ in pairs), tuple(int(count) for _, _, count in pairs))


@dataclasses.dataclass(frozen=True, slots=True)
class Metrics:
    """One scrape. ``values`` has the keys of SCALARS, ``histograms`` those of HISTOGRAMS, as far as they were there."""

    values: Mapping[str, float]
    histograms: Mapping[str, Histogram]

    def restarted_since(self, earlier: Metrics) -> bool:
        """Return whether the process is another one than at the earlier scrape."""
        return self.values.get("started_at") != earlier.values.get("started_at")


def parse(text: str) -> Metrics:
    """Take the text of ``/metrics``, return the metrics that we know of; other lines are passed over.

    What is told by label is summed up: a counter by peer, the applies of each kind of entry. Raises ValueError for a
    number that is none.
    """
    values: dict[str, float] = {}
    buckets: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        if line.startswith(_PASSED_OVER):
            continue
        name, _, rest = line.partition("{" if "{" in line else " ")
        if (column := _SCALAR_OF.get(name)) is not None:
            values[column] = values.get(column, 0.0) + _number(rest)
        elif (column := _BUCKET_OF.get(name)) is not None:
            # Other labels end in these letters, too; but this one is the last of a bucket's.
            bound = rest[rest.rindex('le="') + 4 :].partition('"')[0]
            counted = buckets.setdefault(column, {})
            counted[bound] = counted.get(bound, 0.0) + _number(rest)
    if "proposals_committed" in values:
        values = dict.fromkeys(_BY_PEER, 0.0) | values
    return Metrics(values, {column: _histogram(found) for column, found in buckets.items()})


def _number(text: str) -> float:
    """Take what stands behind a metric's name: labels, if any, the number, and a time that may follow it."""
    return float(text.rpartition("} ")[2].partition(" ")[0])


def _histogram(found: Mapping[str, float]) -> Histogram:
    counts = sorted((float(bound), int(count)) for bound, count in found.items())
    return Histogram(tuple(bound for bound, _ in counts), tuple(count for _, count in counts))


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """What a member's metrics say of its place in the cluster.

    Attributes:
        member_id: etcd's id of it.
        version: of etcd.
        leads, follows: whether it takes itself for the leader, and whether it knows one.
        learns: whether it has no vote.
        revision: of its store.
    """

    member_id: int
    version: str
    leads: bool
    follows: bool
    learns: bool
    revision: int


def standing(text: str) -> Standing:
    """Take the text of ``/metrics``, return what it says of the member's place. Raises ValueError where it says nothing
    of that.
    """
    found = {}
    for line in text.splitlines():
        if not line.startswith(("etcd_server_", "etcd_debugging_mvcc_current_revision ")):
            continue
        head, _, value = line.rpartition(" ")
        name, _, labels = head.partition("{")
        found[name] = labels.partition('"')[2].partition('"')[0] or value
    try:
        return Standing(
            member_id=int(found["etcd_server_id"], 16),
            version=found["etcd_server_version"],
            leads=float(found["etcd_server_is_leader"]) == 1,
            follows=float(found["etcd_server_has_leader"]) == 1,
            learns=float(found.get("etcd_server_is_learner", "0")) == 1,
            revision=int(float(found.get("etcd_debugging_mvcc_current_revision", "0"))),
        )
    except KeyError as error:
        raise ValueError(f"no metric {error.args[0]}") from error
