"""The words of a diagnosis: a sentence for each kind of cause, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from loadgen.diagnose.answer import Answer, Figure, number
from loadgen.diagnose.parts import ELECTIONS

if TYPE_CHECKING:
    from cluster.schema.diagnose_documents import Word
    from loadgen.diagnose.facts import MemberEvidence

Kind = Literal[
    "log", "stalls", "hung disk", "loop", "database", "processor", "turns", "store", "connection", "majority",
    "leader's link", "cut off", "lost from sight", "bandwidth", "between", "busy", "short waits", "queue", "heavy",
    "written", "client",
]  # fmt: skip
"""The kinds of causes."""

_WHY: dict[Kind, str] = {
    "log": "{of} syncs of its log take {first}",
    "stalls": "{of} disk stands still now and then: a sync of its log took {longest}",
    "hung disk": "{of} disk hangs: a sync of its log does not return",
    "loop": "{of} Raft loop stands still: a turn of it takes {first}, and neither its syncs nor its processor explain "
    "that, so writes to its log wait",
    "database": "{of} commits of its database take {first}",
    "processor": "{member} gets too little of a processor: the least request to it takes {first}",
    "turns": "the members wait for processors again and again ({doing})",
    "store": "something holds the store of {member}: to read it takes {first}",
    "connection": "the way between client and {member} is slow: a connection takes {first}",
    "majority": "the way between {member}, the leader, and the others is slow: it hears of a majority after {first}",
    "leader's link": "the way between {member} and the leader is slow: a linearizable read through it takes {first}",
    "cut off": "{member} is cut off from the leader that the others follow: it knew none for {first} of the time",
    "lost from sight": "{member} loses the leader from sight again and again, and the others do not: it saw {amount} "
    "changes of it",
    "bandwidth": "the links between members carry little: at {member} a put of 16 KiB takes {first} longer than one of "
    "64 bytes",
    "between": "messages between members are slow: the load's requests take {first}, and neither disks, processors nor "
    "the way to the clients explain that",
    "busy": "the cluster is asked for more than it can do: {doing}",
    "short waits": "the members have much to do, and waits for processors and syncs that are short each add up: "
    "{doing}",
    "queue": "the cluster is asked for more than it can do: {amount} proposals waited at one moment",
    "heavy": "the cluster has work that keeps others waiting: {doing}",
    "written": "the cluster is asked to write more than its disks can: {doing}",
    "client": "the client itself was too busy to measure: it read answers {late} late (p99)",
}
_WHAT_TO_DO: dict[Kind, str] = {
    "log": "Put the data folder of {member} on a disk of its own that syncs in less than 10 ms; `iostat -x 1` on its "
    "host shows who else writes to it.",
    "stalls": "Look at the disk of {member} at the time: snapshots or backups of its host, a neighbour on the same "
    "disk, limits of a cloud volume that come and go (`iostat -x 1`).",
    "hung disk": "Look at the disk of {member} (`dmesg`, `iostat -x 1`). While it hangs, stop the member: the others "
    "go on without it.",
    "loop": "Look at the disk of {member} (`iostat -x 1`, `vmstat 1`): its kernel may hold up writes until earlier "
    "ones are on disk, although syncs of its log are short.",
    "database": "Put the data folder of {member} on a faster disk; compact and defragment a large database.",
    "processor": "Look for who takes the processor of {member}: other processes on its host (`top`), a CPU limit of "
    "its container (`nr_throttled` in cpu.stat of its cgroup), a busy neighbour of its machine (steal in `top`).",
    "turns": "Give the members more processors, or take other work off their hosts (`top`, steal, too).",
    "store": "Look in the log of {member} for what holds its store: a defragmentation, a hash check, a snapshot or a "
    "huge transaction. Do these one member at a time, and while the load is low.",
    "connection": "Measure the way to {member} from here (`ping`, `mtr`); use clients in its region, or look for loss.",
    "majority": "Measure the way between {member} and the other members (`ping`, `mtr`). If they are meant to be far "
    "apart, raise --heartbeat-interval to about the round trip, and --election-timeout to ten times that.",
    "leader's link": "Measure the way between {member} and the leader (`ping`, `mtr`).",
    "cut off": "Look at the way between {member} and the other members: their peer ports, firewalls, certificates of "
    "peers (its log says whom it cannot reach). Its clients fail meanwhile: take it out of their endpoints.",
    "lost from sight": "Look for messages that are lost for moments on the way between {member} and the other members "
    "(`mtr`, counters of its network interface).",
    "bandwidth": "Measure what the links between the members carry (`iperf3`), and who else uses them.",
    "between": "Measure the ways between the members (`ping`, `mtr`). `raftload diagnose --endpoints` says which one.",
    "busy": "Ask for less at once: page large reads (--limit), use fewer or larger watches, spread the load over time, "
    "compact more often in smaller steps; or give the members more processors.",
    "short waits": "Ask for less at once, or give the members more processors. `raftload capacity` finds the rate that "
    "they can do.",
    "queue": "Ask for less at once, or give the members more processors and faster disks. `raftload capacity` finds "
    "the rate that they can do.",
    "heavy": "Do that work in smaller steps: smaller values, large reads in pages (--limit), compaction more often, "
    "defragmentation of one member at a time and while the load is low, fewer watches.",
    "written": "Write less at once: smaller values, compaction and defragmentation in small steps and one member at a "
    "time; or use faster disks.",
    "client": "Give the client a processor of its own, or more workers, and measure again: until then no other word "
    "can be trusted.",
}
# What would tell two words apart that explain the same.
_APART: dict[frozenset[Word], str] = {
    frozenset(
        ("disk", "cpu")
    ): "Look at the member's host: `iostat -x 1` for the disk, `top` (steal, too) and cpu.stat "
    "of its cgroup for the processor.",
    frozenset(("disk", "network")): "Measure the ways between the members (`ping`), and the disks (`iostat -x 1`).",
    frozenset(("cpu", "network")): "Run this on the member's own host: there the network is out of it.",
    frozenset(("disk", "overload")): "Run this once more while the load is off: a slow disk stays slow.",
    frozenset(("cpu", "overload")): "Run this once more while the load is off: a short processor stays short.",
    frozenset(("network", "overload")): "Run this once more while the load is off: a slow network stays slow.",
}
_CLIENT = "Run this from a host that has a processor to spare."


def why(kind: Kind, member: str, figures: Sequence[Figure], alike: Iterable[str] = ()) -> str:
    """Return the sentence for a cause.

    Takes its member, the figures that decide, and the members at which it is about as strong.
    """
    first = figures[0]
    of = f"{member}'s" if member else "the members'"
    longest = next((each for each in figures if each.name == "the longest"), first)
    said = _WHY[kind].format(
        member=member or "a member", of=of, first=_measured(first), amount=_amount(first), longest=_amount(longest),
        late=_amount(first), doing=f"{first.name}: {_amount(first)}",
    )  # fmt: skip
    others = ", ".join(alike)
    return f"{said}; likewise {others}" if others else said


def what_to_do(kind: Kind, member: str) -> str:
    """Return what to do about a cause."""
    return _WHAT_TO_DO[kind].format(member=member or "the members")


def healthy(figures: Sequence[Figure]) -> Answer:
    """Return the answer that nothing is slow. Takes the figures that come nearest to what is not usual."""
    return Answer("healthy", "nothing is slow", figures)


def unsure(first: Word, second: Word, figures: Sequence[Figure], margin: float, of_member: bool) -> Answer:
    """Return the answer where two words explain the same. Takes the stronger one first, and its margin."""
    what = "it" if of_member else "the cluster"
    pair: frozenset[Word] = frozenset((first, second))
    apart = _CLIENT if "client" in pair else _APART[pair]
    return Answer(
        "unsure", f"{what} is slow, and {first} and {second} explain it alike", figures, second, margin, apart
    )


def elections(changes: Figure, leaderless: Figure) -> Answer:
    """Return the answer where the leadership moves, and nothing else is slow. Takes how often, and how long."""
    often = changes.value >= ELECTIONS
    what = "the leadership moves again and again" if often else f"no member led for {_amount(leaderless)} of the time"
    return Answer(
        "unsure", f"elections: {what}, and nothing that is slow explains it", (changes, leaderless),
        advice="See in the members' logs who asks for elections, and why (`raftload viz log`): somebody may move the "
        "leader, or messages may be lost for moments that are too short to be seen here.",
    )  # fmt: skip


def failing(share: Figure) -> Answer:
    """Return the answer where requests fail, and nothing is slow. Takes how many of a load's."""
    return Answer(
        "unsure", f"{_amount(share)} of the load's requests failed, and nothing that is slow explains it", (share,),
        advice="See the failures by cause in the run's table or report: a refused request is not a slow one.",
    )  # fmt: skip


def silent(members: Sequence[MemberEvidence]) -> Answer:
    """Return the answer where members do not answer at all."""
    names = ", ".join(each.name for each in members)
    verb = "does" if len(members) == 1 else "do"
    return Answer(
        "unsure", f"{names} {verb} not answer: not running, or cut off from here",
        advice=f"See whether etcd runs there, and whether its client port can be reached from here: {names}.",
    )  # fmt: skip


def unknown() -> Answer:
    """Return the answer where nothing was measured."""
    return Answer("unsure", "nothing was measured", advice="Probe for longer, or look at the notes.")


def _measured(figure: Figure) -> str:
    """Return ``61 ms (p90; 10 ms are usual)``."""
    _, comma, percentile = figure.name.rpartition(", ")
    usual = f"{number(figure.limit)} {figure.unit} are usual" if figure.limit is not None else ""
    more = "; ".join(filter(None, (percentile if comma else "", usual)))
    return _amount(figure) + (f" ({more})" if more else "")


def _amount(figure: Figure) -> str:
    return f"{number(figure.value)} {figure.unit}".rstrip()
