"""The knee: the load at which latency begins to grow faster than throughput, from plateaus of rising load.

The method is Kleinrock's: of each plateau take the power, throughput / mean latency. While a system has capacity
left, more load raises its throughput and hardly its latency; beyond it, latency alone. Power has its maximum between,
where a line from the origin touches the curve of latency over throughput. See L. Kleinrock, "Power and Deterministic
Rules of Thumb for Probabilistic Problems in Computer Communications", Proc. ICC 1979.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from loadgen.load import pacing
from loadgen.stats import hdr
from loadgen.stats.series import TOTAL

if TYPE_CHECKING:
    from cluster.schema.run_documents import Knee, Plateau, Run

METHOD = "maximum of throughput / mean latency (Kleinrock 1979)"
SCENARIO = "steps"
# Of a plateau, seconds that lie whole within it; fewer say nothing.
LEAST_SECONDS = 2

Interval = tuple[float, Mapping[int, int]]


def users_by_step(users: int) -> tuple[int, ...]:
    """Return how many users are active in each step of a closed loop: doubled from 1 on, and at last all.

    >>> users_by_step(10)
    (1, 2, 4, 8, 10)
    """
    return (*(2**n for n in range(math.ceil(math.log2(users)))), users)


def plateaus(run: Run) -> tuple[Literal["users", "rate"], list[float], float] | None:
    """Return what a run's load went through: ``rate`` or ``users``, its values, and the seconds of each; None for no
    steps.

    Takes run.json. The steps of a closed loop share its duration evenly.
    """
    if step := run.get("step"):
        schedule = pacing.parse_step(step)
        return "rate", [stage.start_rate for stage in schedule.stages], schedule.stages[0].length_s
    duration_s, users = run.get("duration_s"), run.get("users")
    if run.get("scenario") == SCENARIO and run.get("loop") == "closed" and duration_s and users is not None:
        steps = users_by_step(int(users))
        return "users", [float(each) for each in steps], duration_s / len(steps)
    return None


def find(folder: Path, run: Run) -> Knee | None:
    """Return ``knee`` of a result: every plateau and which one is the knee; None for a run without plateaus.

    Reads the histogram log of all operations. Raises OSError and ValueError where it is missing or broken.
    """
    steps = plateaus(run)
    if steps is None:
        return None
    axis, loads, length_s = steps
    log = folder / f"{TOTAL}.hlog"
    seconds: dict[int, dict[int, int]] = {}
    for at, _, counts in hdr.read_log(log.read_text(encoding="ascii")) if log.is_file() else ():
        # The log may be of parts of a second, and its times are to the millisecond.
        hdr.merge(seconds.setdefault(math.floor(at + 0.0001), {}), counts)
    rows = [row for row in measured([*seconds.items()], loads, length_s) if row is not None]
    generator = run.get("generator")
    saturated = generator and generator["saturated"]
    target = run.get("target")
    wait = target.get("cpu_wait") if target else None
    contended = wait and wait["contended"]
    caution = "the members waited for a CPU, so the knee may be this machine's" if contended else None
    caution = "the load generator was saturated, so the knee may be its own" if saturated else caution
    best, reason = judge(rows, axis)
    return {"method": METHOD, "axis": axis, "steps": rows, "knee": best, "reason": reason, "caution": caution}


def measured(intervals: Sequence[Interval], loads: Sequence[float], length_s: float) -> Iterable[Plateau | None]:
    """Yield throughput and latency of each plateau, from its whole seconds but the first; None where they are too few.

    Takes the log by the second, the load of each plateau and its length. The first second belongs to the
    plateau before, of which operations are still under way, and the load began within the log's first second.
    """
    began = min((at for at, _ in intervals), default=0.0)
    for number, load in enumerate(loads):
        first, end = began + number * length_s + 1, began + (number + 1) * length_s
        seconds = math.floor(end + 1e-6) - math.ceil(first - 1e-6)
        counts: dict[int, int] = {}
        for at, each in intervals:
            if first - 1e-6 <= at and at + 1 <= end + 1e-6:
                hdr.merge(counts, each)
        yield _row(load, seconds, counts) if seconds >= LEAST_SECONDS and counts else None


def _row(load: float, seconds: int, counts: Mapping[int, int]) -> Plateau:
    count = sum(counts.values())
    mean_ms = sum(hdr.middle(key) * each for key, each in counts.items()) / count / 1e6
    p50, p99 = (value / 1e6 for value in hdr.percentiles(counts, (0.5, 0.99)))
    rate = count / seconds
    return {
        "load": load,
        "seconds": seconds,
        "throughput_ops_s": round(rate, 3),
        "mean_ms": round(mean_ms, 3),
        "p50_ms": round(p50, 3),
        "p99_ms": round(p99, 3),
        "power": round(rate / mean_ms, 3),
    }


def judge(rows: Sequence[Plateau], axis: Literal["users", "rate"]) -> tuple[Plateau | None, str | None]:
    """Return the knee, a plateau of those measured or None, and the reason why there is none."""
    if len(rows) < 3:
        steps = "step" if len(rows) == 1 else "steps"
        more = "more users, or a longer run" if axis == "users" else "more or longer steps"
        return None, f"{len(rows)} {steps} of {LEAST_SECONDS + 1} s or more, and 3 are needed: {more}"
    best = max(range(len(rows)), key=lambda index: rows[index]["power"])
    if best == len(rows) - 1:
        last = f"{rows[best]['load']:g}"
        more = f"more than {last} users" if axis == "users" else f"a higher rate than {last}/s"
        return None, f"power still rose at the last step: measure {more}"
    if best > 0:
        return rows[best], None
    first = f"{rows[0]['load']:g}"
    if axis == "rate":
        return None, f"power fell from the first step on: begin with a lower rate than {first}/s"
    if rows[0]["load"] > 1:
        return None, f"power fell from the first measured step on: give steps below {first} users more time"
    return None, (
        "power fell from the first step on, and there is no lower load than one user: more users only wait for each "
        "other (steps of a rate, --step, can go lower)"
    )
