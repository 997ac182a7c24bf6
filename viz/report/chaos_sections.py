"""The parts of a report on the faults and on the guarantees that the cluster kept or broke."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
import operator
from collections import Counter
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, TypeVar

from cluster.observe import samples
from cluster.observe.record import PHASES
from cluster.schema import rounds
from viz.report import hlog, sections
from viz.report.charts import number
from viz.report.rundata import Fault, RunData, seconds_of
from viz.report.sections import UNKNOWN, badge, failures, known, table

if TYPE_CHECKING:
    from cluster.schema.run_documents import Check, FaultRow, Result, Window

T = TypeVar("T")
# The longest time before and after a fault that its effect is compared with.
_AROUND_S = 10.0
_MOST_ROUNDS = 3
_ORDER = ("fail", "unknown", "pass", "none")


def faults(data: RunData) -> str:
    """Return what was done to the cluster, and what the load saw before, during and after it."""
    chaos = data.result.get("chaos")
    return _faults_of_chaos(data, chaos["faults"]) if chaos and chaos["faults"] else _faults_of_events(data)


def faults_in_short(data: RunData) -> str:
    """Return the same with the rounds of `raftload chaos` folded, those that broke something before them."""
    chaos = data.result.get("chaos")
    rows = chaos["faults"] if chaos else []
    if len(rows) <= _MOST_ROUNDS:
        return faults(data)
    broken = [row for row in rows if row["verdict"] != "pass"]
    lines = [
        f"<li>{row['number']}: {escape(str(row['fault']))} of {escape(', '.join(row['members'])) or UNKNOWN}: "
        f"{badge(row['verdict'])} {escape(str(row.get('reason') or ''))}</li>"
        for row in broken
    ]
    listed = f"<ul>{''.join(lines)}</ul>" if lines else ""
    counts = f"{number(len(rows))} faults, {number(len(rows) - len(broken))} of them pass"
    return listed + sections.folded(counts, faults(data))


def _faults_of_chaos(data: RunData, rows: Sequence[FaultRow]) -> str:
    """Return the rounds of `raftload chaos`, from its recorded history."""
    made = []
    for row in rows:
        led = f"{escape(str(row['leader']))}, term {row['term']}" if row.get("leader") else UNKNOWN
        made.append((
            str(row["number"]), f"{seconds_of(row['at']) - data.begin:.1f} s", escape(str(row["fault"])),
            escape(", ".join(row["members"])) or UNKNOWN, led,
            *(UNKNOWN if seconds is None else f"{seconds:.2f} s"
              for seconds in (row["leaderless_s"], row["longest_gap_s"])),
            *(_window(row[window]) for window in PHASES),
            f"{badge(row['verdict'])} {escape(str(row.get('reason') or ''))}",
        ))  # fmt: skip
    head_row = ("", "at", "fault", "members", "leader after", "no leader", "no write", "before", "during", "after", "")
    sums = f"{text[0].upper()}{text[1:]}. " if (text := rounds.failures(data.result)) else ""
    return table(head_row, made, (2, 3, 4, 10)) + (
        f'<p class="dim">{escape(sums)}Before, during, after: operations per second, p99 latency, failures. During: '
        "until every member was healthy again. An operation counts where it began; one that was open when a fault "
        f"began counts as during it. A dash for the p99 of less than {samples.needed(0.99)} successes.</p>"
    )


def _window(window: Window) -> str:
    rate, p99 = window.get("throughput_ops_s"), window.get("p99_ms")
    failed = (window.get("failed") or 0) + (window.get("unknown") or 0)
    if not samples.are_enough((window.get("operations") or 0) - failed, 0.99):
        p99 = None
    return f"{known(None if rate is None else round(rate))}/s<br>{known(p99)} ms<br>{failures(failed, ' failed')}"


def guarantees(result: Result) -> str:
    """Return what was held against the recorded history, and what broke it."""
    check = result.get("check")
    if not check:
        return ""
    rows = [
        (escape(str(row["name"])), escape(str(row.get("promise") or "")), number(row.get("judged") or 0),
         f"{badge(row['verdict'])} {escape(str(row.get('reason') or ''))}")
        for row in check.get("guarantees") or ()
    ]  # fmt: skip
    return sections.folded(_judged(check), table(("name", "guarantee", "judged", "verdict"), rows, (1, 3)))


def _judged(check: Check) -> str:
    """Return how many guarantees have which verdict."""
    counts = Counter(str(row["verdict"]) for row in check.get("guarantees") or ())
    return "Guarantees: " + ", ".join(f"{number(counts[each])} {each}" for each in sorted(counts, key=_order))


def _order(verdict: str) -> int:
    return _ORDER.index(verdict) if verdict in _ORDER else len(_ORDER)


def violations(result: Result) -> str:
    """Return what broke each guarantee, the earliest first, and the fault nearest to that; then what is known of it."""
    check = result.get("check")
    if not check:
        return ""
    named = {row["name"]: row for row in check.get("guarantees") or ()}
    news = [named[name] for name in check.get("news", check.get("broken")) or ()]
    parts = []
    for row in news:
        first, *more = (escape(str(each["text"])) for each in row["violations"] if not each.get("bug"))
        rest = f"<details><summary>more</summary><ul>{''.join(f'<li>{text}</li>' for text in more)}</ul></details>"
        fault = check.get("nearest_fault") if row is news[0] else None
        count = row.get("unexplained", row["broken"])
        parts.append(f"<li><b>{escape(str(row['name']))}</b>, broken {_times(count)}: {first}"
                     + (f"<br>Nearest fault: {escape(str(fault))}" if fault else "")
                     + (rest if more else "") + "</li>")  # fmt: skip
    known = _known_bugs(check)
    which = " that no known bug explains" if known else ""
    return (f"<h3>Violations{which}, earliest first</h3><ul>{''.join(parts)}</ul>" if parts else "") + known


def _known_bugs(check: Check) -> str:
    """Return a line for each known bug that explains violations."""
    rows = []
    for bug in check.get("explained") or ():
        fixed = ", ".join(map(str, bug["fixed_in"]))
        link = f'<a href="{escape(str(bug["url"]))}">{escape(str(bug["bug"]))}</a>'
        rows.append(
            f"<li>{link} ({escape(f'fixed in {fixed}' if fixed else 'not fixed')}), {_times(bug['places'])}:"
            f" {escape(', '.join(map(str, bug['guarantees'])))}; {escape(str(bug['summary']))}</li>"
        )
    return f"<h3>Violations of known bugs of this etcd</h3><ul>{''.join(rows)}</ul>" if rows else ""


def _times(count: int) -> str:
    return "once" if count == 1 else f"{number(count)} times"


def _faults_of_events(data: RunData) -> str:
    """Return what `raftload cluster` did to it in the time of the run."""
    rows = []
    for index, fault in enumerate(data.faults):
        calm = data.faults[index - 1].end if index else -math.inf
        following = data.faults[index + 1].begin if index + 1 < len(data.faults) else math.inf
        around = _Around(max(calm, fault.begin - _AROUND_S), fault.begin, fault.end,
                         min(following, fault.end + _AROUND_S))  # fmt: skip
        rows.append((str(index + 1), f"{fault.begin - data.begin:.1f} s", escape(fault.text), _lasted(fault, data),
                     *_seen(data, around)))  # fmt: skip
    if not rows:
        return ""
    head_row = ("", "at", "fault and effect", "duration", "before", "during", "after")
    note = (
        f"before and after: up to {_AROUND_S:.0f} s; p99 of successful operations / failures, by when they returned. "
        "The time in which a fault begins or ends counts as during it."
    )
    return table(head_row, rows, (2,)) + f'<p class="dim">{note}</p>'


def _lasted(fault: Fault, data: RunData) -> str:
    return f"{fault.end - fault.begin:.1f} s" if fault.end < data.end else "to the end"


@dataclasses.dataclass(frozen=True, slots=True)
class _Around:
    """The times around a fault: from where on to look, when it began and ended, and until when to look."""

    first: float
    begin: float
    end: float
    last: float

    def parts(self, rows: Sequence[T], time_of: Callable[[T], float]) -> tuple[Sequence[T], Sequence[T], Sequence[T]]:
        """Return the intervals before, during and after the fault; takes them in order, and where each starts.

        One that holds a beginning or an end is of the fault: what it holds may be an effect of it.
        """
        times = [time_of(row) for row in rows]
        # The first may be shorter, as the load began within it, and after a pause of the load there is a gap.
        lengths = sorted(b - a for a, b in itertools.pairwise(times))
        length = lengths[len(lengths) // 2] if lengths else 1.0

        def not_over(moment: float) -> int:
            return bisect.bisect_right(times, moment - length + 1e-6)

        first, begin = bisect.bisect_right(times, self.first), not_over(self.begin)
        end, last = bisect.bisect_right(times, self.end), not_over(self.last)
        return rows[first:begin], rows[begin:end], rows[end:last]


def _seen(data: RunData, around: _Around) -> list[str]:
    """Return the p99 and the failures before, during and after a fault."""
    intervals = around.parts(data.latencies.get("total", ()), operator.itemgetter(0))
    seconds = around.parts(data.series.get("total", ()), operator.attrgetter("at"))
    cells = []
    for latencies, rows in zip(intervals, seconds, strict=True):
        counts = hlog.together(latencies)
        p99 = hlog.percentile_ms(counts, 0.99) if samples.are_enough(counts.total(), 0.99) else None
        failed = sum(row.failed for row in rows)
        cells.append(f"{UNKNOWN if p99 is None else number(round(p99, 2)) + ' ms'} / {failures(failed)}")
    return cells
