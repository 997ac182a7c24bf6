"""What members say of themselves, as evidence: of a run folder, or of whoever has asked them.

Their counters grow from a member's start; what is told is of the time from the first scrape to the last one, over
restarts. What a release does not measure, or an older raftload did not read, is left out, and is not zero.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from cluster.base.endpoint import Endpoint
from cluster.observe import record
from cluster.observe.calls import DENIED, USER_WANTED
from cluster.observe.metrics import Histogram
from cluster.observe.record import Poll, Record, Scrape
from cluster.schema.run_documents import NO_GENERATOR, NO_TARGET
from loadgen.diagnose.facts import (
    HIGHEST,
    HISTOGRAMS,
    RATES,
    ClientEvidence,
    Evidence,
    LoadEvidence,
    MemberEvidence,
    Times,
)

if TYPE_CHECKING:
    from cluster.schema.run_documents import CpuWait, Generator, Result, ResultTarget, Row

# Reasons of polls (docs/formats.md): of a member that may be there all the same, and of one that did answer.
_TIMEOUT, _HIDDEN = "timeout", (DENIED, USER_WANTED)
# Columns of metrics.csv whose name is another than that of the figure.
_RATE_OF = {"cpu_cores": "cpu_s", "gc_pause_share": "gc_pause_s"}
_COUNTED = {
    "slow_applies": ("slow_applies",),
    "slow_reads": ("slow_reads",),
    "failed_reads": ("failed_reads",),
    "heartbeat_failures": ("heartbeat_failures",),
    "peer_failures": ("peer_failures",),
    "snapshots": ("snapshots_sent", "snapshots_received"),
}


def filled(evidence: Evidence, polls: Iterable[Poll], scrapes: Mapping[str, Sequence[Scrape]]) -> Evidence:
    """Return the evidence with what its members have said of themselves.

    Takes evidence whose members have at least a name; their polls, of all members together; and their scrapes in order
    of time, by name. Who leads stays as it was where no poll tells a role, as where users may not see the status.
    """
    ordered = sorted(polls, key=lambda each: each.at)
    members = tuple(
        member(each, [poll for poll in ordered if poll.member == each.name], scrapes.get(each.name, ()))
        for each in evidence.members
    )
    if not any(poll.role for poll in ordered):
        return dataclasses.replace(evidence, members=members)
    shares, leaderless = led(ordered)
    return dataclasses.replace(
        evidence,
        members=tuple(dataclasses.replace(each, leads=round(shares.get(each.name, 0.0), 4)) for each in members),
        leaderless=round(leaderless, 4),
    )


def member(known: MemberEvidence, polls: Sequence[Poll], scrapes: Sequence[Scrape]) -> MemberEvidence:
    """Return what is known of a member with its own polls and scrapes, each in order of time."""
    roles = [poll.role for poll in polls if poll.answers]
    answered = len(roles) + sum(poll.reason in _HIDDEN for poll in polls)
    return dataclasses.replace(
        known,
        learns=roles[-1] == "learner" if roles else known.learns,
        answers=round(answered / len(polls), 4) if polls else known.answers,
        without_leader=round(roles.count("no leader") / len(roles), 4) if roles else known.without_leader,
        histograms=histograms(scrapes),
        rates=rates(scrapes),
        counts=counts(scrapes),
        highest=highest(polls, scrapes),
    )


def led(polls: Sequence[Poll]) -> tuple[dict[str, float], float]:
    """Return the share of the time in which each member led, by name, and that in which none did.

    Takes the polls of all members in order of time. What a poll told holds until the next one of that member, and the
    time begins when each has been asked once. A member that does not answer in time (``timeout``) leads as long as one
    that answers follows it: slow is not gone.
    """
    states = [*_leaders(polls)]
    stretches = [(later - at, leaders) for (at, leaders), (later, _) in itertools.pairwise(states)]
    total = sum(seconds for seconds, _ in stretches)
    if not total:  # of a single look at each, that is all that is known
        stretches, total = [(1.0, leaders) for _, leaders in states[-1:]], 1.0
    names = sorted({name for _, leaders in stretches for name in leaders})
    shares = {name: sum(seconds for seconds, leaders in stretches if name in leaders) / total for name in names}
    return shares, sum(seconds for seconds, leaders in stretches if not leaders) / total


def _leaders(polls: Sequence[Poll]) -> Iterator[tuple[float, set[str]]]:
    """Return from when on who led, once each member has been asked."""
    missing = {poll.member for poll in polls}
    latest: dict[str, Poll] = {}
    for poll in polls:
        latest[poll.member] = poll
        missing.discard(poll.member)
        if not missing:
            followed = {last.leader for last in latest.values() if last.role in ("follower", "learner")}
            # Whom members follow may be one that nobody asks.
            silent = {name for name in followed if name not in latest or latest[name].reason == _TIMEOUT}
            yield poll.at, silent | {name for name, last in latest.items() if last.role == "leader"}


def histograms(scrapes: Sequence[Scrape]) -> dict[str, Times]:
    """Return those of HISTOGRAMS that the member has, from its first scrape to the last."""
    found = {name: record.between(scrapes, name) for name in HISTOGRAMS}
    seconds = scrapes[-1].at - scrapes[0].at if scrapes else 0.0
    return {name: times_of(each, seconds) for name, each in found.items() if each is not None}


def times_of(histogram: Histogram, seconds: float) -> Times:
    """Return a member's histogram as milliseconds, to the microsecond; the longest is no longer than that bound.

    Of what was longer than the largest bound, only that bound is known. Takes the seconds that it is of.
    """

    def quantile_ms(share: float) -> float | None:
        seconds = histogram.quantile(share)
        return None if seconds is None else round(seconds * 1e3, 3)

    most_ms = None
    if histogram.count:
        most = next(i for i, count in enumerate(histogram.counts) if count == histogram.count)
        bounds = [bound for bound in histogram.bounds[: most + 1] if math.isfinite(bound)]
        most_ms = round(bounds[-1] * 1e3, 3) if bounds else None
    return Times(
        histogram.count,
        p10_ms=quantile_ms(0.1), p50_ms=quantile_ms(0.5), p90_ms=quantile_ms(0.9), p99_ms=quantile_ms(0.99),
        most_ms=most_ms, wait_ms=_wait_ms(histogram, seconds),
    )  # fmt: skip


def _wait_ms(histogram: Histogram, seconds: float) -> float | None:
    """Return how long somebody who comes at any moment waits on average for what is under way then.

    The mean residual time of a renewal process, times the share of time in which something is under way: the sum of
    squares over twice the interval (https://en.wikipedia.org/wiki/Renewal_theory#Inspection_paradox). Durations are
    taken to be even within a bucket.
    """
    if seconds <= 0:
        return None
    squares, low, below = 0.0, 0.0, 0
    for bound, count in zip(histogram.bounds, histogram.counts, strict=True):
        high = bound if math.isfinite(bound) else low
        squares += (count - below) * (low * low + low * high + high * high) / 3
        low, below = high, count
    return round(squares / (2 * seconds) * 1e3, 3)


def rates(scrapes: Sequence[Scrape]) -> dict[str, float]:
    """Return those of RATES that the member counts, from its first scrape to the last."""
    seconds = scrapes[-1].at - scrapes[0].at if scrapes else 0.0
    if seconds <= 0:
        return {}
    found = {name: record.growth(scrapes, _RATE_OF.get(name, name)) for name in RATES}
    # Of proposals it tells the index of the last one, which no restart sets back, rather than how many it has seen.
    indices = _values(scrapes, "proposals_committed")
    found["proposals"] = max(indices) - indices[0] if indices else None
    return {name: round(each / seconds, 6) for name, each in found.items() if each is not None}


def counts(scrapes: Sequence[Scrape]) -> dict[str, int]:
    """Return those of COUNTS that the member counts, from its first scrape to the last."""
    found: dict[str, int] = {}
    again = record.restarts(scrapes)
    if (changes := record.grown(scrapes, "leader_changes")) is not None:
        # The first leader that it sees after its start is a change to it, too.
        found["leader_changes"] = max(0, changes - again)
    for name, columns in _COUNTED.items():
        known = [each for each in (record.grown(scrapes, column) for column in columns) if each is not None]
        if known:
            found[name] = sum(known)
    if _values(scrapes, "started_at"):
        found["restarts"] = again
    return found


def highest(polls: Sequence[Poll], scrapes: Sequence[Scrape]) -> dict[str, float]:
    """Return those of HIGHEST that the member tells, in its polls or its scrapes."""
    found = {name: _values(scrapes, name) for name in HIGHEST}
    found["db_size"] += [float(poll.db_size) for poll in polls if poll.db_size is not None]
    found["apply_lag"] = [
        float(max(0, poll.commit_index - poll.applied_index))
        for poll in polls
        if poll.commit_index is not None and poll.applied_index is not None
    ]
    return {name: max(values) for name, values in found.items() if values}


def _values(scrapes: Iterable[Scrape], column: str) -> list[float]:
    return [each.metrics.values[column] for each in scrapes if column in each.metrics.values]


def of_run(watched: Record, result: Result) -> Evidence | None:
    """Return the evidence of a run's load; None where nobody scraped its members.

    Takes what the observer wrote and the run's result. Of the members' polls and scrapes those during the load count.
    """
    moments = [each for of_member in watched.scrapes.values() for each in of_member]
    if not moments:
        return None
    begin = min((each.at for each in moments if each.phase == "before"), default=min(each.at for each in moments))
    end = max((each.at for each in moments if each.phase == "end"), default=max(each.at for each in moments))
    target = result.get("target") or NO_TARGET
    # Of a member that had not answered yet the observer knew no more than its address.
    known = {each.endpoint: each.name for each in _members(target)}
    polls = [
        dataclasses.replace(poll, member=known.get(poll.member, poll.member))
        for poll in watched.polls
        if begin <= poll.at <= end
    ]
    during = {
        name: [each for each in of_member if begin <= each.at <= end] for name, of_member in watched.scrapes.items()
    }
    there = {each.name: each for each in _members(target)}
    waits = _waits(target.get("cpu_wait"))
    names = sorted({poll.member for poll in polls} | {name for name, of_member in during.items() if of_member})
    members = tuple(
        dataclasses.replace(
            there.get(name) or MemberEvidence(name, "", target.get("etcd_version") or ""),
            probes=_asked(poll for poll in polls if poll.member == name), cpu_wait_share=waits.get(name),
        )
        for name in names
    )  # fmt: skip
    client = _client(result.get("generator") or NO_GENERATOR)
    return filled(Evidence("run", round(end - begin, 3), members, client=client, load=_load(result)), polls, during)


def _asked(polls: Iterable[Poll]) -> dict[str, Times]:
    """Return the observer's questions to a member as probes.

    One that was too late has failed in the part that had no end. Nothing of a raftload that did not time the parts.
    """
    polls = [*polls]
    parts = {
        "connect": [poll.connect_ms for poll in polls],
        "members": [poll.list_ms for poll in polls if poll.connect_ms is not None],
        "status": [poll.status_ms for poll in polls if poll.list_ms is not None],
    }
    late = {
        "connect": sum(poll.reason == _TIMEOUT and poll.connect_ms is None for poll in polls),
        "members": sum(
            poll.reason == _TIMEOUT and poll.connect_ms is not None and poll.list_ms is None for poll in polls
        ),
        "status": sum(
            poll.reason == _TIMEOUT and poll.list_ms is not None and poll.status_ms is None for poll in polls
        ),
    }
    known = {name: [each for each in found if each is not None] for name, found in parts.items()}
    if not known["connect"]:
        return {}
    return {name: Times.of(known[name], late[name]) for name in parts if known[name] or late[name]}


def _members(target: ResultTarget) -> list[MemberEvidence]:
    """Return the members that answered after the load, each with its ``host:port``."""
    members = target.get("members")
    return [
        MemberEvidence(each["name"], Endpoint.parse(each["endpoint"]).authority, each["version"])
        for each in (members if isinstance(members, list) else ())
    ]


def _waits(wait: CpuWait | None) -> dict[str, float]:
    """Return by member, of the time in which its threads would have run, how much they waited for a processor."""
    return {
        each["name"]: round(each["waited_s"] / (each["ran_s"] + each["waited_s"]), 3)
        for each in (wait["members"] if wait else ())
        if each["ran_s"] + each["waited_s"] > 0
    }


def _client(generator: Generator) -> ClientEvidence:
    shares = [each.get("cpu_share") for each in generator.get("workers", ())]
    return ClientEvidence(
        lag_p99_ms=generator.get("loop_lag_p99_ms"),
        cpu_share=max((each for each in shares if each is not None), default=None),
        saturated=generator.get("saturated"),
        why=generator.get("saturated_by") or "",
    )


def _load(result: Result) -> LoadEvidence | None:
    """Return what the run's own load saw; None where no operation ended."""
    total, run = result["results"].get("total"), result["run"]
    if not total or not total["operations"]:
        return None
    rate, latency = total["throughput_ops_s"] or 0.0, total["latency"]
    asked = run["rate"] if run["loop"] == "open" else None
    scheduled, duration_s = (result.get("generator") or NO_GENERATOR).get("scheduled"), run["duration_s"]
    if run["loop"] == "open" and asked is None and scheduled and duration_s:
        asked = round(scheduled / duration_s, 3)  # whose rate changed
    return LoadEvidence(
        rate=round(rate * total["succeeded"] / total["operations"], 3),
        p50_ms=latency["p50_ms"] if latency else None,
        p99_ms=latency["p99_ms"] if latency else None,
        failed_share=round(total["failed"] / total["operations"], 6),
        # By Little's law. How long those were open that failed, nobody has counted.
        open=round(rate * ((latency["mean_ms"] if latency else None) or 0.0) / 1e3, 3),
        asked=asked,
        operations={name: _from_sending(row) for name, row in result["results"].items() if row and name != "total"},
    )


def _from_sending(row: Row) -> Times:
    """Return how long operations of one type took from sending."""
    latency = row["latency"]
    took = (latency["service"] if latency else None) or latency or {}
    return Times(
        row["succeeded"], row["failed"], p50_ms=took.get("p50_ms"), p90_ms=took.get("p90_ms"),
        p99_ms=took.get("p99_ms"), most_ms=took.get("max_ms"), mean_ms=took.get("mean_ms"),
    )  # fmt: skip
