"""What a search came to: the ``capacity`` of a result, and the same in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cluster.base.verdict import Verdict
from cluster.local.cpu_times import LARGE_SHARE
from loadgen.capacity.member_evidence import Evidence
from loadgen.capacity.search import Decision, Phase, Search, Stay
from loadgen.capacity.seen import Seen
from loadgen.capacity.slo import Slo

if TYPE_CHECKING:
    from cluster.schema.run_documents import Capacity, CapacityLimit, CapacityStep

METHOD = (
    "sequential tests of the share of bad operations (Robbins 1970), with the variance inflation of blocks of half a "
    "second; doubling, then bisection, then both ends again"
)
# The disk is named where its p99 takes this much of the bound, and grew by this factor since the first rate that held.
DISK_SHARE, DISK_GROWTH = 0.5, 1.5
# What gives way on a machine that the load and the members share, and not in etcd.
_OURS = frozenset({"client", "cpu"})
WORDS = {"holds": "holds", "breaks": "breaks", "late": "breaks, generator late"}


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """A search that is over.

    Attributes:
        search, slos: it, and what had to hold.
        seen, evidence: of each stay, by its number, what came back and what the members did.
        start_rate, max_rate, precision: as they were asked for.
    """

    search: Search
    slos: Sequence[Slo]
    seen: dict[int, Seen]
    evidence: dict[int, Evidence]
    start_rate: float
    max_rate: float | None
    precision: float

    def document(self) -> Capacity:
        """Return ``capacity`` of run.json and result.json."""
        search = self.search
        low, high = search.bracket()
        limit = self._limit()
        verdict, reason = self._verdict(limit)
        steps = [self._step(number, stay) for number, stay in enumerate(search.stays) if stay.blocks]
        return {
            "method": METHOD,
            "slos": [str(slo.threshold) for slo in self.slos],
            "start_rate": self.start_rate,
            "max_rate": self.max_rate,
            "precision": self.precision,
            "rate": _rounded(search.answer),
            "low": _rounded(low),
            "high": _rounded(high),
            "is_lower_bound": search.answer is not None and (limit is None or limit["by"] == "client"),
            "limit": limit,
            "steps": steps,
            "load_s": round(sum(step["seconds"] for step in steps), 3),
            "verdict": verdict.value,
            "reason": reason,
        }

    def _verdict(self, limit: CapacityLimit | None) -> tuple[Verdict, str | None]:
        search, answer = self.search, self.search.answer
        if answer is None:
            least = min((each.rate for each in search.stays if each.decision is Decision.BREAKS), default=0.0)
            if limit is not None and search.reason == search.NONE_HOLDS:
                said = f"not even {least:,.4g} operations per second hold: {', '.join(limit['broken'])}"
                if limit["by"] in _OURS:
                    return Verdict.UNKNOWN, f"{said}; but this machine has too few processors for members and load"
                return Verdict.FAIL, said
            known = [f"{rate:,.0f}/s {word}" for rate, word in ((search.low, "held"), (search.high, "broke")) if rate]
            return Verdict.UNKNOWN, search.reason + (f"; {' and '.join(known)} by then" if known else "")
        if limit is None:
            return Verdict.UNKNOWN, f"no higher rate was permitted than {answer:,.4g}/s, which holds"
        if limit["by"] == "client":
            return Verdict.UNKNOWN, "the load generator gave way first, so the capacity of the cluster is this or more"
        if search.bracket()[0] is None:
            return Verdict.UNKNOWN, "no rate was seen to hold, only to look so: what came of each changed too much"
        return Verdict.PASS, None

    def _limit(self) -> CapacityLimit | None:
        """Return what gave way first: at the lowest rate that broke something."""
        stay = self.search.limit
        if stay is None:
            return None
        number = self.search.stays.index(stay)
        first = next((n for n, each in enumerate(self.search.stays) if each.decision is Decision.HOLDS), None)
        by, why = self._blame(stay, number, first)
        return {
            "rate": _rounded(stay.achieved) or 0.0,
            "broken": [self._said(goal, number) for goal in stay.broken] or (
                ["operations in flight became more and more"] if stay.is_growing else []
            ),
            "by": by,
            "evidence": why,
        }  # fmt: skip

    def _said(self, goal: int, number: int) -> str:
        slo = self.slos[goal]
        value = self._value(slo, self.seen.get(number, Seen()))
        shown = "no operation came back" if value is None else f"{value:,.4g}"
        return f"{slo.threshold}: {shown}"

    def _blame(self, stay: Stay, number: int, first: int | None) -> tuple[str, list[str]]:
        """Return who gave way, in a word, and the evidence for it, a sentence each.

        Takes the stay, its number, and that of the first stay that held, None where none did.
        """
        seen, now = self.seen.get(number, Seen()), self.evidence.get(number) or Evidence()
        then = Evidence() if first is None else self.evidence.get(first) or Evidence()
        done = sum(each.returned for each in stay.blocks) / stay.seconds if stay.blocks else 0.0
        opened = stay.blocks[-1].in_flight if stay.blocks else 0
        said = [
            f"of {stay.achieved:,.0f} operations per second {done:,.0f} came back, and {opened:,} were open at the end"
        ]
        lag = seen.start_lag_p99_ms
        if lag is not None:
            said.append(f"the generator sent its operations up to {lag:.3g} ms late (p99)")
        is_disk = False
        for name, after, before in (
            ("the log's fsync", now.fsync_p99_ms, then.fsync_p99_ms),
            ("the database's commit", now.commit_p99_ms, then.commit_p99_ms),
        ):
            if after is not None:
                grew = f", {before:.3g} ms at the first rate that held" if before is not None else ""
                said.append(f"{name} took {after:.3g} ms (p99){grew}")
                bounds = [slo.threshold.bound for slo in self.slos if slo.bound_ns is not None]
                slow = after >= DISK_SHARE * min(bounds, default=after)
                is_disk = is_disk or (slow and after >= DISK_GROWTH * (before or 0.0))
        if now.cpu_cores is not None:
            said.append(f"the busiest member used {now.cpu_cores:.2f} processors")
        if now.cpu_wait_share is not None:
            said.append(
                f"a member's threads were ready and lacked a processor for {now.cpu_wait_share:.0%} of their time"
            )
        if stay.decision is Decision.LATE:
            return "client", said
        if (now.cpu_wait_share or 0.0) >= LARGE_SHARE:
            return "cpu", said
        if is_disk:
            return "disk", said
        return ("overload" if stay.is_growing or done < 0.97 * stay.achieved else "unsure"), said

    def _value(self, slo: Slo, seen: Seen) -> float | None:
        """Return what a stay has for a threshold, in its unit; None where no operation came back."""
        latencies = (seen.service if slo.is_service else seen.latencies).get(slo.type, {})
        if slo.quantile is not None:
            return seen.percentile_ms(slo.quantile, slo.type, service=slo.is_service)
        count, bad = slo.bad(latencies, seen.failed.get(slo.type, 0))
        return 1 - bad / count if count else None

    def _step(self, number: int, stay: Stay) -> CapacityStep:
        seen, members = self.seen.get(number, Seen()), self.evidence.get(number) or Evidence()
        return {
            "rate": _rounded(stay.rate) or 0.0,
            "achieved": _rounded(stay.achieved) or 0.0,
            "seconds": round(stay.seconds, 3),
            "phase": stay.phase.value,
            "decision": None if stay.decision is None else stay.decision.value,
            "sure": stay.is_sure,
            "broken": [str(self.slos[goal].threshold) for goal in stay.broken],
            "growing": stay.is_growing,
            "operations": sum(each.returned for each in stay.blocks),
            "failed": sum(count for f, count in seen.failed.items() if f == "total"),
            "dropped": sum(each.dropped for each in stay.blocks),
            "in_flight": stay.blocks[-1].in_flight,
            "values": [_rounded(self._value(slo, seen), 6) for slo in self.slos],
            "p50_ms": _rounded(seen.percentile_ms(0.5)),
            "p99_ms": _rounded(seen.percentile_ms(0.99)),
            "start_lag_p99_ms": _rounded(seen.start_lag_p99_ms),
            "fsync_p99_ms": members.fsync_p99_ms,
            "commit_p99_ms": members.commit_p99_ms,
            "cpu_cores": members.cpu_cores,
            "cpu_wait_share": members.cpu_wait_share,
        }


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)


def headline(capacity: Capacity) -> str:
    """Return the answer in a line."""
    rate, low, high = capacity["rate"], capacity["low"], capacity["high"]
    if rate is None:
        return f"no capacity was found: {capacity['reason']}"
    least = "at least " if capacity["is_lower_bound"] else ""
    return f"capacity: {least}{rate:,.0f} operations per second (seen to hold: {_seen(low)}, to break: {_seen(high)})"


def _seen(rate: float | None) -> str:
    return "none" if rate is None else f"{rate:,.0f}/s"


def render(capacity: Capacity) -> str:
    """Return the answer as a text: what was found, what gave way first, and every rate that was tried."""
    lines = [headline(capacity)]
    if capacity["reason"] and capacity["rate"] is not None:
        lines.append(f"inconclusive: {capacity['reason']}")
    lines.append(f"holds:    {'; '.join(capacity['slos'])}")
    limit = capacity["limit"]
    if limit is not None:
        lines.append(f"gives way at {limit['rate']:,.0f}/s ({limit['by']}): {'; '.join(limit['broken'])}")
        lines += [f"  {each}" for each in limit["evidence"]]
    lines.append("")
    lines.append(f"{'rate/s':>10} {'p50 ms':>9} {'p99 ms':>9} {'failed':>8} {'in flight':>9} {'seconds':>8}  decision")
    for step in sorted(capacity["steps"], key=lambda each: each["rate"]):
        p50, p99 = (f"{step[f]:,.2f}" if step[f] is not None else "-" for f in ("p50_ms", "p99_ms"))
        word = WORDS[step["decision"]] if step["decision"] else "cut short"
        sure = "" if step["sure"] or step["decision"] is None else " (looks so)"
        mark = f"  {step['phase']}" if step["phase"] == Phase.CONFIRMING.value else ""
        lines.append(
            f"{step['rate']:>10,.0f} {p50:>9} {p99:>9} {step['failed']:>8,} {step['in_flight']:>9,} "
            f"{step['seconds']:>8.1f}  {word}{sure}{mark}"
        )
    return "\n".join(lines)
