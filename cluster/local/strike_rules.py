"""What is to be done to a member's system calls: rules, what became of them, and how long calls took.

with LocalCluster(1, strikes=DEFAULT) as cluster:
    rule = cluster.strike("etcd-node1", kill("fdatasync", "db", nth=7))
    ...                                                # writes
    struck = cluster.wait_struck("etcd-node1", rule)   # the member is dead, its seventh sync of `db` not done
    cluster.start("etcd-node1")                        # rules stay; this one is used up
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from cluster.base.errors import UsageError
from cluster.local import seccomp

if TYPE_CHECKING:
    from cluster.local import strike

FOR_EVER = float("inf")
DEFAULT = seccomp.DEFAULT
"""``fsync``, ``fdatasync`` and ``rename``."""
FOR_DISKS = (*seccomp.SYNC, "pwrite64", "fallocate")
"""What disk faults are done to. A full disk meets etcd where it needs space: pwrite64 of `db`, fallocate of a log."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """Which calls are struck, and how. `hold`, `fail` and `kill` make one. Raises UsageError where it makes no sense.

    Attributes:
        calls: names of ``seccomp.CALLS``; ``sync`` is both syncs, ``rename`` all three renames.
        file: of which files: ``.wal`` is every name that ends so, ``db`` that name alone, ``*`` every file and socket;
            else a pattern of the shell, of the whole path where it has a slash. A rename is of both its names.
        nth: the first of these calls that is struck, from 1, counted from when the rule was set, through all lives.
        times: how many are struck, None for no bound.
        for_s: for how many seconds from the first strike on calls are struck.
        hold_s: for how many seconds a call is held before it is done; FOR_EVER: until the rule is cleared.
        then: what is done after that: nothing (the call goes on), ``kill``, or an error to answer, such as ``EIO``.
    """

    calls: tuple[str, ...]
    file: str = "*"
    nth: int = 1
    times: int | None = None
    for_s: float = FOR_EVER
    hold_s: float = 0.0
    then: str = ""

    def __post_init__(self) -> None:
        if unknown := [call for call in self.calls if call not in seccomp.CALLS]:
            known = ", ".join(seccomp.CALLS)
            raise UsageError(f"no call to strike is named {unknown[0]!r}: there are {known}; or sync")
        if not self.calls or not self.file:
            raise UsageError("a rule needs a call and a file")
        if self.nth < 1 or (self.times is not None and self.times < 1) or not self.for_s > 0 or not self.hold_s >= 0:
            raise UsageError("a rule counts calls from 1, strikes once or more, and takes no negative time")
        if self.then not in ("", "kill") and self.then not in errno.errorcode.values():
            raise UsageError(f"{self.then!r} is no error of the system: write EIO, ENOSPC, …")
        if not self.hold_s and not self.then:
            raise UsageError("a rule holds calls, answers them with an error, or kills")
        if self.hold_s == FOR_EVER and self.then:
            raise UsageError(f"{self.then} comes after a hold, and this one has no end: give hold_s")

    def to_json(self) -> strike.Rule:
        """Return it as plain values. JSON has no infinity: what has no bound is None."""
        for_s, hold_s = (None if each == FOR_EVER else each for each in (self.for_s, self.hold_s))
        return {
            "calls": list(self.calls), "file": self.file, "nth": self.nth, "times": self.times, "for_s": for_s,
            "hold_s": hold_s, "then": self.then,
        }  # fmt: skip


def hold(
    calls: str | Iterable[str], file: str = "*", hold_s: float = FOR_EVER, *, nth: int = 1, times: int | None = None,
    for_s: float = FOR_EVER, then: str = "",
) -> Rule:  # fmt: skip
    """Return the rule that holds calls for so many seconds, or until it is cleared. See `Rule`."""
    return Rule(named(calls), file, nth, times, for_s, hold_s, then)


def fail(
    calls: str | Iterable[str], file: str = "*", error: str = "EIO", *, nth: int = 1, times: int | None = None,
    for_s: float = FOR_EVER,
) -> Rule:  # fmt: skip
    """Return the rule that answers calls with an error, and has them not done. See `Rule`."""
    return Rule(named(calls), file, nth, times, for_s, then=error)


def kill(calls: str | Iterable[str], file: str = "*", *, nth: int = 1, times: int = 1) -> Rule:
    """Return the rule that kills the member as it makes a call, which is not done. See `Rule`."""
    return Rule(named(calls), file, nth, times, then="kill")


def named(calls: str | Iterable[str]) -> tuple[str, ...]:
    """Return the names of calls, those that are meant by ``sync`` or one of the kernel's three renames too."""
    given = calls.split(",") if isinstance(calls, str) else calls
    meant: dict[str, tuple[str, ...]] = {"sync": seccomp.SYNC, "renameat": seccomp.RENAME, "renameat2": seccomp.RENAME}
    return tuple(dict.fromkeys(each for name in given for each in meant.get(name.strip(), (name.strip(),))))


@dataclasses.dataclass(frozen=True, slots=True)
class Struck:
    """One strike.

    Attributes:
        call: its name.
        paths: the file, or the old and the new name of a rename.
        at_ns: when, on the monotonic clock.
    """

    call: str
    paths: tuple[str, ...]
    at_ns: int


@dataclasses.dataclass(frozen=True, slots=True)
class RuleState:
    """What became of a rule.

    Attributes:
        id: its number at this member.
        rule: as it was set.
        seen: calls that it is about, struck or not; one that a signal interrupts and the kernel restarts is one call.
        struck: how many it struck.
        held: how many it holds now.
        strikes: each of them, the first 100.
    """

    id: int
    rule: Rule
    seen: int
    struck: int
    held: int
    strikes: tuple[Struck, ...]

    @classmethod
    def from_json(cls, found: strike.RuleSeen) -> RuleState:
        """Take it as the process that strikes tells it."""
        told = found["rule"]
        bounds = {name: FOR_EVER for name in ("for_s", "hold_s") if told[name] is None}
        rule = Rule(**{**told, **bounds, "calls": tuple(told["calls"])})  # type: ignore[arg-type]
        strikes = tuple(Struck(each["call"], tuple(each["paths"]), each["at_ns"]) for each in found["strikes"])
        return cls(found["id"], rule, found["seen"], found["struck"], found["held"], strikes)


@dataclasses.dataclass(frozen=True, slots=True)
class Timing:
    """The calls of one name to files of one kind.

    Attributes:
        count: how many were answered.
        timed: of how many it is known how long they took.
        p50_s, p99_s, max_s: how long those took, in seconds, from when the member made the call until it had its
            answer; what a rule held them for included. Percentiles are at most 2 % off. None where none was timed.
    """

    count: int
    timed: int
    p50_s: float | None
    p99_s: float | None
    max_s: float | None


def timings(found: Iterable[strike.Timed]) -> Mapping[tuple[str, str], Timing]:
    """Return the timings by call and kind of file, as the process that strikes tells them."""
    return {
        (each["call"], each["file"]): Timing(
            each["count"], each["timed"], each["p50_s"], each["p99_s"], each["max_s"]
        )
        for each in found
    }  # fmt: skip
