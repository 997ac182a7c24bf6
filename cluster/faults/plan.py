"""A fault plan, made from names and a seed: the time and the targets of each fault. No I/O.

A name is a kind and a target, ``kill-leader``, ``pause-follower``, ``isolate-random``, ``restart-all``; or ``compact``,
``defrag`` and ``transfer-leader``, which need no target. The same names, numbers and seed give the same plan; whom
``leader`` and ``follower`` mean is known only when their time has come.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

from cluster.base.errors import UsageError
from cluster.faults.kinds import KINDS, TARGETS, Fault, Kind

# No fault of KINDS: a request like any other, and left to a client.
COMPACT = "compact"
# Faults of members and of links first, then requests to etcd.
DEFAULT = (
    *(name for kind in KINDS.values() if not kind.request for name in kind.in_default_plan),
    COMPACT,
    *(name for kind in KINDS.values() if kind.request for name in kind.in_default_plan),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Round:
    """One fault of a plan.

    Attributes:
        number: from 1.
        name: as it was asked for.
        fault: what to do; None for ``compact``.
        hold_s: how long it lasts before it is healed, from its beginning, in seconds.
        seed: for what is chosen at its time.
    """

    number: int
    name: str
    fault: Fault | None
    hold_s: float
    seed: int


def parse(text: str) -> tuple[str, ...]:
    """Return the names in a text, with commas between. Raises UsageError for an unknown one, or none."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise UsageError("no fault is named: " + _known())
    for name in names:
        kind_of(name)
    return names


def kind_of(name: str) -> Kind | None:
    """Return the kind of fault that a name stands for; None for ``compact``. Raises UsageError for an unknown one."""
    return None if name == COMPACT else _parts(name)[0]


def needs_relay(names: Sequence[str]) -> bool:
    """Return whether one of these faults is done to the links between members."""
    return any(kind.on_links for kind in map(kind_of, names) if kind)


def needs_strikes(names: Sequence[str]) -> bool:
    """Return whether one of these faults is done to what members write."""
    return any(kind.on_disk for kind in map(kind_of, names) if kind)


def plan_rounds(
    names: Sequence[str], members: Sequence[str], *, every_s: float, count: int, seed: int
) -> tuple[Round, ...]:
    """Return the rounds of a run.

    Takes the names of faults, those of the members, the seconds from one fault to the next, how many there shall be,
    and the seed. Every name has its turn, in an order drawn anew each time, before one comes again. A fault lasts for
    a tenth to half of ``every_s``. Raises UsageError for a fault that makes no sense with so few members.
    """
    for name in names:
        _refuse_alone(name, len(members))
    rng = random.Random(f"faults {seed}")
    turn: list[str] = []
    rounds = []
    for number in range(1, count + 1):
        if not turn:
            turn = rng.sample(list(names), len(names))
        name = turn.pop()
        hold, chosen, own = rng.uniform(0.1, 0.5) * every_s, rng.choice(list(members)), rng.getrandbits(32)
        fault, lasts = None, False
        if name != COMPACT:
            kind, target = _parts(name)
            options = {option.name: option.in_plan for option in kind.options}
            fault = Fault(kind.name, chosen if target == "random" else target, options)
            lasts = bool(kind.undone_by)
        rounds.append(Round(number, name, fault, round(hold, 3) if lasts else 0.0, own))
    return tuple(rounds)


def names_of_kinds() -> tuple[str, ...]:
    """Return the names that stand before ``-TARGET``."""
    return tuple(name for kind in KINDS.values() for name in kind.plan_names)


def names_alone() -> tuple[str, ...]:
    """Return the names that need no target."""
    return (COMPACT, *(kind.name for kind in KINDS.values() if kind.plan_target))


def _parts(name: str) -> tuple[Kind, str]:
    word, _, target = name.rpartition("-")
    for kind in KINDS.values():
        if name == kind.name and kind.plan_target:
            return kind, kind.plan_target
        if word in kind.plan_names and target in TARGETS:
            return kind, target
    raise UsageError(f"there is no fault {name!r}: {_known()}")


def _refuse_alone(name: str, members: int) -> None:
    if members > 1 or name == COMPACT:
        return
    kind, target = _parts(name)
    if kind.on_links or kind.effect == "leads" or target in ("follower", "minority"):
        raise UsageError(f"{name} needs more than one member")


def _known() -> str:
    return (
        f"write one of {', '.join(names_of_kinds())} with one of {', '.join(TARGETS)}, such as kill-leader; "
        f"or {', '.join(names_alone())}"
    )
