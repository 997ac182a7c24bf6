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
from cluster.faults.kinds import TARGETS, Fault, Kind

COMPACT = "compact"
_KINDS: dict[str, Kind] = {
    "kill": "kill", "crash": "crash", "stop": "stop", "restart": "restart", "pause": "pause",
    "partition": "partition", "isolate": "partition", "delay": "delay", "drop": "drop", "defrag": "defrag",
}  # fmt: skip
_ALONE: dict[str, tuple[Kind, str]] = {"transfer-leader": ("transfer-leader", "follower"), "defrag": ("defrag", "all")}
# Over in themselves: there is nothing to hold.
_MOMENTARY = frozenset({"crash", "restart", "transfer-leader", "defrag"})
_NEED_RELAY = frozenset({"partition", "delay", "drop"})
DELAY_S, JITTER_S, DROP_SHARE = 0.05, 0.02, 0.1
DEFAULT = (
    "kill-leader", "kill-random", "pause-follower", "partition-leader", "isolate-random", "restart-all", "compact",
    "defrag", "transfer-leader",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Round:
    """One fault of a plan.

    Attributes:
        number: from 1.
        name: as it was asked for.
        fault: what to do; None for ``compact``, which is a request like any other and left to a client.
        hold_s: how long it lasts before it is healed, from its beginning, in seconds.
        seed: for what is chosen at its time.
    """

    number: int
    name: str
    fault: Fault | None
    hold_s: float
    seed: int


def parse(text: str) -> tuple[str, ...]:
    """Takes names with commas, returns them checked. Raises UsageError for an unknown one, or none."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise UsageError("no fault is named: " + _known())
    for name in names:
        _parts(name)
    return names


def needs_relay(names: Sequence[str]) -> bool:
    """Whether one of these faults is done to the links between members."""
    return any(name != COMPACT and _parts(name)[0] in _NEED_RELAY for name in names)


def kind_of(name: str) -> Kind | None:
    """The kind of fault that a name stands for; None for ``compact``. Raises UsageError for an unknown one."""
    return None if name == COMPACT else _parts(name)[0]


def plan_rounds(
    names: Sequence[str], members: Sequence[str], *, every_s: float, count: int, seed: int
) -> tuple[Round, ...]:
    """The rounds of a run.

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
        fault = None
        if name != COMPACT:
            kind, target = _parts(name)
            fault = Fault(
                kind, chosen if target == "random" else target,
                delay_s=DELAY_S if kind == "delay" else 0.0, jitter_s=JITTER_S if kind == "delay" else 0.0,
                share=DROP_SHARE if kind == "drop" else 0.0,
            )  # fmt: skip
        momentary = fault is None or fault.kind in _MOMENTARY
        rounds.append(Round(number, name, fault, 0.0 if momentary else round(hold, 3), own))
    return tuple(rounds)


def _parts(name: str) -> tuple[Kind, str]:
    if name in _ALONE:
        return _ALONE[name]
    kind, _, target = name.partition("-")
    if name != COMPACT and (kind not in _KINDS or target not in TARGETS):
        raise UsageError(f"there is no fault {name!r}: {_known()}")
    return _KINDS.get(kind, "defrag"), target


def _refuse_alone(name: str, members: int) -> None:
    if members > 1 or name == COMPACT:
        return
    kind, target = _parts(name)
    if kind in _NEED_RELAY or kind == "transfer-leader" or target in ("follower", "minority"):
        raise UsageError(f"{name} needs more than one member")


def _known() -> str:
    return (
        f"write one of {', '.join(_KINDS)} with one of {', '.join(TARGETS)}, such as kill-leader; "
        f"or {COMPACT}, {', '.join(_ALONE)}"
    )
