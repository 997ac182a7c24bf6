"""Kinds of faults and their targets: a fault and a cluster's state in, actions out. No I/O.

A target is one or more members by name, with commas; ``leader``; ``follower`` or ``random``, one to which the fault
applies; ``majority``, as many as make a quorum, or ``minority``, as many as a quorum can spare, chosen at random; or
``all``, each to which it applies. A crash is a kill and a start at once. A partition cuts each of its members off
from every other member.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Collection, Sequence
from typing import Literal, get_args

from cluster.base.errors import UsageError

Kind = Literal[
    "kill", "crash", "stop", "start", "restart", "pause", "resume", "partition", "delay", "drop", "transfer-leader",
    "defrag",
]  # fmt: skip
KINDS: tuple[str, ...] = get_args(Kind)
TARGETS = ("leader", "follower", "random", "majority", "minority", "all")

# What a fault does to a member, by the name of the method.
_METHODS = {
    "kill": ("kill",), "crash": ("kill", "start"), "stop": ("terminate",), "start": ("start",),
    "restart": ("terminate", "start"), "pause": ("pause",), "resume": ("resume",), "partition": ("isolate",),
    "delay": ("delay",), "drop": ("drop",), "transfer-leader": ("transfer",), "defrag": ("defrag",),
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """What to do.

    Attributes:
        kind: one of KINDS.
        target: see the module.
        duration_s: until it is undone; None leaves it.
        delay_s, jitter_s: of a delay.
        share: of a drop, 0 to 1.
    """

    kind: Kind
    target: str
    duration_s: float | None = None
    delay_s: float = 0.0
    jitter_s: float = 0.0
    share: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"there is no fault {self.kind!r}: choose from {', '.join(KINDS)}")
        if self.kind == "delay" and not 0 < self.delay_s <= 60:
            raise UsageError("a delay is more than 0 and at most 60 s")
        if not 0 <= self.jitter_s <= 60:
            raise UsageError("the jitter of a delay is 0 to 60 s")
        if self.kind == "drop" and not 0 < self.share < 1:
            raise UsageError("a share to drop is more than 0 and less than 1 (100%)")


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """A member as a fault finds it: ``state`` is ``running``, ``paused`` or ``down``."""

    name: str
    state: str = "running"
    isolated: bool = False

    @property
    def takes_part(self) -> bool:
        """Whether it can vote."""
        return self.state == "running" and not self.isolated


@dataclasses.dataclass(frozen=True, slots=True)
class Action:
    """One call of a method on one member."""

    method: str
    member: str
    values: tuple[float, ...] = ()


def plan(fault: Fault, members: Sequence[Subject], leader: str | None, rng: random.Random) -> tuple[Action, ...]:
    """What to do, in order.

    Takes the members as they are, who leads (None: nobody), and where chance comes from. Raises UsageError, saying
    what to do, for an unknown target and for a fault that does not apply to a member.
    """
    chosen = _choose(fault, members, leader, rng)
    for subject in chosen:
        if reason := _refusal(fault.kind, subject, members, leader):
            raise UsageError(reason)
    values: tuple[float, ...] = ()
    if fault.kind == "delay":
        values = (fault.delay_s, fault.jitter_s)
    elif fault.kind == "drop":
        values = (fault.share,)
    return tuple(
        Action(method, subject.name, values)
        for method in _METHODS[fault.kind]
        for subject in chosen
        if not (method in ("terminate", "kill") and "start" in _METHODS[fault.kind] and subject.state == "down")
    )


def healing(members: Sequence[Subject], disturbed: Collection[str] = ()) -> tuple[Action, ...]:
    """What undoes everything. Takes the members, and the names of those whose links are delayed or lossy."""
    actions = [Action("delay", name, (0.0, 0.0)) for name in sorted(disturbed)]
    actions += [Action("drop", name, (0.0,)) for name in sorted(disturbed)]
    actions += [Action("join", member.name) for member in members if member.isolated]
    actions += [Action("resume", member.name) for member in members if member.state == "paused"]
    actions += [Action("start", member.name) for member in members if member.state == "down"]
    return tuple(actions)


def after(members: Sequence[Subject], actions: Sequence[Action]) -> tuple[Subject, ...]:
    """The members as they are when the actions were done."""
    states = {"kill": "down", "terminate": "down", "start": "running", "pause": "paused", "resume": "running"}
    found = {member.name: member for member in members}
    for action in actions:
        old = found[action.member]
        isolated = {"isolate": True, "join": False}.get(action.method, old.isolated)
        found[old.name] = Subject(old.name, states.get(action.method, old.state), isolated)
    return tuple(found[member.name] for member in members)


def quorum(count: int) -> int:
    """How many of so many members make a quorum."""
    return count // 2 + 1


def _choose(fault: Fault, members: Sequence[Subject], leader: str | None, rng: random.Random) -> list[Subject]:
    by_name = {member.name: member for member in members}
    target = fault.target.strip()
    fitting = [each for each in members if not _refusal(fault.kind, each, members, leader)]
    if target == "leader":
        if leader is None:
            raise UsageError("nobody leads now: name a member, or `raftload cluster heal` first")
        return [by_name[leader]]
    if target in ("follower", "random"):
        pool = [each for each in fitting if target == "random" or (each.name != leader and each.takes_part)]
        if not pool:
            raise UsageError(f"there is no member to {fault.kind} ({target}): see `raftload cluster status`")
        return [rng.choice(pool)]
    if target == "all":
        if not fitting:
            raise UsageError(f"there is no member to {fault.kind}: see `raftload cluster status`")
        return fitting
    if target in ("majority", "minority"):
        size = quorum(len(members)) if target == "majority" else len(members) - quorum(len(members))
        if size == 0:
            raise UsageError(f"a cluster of {len(members)} can spare no member: it has no minority")
        if len(fitting) < size:
            raise UsageError(
                f"only {len(fitting)} members to {fault.kind}, a {target} is {size}: `raftload cluster heal`"
            )
        picked = {each.name for each in rng.sample(fitting, size)}
        return [each for each in members if each.name in picked]
    names = [name.strip() for name in target.split(",")]
    for name in names:
        if name not in by_name:
            raise UsageError(f"no member {name!r}: there are {', '.join(by_name)}; or {', '.join(TARGETS)}")
    return [by_name[name] for name in dict.fromkeys(names)]


def _refusal(kind: str, subject: Subject, members: Sequence[Subject], leader: str | None) -> str:
    """Why a fault does not apply to a member, and what to do; empty where it does."""
    name = subject.name
    if kind == "start":
        return "" if subject.state == "down" else f"{name} is {subject.state}, not down: nothing to start"
    if kind == "resume":
        return "" if subject.state == "paused" else f"{name} is {subject.state}, not paused: nothing to resume"
    if kind in ("restart", "crash"):
        return ""
    if subject.state == "down":
        return f"{name} is down already: `raftload cluster start {name}`"
    if kind in ("kill", "stop"):
        return ""
    if subject.state == "paused":
        return f"{name} is paused: `raftload cluster resume {name}`"
    if kind == "partition" and subject.isolated:
        return f"{name} is cut off already: `raftload cluster heal`"
    if kind in ("partition", "delay", "drop") and len(members) == 1:
        return "a cluster of one has no links between members"
    if kind == "transfer-leader":
        if leader is None:
            return "nobody leads now, so nobody can hand it over: `raftload cluster heal` first"
        if subject.isolated:
            return f"{name} is cut off: `raftload cluster heal`"
        if name == leader:
            return f"{name} leads already: name a follower"
    return ""
