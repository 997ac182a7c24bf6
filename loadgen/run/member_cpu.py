"""The members' wait for the CPU of this machine, between the two ends of the measured time.

A member that is ready to go on and has no CPU answers late, and that is not etcd's doing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cluster.base.errors import ClusterError
from cluster.local.cpu_times import LARGE_SHARE, CpuTimes
from loadgen.run.target import Target

if TYPE_CHECKING:
    from cluster.local.keeper import Weight
    from cluster.schema.run_documents import CpuWait


class MemberCpu:
    """The members' CPU times at the two ends of the measured time of a run. Takes its target."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._weight: Weight | None = None
        self._before: Mapping[str, CpuTimes] = {}
        self._after: Mapping[str, CpuTimes] | None = None

    def begins(self) -> None:
        """Note them at the beginning."""
        self._before, self._after = self._read(), None
        with contextlib.suppress(ClusterError):
            self._weight = self._target.member_weight()

    def ends(self) -> None:
        """Note them at the end; the first call counts."""
        if self._after is None:
            self._after = self._read()

    def block(self, duration_s: float, latencies_s: float) -> CpuWait | None:
        """Return ``target.cpu_wait`` of run.json; None before the end, and where the kernel tells nothing.

        Takes the length of the measured time, and the sum of the latencies in it, from sending.
        """
        return block(self._before, self._after or {}, duration_s, latencies_s, self._weight)

    def _read(self) -> Mapping[str, CpuTimes]:
        times: Mapping[str, CpuTimes] = {}
        if self._target.cpu_times is not None:
            with contextlib.suppress(ClusterError):  # the cluster is gone: what needs it says so
                times = self._target.cpu_times()
        return times


def block(
    before: Mapping[str, CpuTimes],
    after: Mapping[str, CpuTimes],
    duration_s: float,
    latencies_s: float,
    weight: Weight | None = None,
) -> CpuWait | None:
    """Return ``target.cpu_wait`` of run.json, None where the members' CPU times are not known.

    The share is that of the member that waited longest. Threads overlap, so of a member that always has work it is the
    part of its threads' time in which they had no CPU; else the wait is held against the time in which an operation
    was open. By Little's law ``latencies_s / duration_s`` operations are open on average; where these are fewer than
    one, that is the share of the time in which there is one.
    """
    nothing = CpuTimes(0, 0)
    times = {
        name: CpuTimes(*(max(0, now - then) for now, then in zip(after[name], before.get(name, nothing), strict=True)))
        for name in after
    }
    if not times:
        return None
    worst = max(times, key=lambda name: times[name].waited_ns)
    waited_s, ran_s = times[worst].waited_ns / 1e9, times[worst].ran_ns / 1e9
    open_s = min(duration_s, latencies_s)
    share = round(waited_s / max(open_s, waited_s + ran_s), 3) if open_s > 0 else None
    contended = None if share is None else share >= LARGE_SHARE
    return {
        "members": [
            {"name": name, "ran_s": round(each.ran_ns / 1e9, 3), "waited_s": round(each.waited_ns / 1e9, 3)}
            for name, each in times.items()
        ],
        "share": share,
        "contended": contended,
        "contended_by": f"{worst} was ready and had no CPU for {share:.0%} of the time that operations took: the "
        "machine has too few processors for members and load"
        if contended
        else None,
        "nice": None if weight is None else weight.nice,
        "session_nice": None if weight is None else weight.session_nice,
    }
