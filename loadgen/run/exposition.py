"""A run as Prometheus sees it: the metrics behind ``/metrics``, made anew at each scrape.

docs/monitoring.md lists them. Imported only where they are asked for: the library takes its time.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from cluster.base.verdict import NONE, Verdict
from cluster.observe.following import Following
from loadgen.run import saturation
from loadgen.run.live import Buckets, causes
from loadgen.stats.series import TOTAL

if TYPE_CHECKING:
    from loadgen.run.run import Run
    from loadgen.run.session import Session

STATES = ("preparing", "running", "stopping", "ended")
VERDICTS = (Verdict.PASS.value, Verdict.FAIL.value, Verdict.UNKNOWN.value, NONE)


def registry_of(session: Session) -> CollectorRegistry:
    """Return a registry with the metrics of a session's runs and no others."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(RunCollector(session))
    return registry


class RunCollector(Collector):
    """Collects the metrics of the run that is on, or of the last one. Takes its session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._following: Following | None = None

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        session, run = self._session, self._session.run
        now = state_of(run)
        yield _one_of(
            "raftload_run_state", "What the run is doing: 1 for the state that it is in.", "state", STATES, now
        )
        yield _gauge("raftload_workers", "Worker processes that have not ended.", [
            ((), sum(not worker.gone for worker in session.workers))
        ])  # fmt: skip
        if run is None:
            return
        yield _info(session, run)
        yield _gauge("raftload_run_elapsed_seconds", "Seconds since the users were started.", [((), run.elapsed_s)])
        yield from self._outcome(run)
        yield from self._operations(run)
        yield from self._generator(run)
        yield from self._members(run)

    def _outcome(self, run: Run) -> Iterator[Metric]:
        """Yield what is known of the end: the conditions of --abort-on and the verdict."""
        verdict = run.result["verdict"] if run.result is not None else ""
        yield _one_of("raftload_run_verdict", "1 for the verdict, once there is one.", "verdict", VERDICTS, verdict)
        yield _gauge("raftload_run_aborted", "1 where a condition of --abort-on has ended the run.", [
            ((), run.aborted is not None)
        ])  # fmt: skip
        measured = run.watch.values.items()
        yield _gauge(
            "raftload_abort_condition_value", "What was last measured for a condition of --abort-on; absent without a "
            "sample.", [((str(each),), value) for each, value in measured if value is not None], ["condition"],
        )  # fmt: skip
        yield _gauge(
            "raftload_abort_condition_holds", "1 where a condition of --abort-on holds.",
            [((str(each),), value is not None and each.threshold.holds(value)) for each, value in measured],
            ["condition"],
        )  # fmt: skip

    def _operations(self, run: Run) -> Iterator[Metric]:
        live = run.live
        counted = {f: counts for f, counts in live.totals().items() if f != TOTAL}
        operations = CounterMetricFamily(
            "raftload_operations",
            "Operations that ended, by outcome: ok; fail, certainly without effect; info, of unknown effect.",
            labels=["type", "outcome"],
        )
        for f, counts in sorted(counted.items()):
            operations.add_metric([f, "ok"], counts["succeeded"])
            operations.add_metric([f, "fail"], counts["failed"] - counts["info"])
            operations.add_metric([f, "info"], counts["info"])
        yield operations
        errors = CounterMetricFamily("raftload_errors", "Operations that failed, by cause.", labels=["type", "cause"])
        for f in sorted(counted):
            for cause, count in sorted(causes(run.stats, f).items()):
                errors.add_metric([f, cause], count)
        yield errors
        yield _histogram("raftload_latency_seconds", "Latency of successes, from when they were due.", live.latencies)
        yield _histogram(
            "raftload_service_time_seconds", "Latency of successes, from when they were sent; of an open loop.",
            live.service,
        )  # fmt: skip
        yield _gauge("raftload_in_flight", "Operations under way when the workers last reported.", [
            ((), 0 if run.over else live.in_flight)
        ])  # fmt: skip

    def _generator(self, run: Run) -> Iterator[Metric]:
        session, schedule = self._session, run.settings.schedule()
        snapshots = [*session.snapshots.values()]
        yield _gauge("raftload_users", "Users over all workers, as asked for.", [((), run.users)])
        yield _gauge("raftload_workers_lost", "Workers that were lost.", [((), len(run.lost))])
        cpu = CounterMetricFamily("raftload_worker_cpu_seconds", "CPU time of the workers in the measured load.")
        cpu.add_metric([], sum(each["cpu_s"] for each in snapshots))
        yield cpu
        lags = saturation.block(snapshots, 0, None)
        for name, text, value_ms in (
            ("loop", "How long what arrives waits for a worker's event loop, p99 since the start.",
             lags["loop_lag_p99_ms"]),
            ("start", "From when operations were due until they were sent, p99 since the start; of an open loop.",
             lags["start_lag_p99_ms"]),
        ):  # fmt: skip
            yield _gauge(
                f"raftload_{name}_lag_p99_seconds", text, [((), value_ms / 1e3)] if value_ms is not None else []
            )
        if schedule is None:
            return
        at_s = run.load_s - run.settings.warmup_s
        rate = schedule.rate_at(at_s) if not run.over else 0.0
        yield _gauge("raftload_target_rate", "Operations per second that are due now; of an open loop.", [((), rate)])
        for name in ("scheduled", "dropped"):
            text = {"scheduled": "Operations that were due.", "dropped": "Operations that were due and never sent."}[
                name
            ]
            family = CounterMetricFamily(f"raftload_{name}_operations", text)
            family.add_metric([], lags["scheduled" if name == "scheduled" else "dropped"] or 0)
            yield family

    def _members(self, run: Run) -> Iterator[Metric]:
        """Yield the members' own state, as the observer of the run last saw it."""
        following = self._following
        if following is None or following.folder != run.folder:
            following = self._following = Following(run.folder)
        # The run's own files: a disk that cannot be read is no reason to have no metrics at all.
        with contextlib.suppress(OSError):
            following.look()
        members = sorted(following.members.items())
        known = [(name, seen.answered) for name, seen in members if seen.answered is not None]
        label = ["member"]
        yield _gauge("raftload_member_reachable", "1 where a member answered its last status request.",
                     [((name,), seen.poll.answers) for name, seen in members], label)  # fmt: skip
        yield _gauge("raftload_member_leader", "1 where a member says that it leads.",
                     [((name,), seen.poll.role == "leader") for name, seen in members], label)  # fmt: skip
        yield _gauge("raftload_member_term", "Raft term of a member.",
                     [((name,), poll.term) for name, poll in known if poll.term is not None], label)  # fmt: skip
        yield _gauge("raftload_member_db_size_bytes", "Size of a member's database.",
                     [((name,), poll.db_size) for name, poll in known if poll.db_size is not None], label)  # fmt: skip
        yield _gauge(
            "raftload_member_wal_fsync_p99_seconds", "p99 of a member's WAL fsyncs in the last ten seconds.",
            [((name,), seen.wal_fsync_p99_s) for name, seen in members if seen.wal_fsync_p99_s is not None], label,
        )  # fmt: skip
        changes = CounterMetricFamily("raftload_leader_changes", "Elections won since the run began.")
        changes.add_metric([], following.leader_changes)
        yield changes


