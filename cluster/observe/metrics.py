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

# Column of metrics.csv, and etcd's name of the metric.
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
}
HISTOGRAMS = {
    "wal_fsync": "etcd_disk_wal_fsync_duration_seconds",
    "backend_commit": "etcd_disk_backend_commit_duration_seconds",
}
_SCALAR_OF = {metric: column for column, metric in SCALARS.items()}
_BUCKET_OF = {f"{metric}_bucket": column for column, metric in HISTOGRAMS.items()}


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

    Raises ValueError for a number that is none.
    """
    values: dict[str, float] = {}
    buckets: dict[str, dict[float, int]] = {}
    for line in text.splitlines():
        name, _, rest = line.partition("{" if "{" in line else " ")
        if name in _SCALAR_OF:
            values[_SCALAR_OF[name]] = float(rest.split()[0])
        elif name in _BUCKET_OF:
            labels, _, number = rest.rpartition("} ")
            bound = float(labels.partition('le="')[2].partition('"')[0])
            buckets.setdefault(_BUCKET_OF[name], {})[bound] = int(float(number.split()[0]))
    histograms = {
        column: Histogram(tuple(sorted(found)), tuple(found[bound] for bound in sorted(found)))
        for column, found in buckets.items()
    }
    return Metrics(values, histograms)


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
