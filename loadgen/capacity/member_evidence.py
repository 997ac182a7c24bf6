"""What the members say of themselves at the two ends of a stay at a rate: their disk, and their CPU."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cluster.base.endpoint import Endpoint
from cluster.base.errors import ClusterError, NoAnswer
from cluster.local.cpu_times import CpuTimes
from cluster.observe import calls, metrics
from cluster.observe.at_once import at_once
from cluster.observe.metrics import Metrics

if TYPE_CHECKING:
    import gevent

    from loadgen.run.target import Target

# Seconds that a member may take to answer, and that the last answers are waited for.
ANSWER_S = 2.0


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """The members at a moment.

    Attributes:
        at_s: seconds of the monotonic clock.
        metrics: of each member that answered, by its endpoint.
        cpu: the CPU times of members of ours, by name.
    """

    at_s: float
    metrics: Mapping[str, Metrics]
    cpu: Mapping[str, CpuTimes]


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """What the members did between two looks; of each figure the highest of all members, None where nobody tells.

    Attributes:
        fsync_p99_ms, commit_p99_ms: of the log and of the database.
        cpu_cores: processors' worth of CPU that a member used.
        cpu_wait_share: of the time that its threads would have run, how much they waited for a processor.
    """

    fsync_p99_ms: float | None = None
    commit_p99_ms: float | None = None
    cpu_cores: float | None = None
    cpu_wait_share: float | None = None


class Witness:
    """Looks at a run's members without keeping anybody waiting. Takes the target of the run."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._looks: dict[tuple[int, int], gevent.Greenlet] = {}

    def look(self, stay: int, end: int) -> None:
        """Note the members at the beginning (0) or the end (1) of a stay, by its number."""
        import gevent

        self._looks[stay, end] = gevent.spawn(self._look)

    def evidence(self, stay: int) -> Evidence:
        """Return what the members did in a stay."""
        found: list[Look] = []
        for end in (0, 1):
            look = self._looks.get((stay, end))
            if look is not None:
                # Members that are overloaded may not answer in time; then there is no evidence.
                look.join(timeout=ANSWER_S)
                found += [look.value] if look.value is not None else []
        return between(*found) if len(found) == 2 else Evidence()

    def _look(self) -> Look:
        target = self._target
        urls = [str(Endpoint.parse(where)) for _, where in target.watched()]
        answers = at_once(self._metrics, urls)
        cpu: Mapping[str, CpuTimes] = {}
        if target.cpu_times is not None:
            with contextlib.suppress(ClusterError):
                cpu = target.cpu_times()
        known = {url: answer for url, answer in zip(urls, answers, strict=True) if answer is not None}
        return Look(time.monotonic(), known, cpu)

    def _metrics(self, url: str) -> Metrics | None:
        try:
            _, body = calls.http(url, "GET", "/metrics", timeout_s=ANSWER_S, security=self._target.security)
            return metrics.parse(body.decode("utf-8", "replace"))
        except (NoAnswer, ValueError, IndexError):
            return None


def between(before: Look, after: Look) -> Evidence:
    """Return what the members did between two looks."""
    fsync: list[float] = []
    commit: list[float] = []
    cores: list[float] = []
    waits: list[float] = []
    seconds = max(1e-3, after.at_s - before.at_s)
    for url, now in after.metrics.items():
        then = before.metrics.get(url)
        if then is None or now.restarted_since(then):
            continue
        for column, into in (("wal_fsync", fsync), ("backend_commit", commit)):
            if (histogram := now.histograms.get(column)) is not None:
                quantile = histogram.since(then.histograms.get(column)).quantile(0.99)
                if quantile is not None:
                    into.append(quantile * 1e3)
        if "cpu_s" in now.values and "cpu_s" in then.values:
            cores.append((now.values["cpu_s"] - then.values["cpu_s"]) / seconds)
    for name, times in after.cpu.items():
        if name in before.cpu:
            ran = times.ran_ns - before.cpu[name].ran_ns
            waited = times.waited_ns - before.cpu[name].waited_ns
            if ran + waited > 0:
                waits.append(waited / (ran + waited))
    return Evidence(*(None if not each else round(max(each), 3) for each in (fsync, commit, cores, waits)))