def state_of(run: Run | None) -> str:
    """Return which of STATES a run is in."""
    if run is None or run.elapsed_s == 0:
        return "preparing"
    if run.over:
        return "ended"
    return "stopping" if run.is_stopping else "running"


def _info(session: Session, run: Run) -> Metric:
    try:
        own = version("raftload")
    except PackageNotFoundError:
        own = "source"
    settings = run.settings
    snapshot = next(iter(session.snapshots.values()), None)
    found = InfoMetricFamily("raftload_run", "What runs.")
    found.add_metric([], {
        "run": run.folder.name, "scenario": session.scenario, "version": own,
        "loop": "closed" if settings.schedule() is None else "open", "transport": settings.transport,
        "engine": snapshot["engine"] if snapshot else "", "target": run.target.kind,
        "etcd_version": run.target.version or "",
    })  # fmt: skip
    return found


def _gauge(
    name: str, text: str, rows: Iterable[tuple[tuple[str, ...], float | bool]], labels: Iterable[str] = ()
) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[*labels])
    for values, value in rows:
        family.add_metric([*values], float(value))
    return family


def _one_of(name: str, text: str, label: str, choices: Iterable[str], chosen: str) -> Metric:
    return _gauge(name, text, [((each,), each == chosen) for each in choices], [label])


def _histogram(name: str, text: str, by_type: dict[str, Buckets]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=["type"])
    for f, buckets in sorted(by_type.items()):
        below, rows = 0, list[tuple[str, float]]()
        for bound, count in zip((*buckets.bounds_s, float("inf")), buckets.counts, strict=True):
            below += count
            rows.append(("+Inf" if math.isinf(bound) else f"{bound:g}", below))
        family.add_metric([f], rows, buckets.total_ns / 1e9)
    return family
