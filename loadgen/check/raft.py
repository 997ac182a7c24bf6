"""Raft's own promises, from the members' logs: Status changes leader and term at different moments, logs do not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from loadgen.check.rules import Ledger


@dataclasses.dataclass(frozen=True, slots=True)
class RoleChange:
    """A member became something: its name, the time by its clock in seconds since 1970, the role, and the term."""

    member: str
    at: float
    role: str
    term: int


def elections(logs: Sequence[Iterable[RoleChange]] | None, ledger: Ledger) -> None:
    """Judges the role changes of each member, in the order of its log; None where there are no logs.

    Election safety, "at most one leader can be elected in a given term" (Ongaro and Ousterhout, figure 3); terms
    increase monotonically (section 5.1), over restarts too, since they are on stable storage before an answer.
    """
    if not logs:
        for rule in ("raft.term", "raft.leader"):
            ledger.doubt(rule, "there are no logs of the members")
        return
    leaders: dict[int, RoleChange] = {}
    for log in logs:
        last: RoleChange | None = None
        for change in log:
            ledger.judged["raft.term"] += 1
            if last is not None and change.term < last.term:
                text = f"{change.member} was at term {last.term} and then became {change.role} at term {change.term}"
                ledger.broken("raft.term", change.term, lambda text=text: text)  # type: ignore[misc]
            last = change
            if change.role != "leader":
                continue
            ledger.judged["raft.leader"] += 1
            other = leaders.setdefault(change.term, change)
            if other.member != change.member:
                text = f"{other.member} and {change.member} both became leader at term {change.term}"
                ledger.broken("raft.leader", change.term, lambda text=text: text)  # type: ignore[misc]
