"""The outcome of a chaos run: the check of its history, the effect of each fault, the verdict, and their text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cluster.base.console import columns
from cluster.base.known_bugs import known_bugs
from cluster.schema.rounds import failures
from cluster.schema.run_documents import not_reachable
from loadgen.chaos import fault_stats
from loadgen.chaos.campaign import Campaign
from loadgen.check import report
from loadgen.check.rules import select
from loadgen.history.reader import read

if TYPE_CHECKING:
    from cluster.schema.run_documents import FaultRow, Result

_HEAD: tuple[str, ...] = (
    "ROUND", "FAULT", "MEMBERS", "LEADER AFTER", "NO LEADER", "NO WRITE", "OPS/S BEFORE", "DURING", "AFTER", "",
)  # fmt: skip


def judge(campaign: Campaign, names: Sequence[str], guarantees: Sequence[str], version: str | None) -> Result:
    """Check the history of a run that has ended and return its result document.

    Takes the run, the names of its faults, which guarantees to check (none: all), and the version of etcd.
    """
    folder, design = campaign.run.folder, campaign.design
    history = read(folder)
    faults, earlier = fault_stats.describe(
        campaign.fault_rounds,
        history,
        folder / "logs",
        every_s=design.every_s,
        end_ns=campaign.ended_ns,
        actors=bool(campaign.turns),
    )
    campaign.run.blocks["chaos"] = {
        "plan": {"faults": list(names), "rounds": len(design.rounds), "every_s": design.every_s,
                 "compact_every_s": design.compact_every_s},
        "traffic": dict(campaign.shape.weights),
        "corrupting": campaign.shape.corrupting,
        "known_bugs": [
            {"issue": int(bug.issue), "summary": bug.summary} for bug in known_bugs(version or "", under_load=True)
        ],
        "stopped_by": campaign.stopped_by or None,
        "recorded": len(history.rows),
        "earlier": earlier,
        "actors": campaign.turns,
        "faults": faults,
    }  # fmt: skip
    campaign.run.blocks["check"] = report.judged(folder, select(list(guarantees)))
    return campaign.run.finish()


def render(result: Result, *, color: bool, width: int) -> str:
    """Return a result as people read it: faults, guarantees, what broke one, and how to run it again."""
    chaos, check, total = result["chaos"], result["check"], result["results"]["total"]
    assert chaos, "the result of a chaos run"
    assert check, "the result of a chaos run"
    lines = [*_faults(chaos["faults"]), ""] if chaos["faults"] else []
    lines += [report.render(check, color=color, width=width, verdict="check"), ""]
    operations, rate = (total["operations"], total["throughput_ops_s"] or 0) if total else (0, 0)
    others = _others(check["operations"] - operations, actors=bool(chaos.get("actors")))
    lines.append(f"{operations:,} operations of the load at {rate:,.0f}/s{others}")
    if actors := chaos.get("actors"):
        lines.append("actors: " + ", ".join(f"{name} {turns} turns" for name, turns in actors.items()))
    lines += [text] if (text := failures(result)) else []
    lines += not_reachable(result)
    if chaos["stopped_by"]:
        lines.append(f"ended early: {chaos['stopped_by']}")
    lines.append(f"{result['verdict'].upper()}")
    # What the check says is above.
    said = {f"{row['name']} is" for row in check["guarantees"]}
    said |= {f"{bug['bug']} is" for bug in check.get("explained", ())}
    lines += [f"  {reason}" for reason in result["verdict_reasons"] if not any(map(reason.startswith, said))]
    return "\n".join(lines)


def _others(more: int, *, actors: bool) -> str:
    """Return in words why the history has more operations than the load had."""
    if more <= 0:
        return ""
    if actors:
        return f"; {more:,} more in the history are the actors' and raftload's own"
    return f"; {more:,} more in the history are raftload's own: first writes, compactions, comparisons, final reads"


def _faults(faults: list[FaultRow]) -> list[str]:
    rows = [_HEAD]
    for each in faults:
        rates = [f"{rate:,.0f}" if (rate := window["throughput_ops_s"]) is not None else "-"
                 for window in (each["before"], each["during"], each["after"])]  # fmt: skip
        led = f"{each['leader']} (term {each['term']})" if each["leader"] else "-"
        gap = "-" if each["leaderless_s"] is None else f"{each['leaderless_s']:.2f} s"
        rows.append((str(each["number"]), each["fault"], ", ".join(each["members"]) or "-", led, gap,
                     f"{each['longest_gap_s']:.2f} s", *rates, each["reason"] or ""))  # fmt: skip
    return columns(rows)
