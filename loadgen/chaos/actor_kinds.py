"""The kinds of actors that act beside the load of a chaos run: users with few rights, odd watches, and others."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class ActorKind:
    """A kind of actor; what it does once is in ``actor_turns``.

    Attributes:
        name: as ``--actors`` takes it.
        does: what it does, for people.
        pause_s: seconds from one turn to the next, on average.
        anywhere: whether it may be let loose on somebody's cluster: it leaves auth, members, alarms, leadership and the
            members' disks alone, and writes little.
    """

    name: str
    does: str
    pause_s: float
    anywhere: bool = False


KINDS: dict[str, ActorKind] = {
    each.name: each
    for each in (
        ActorKind("late-watches", "watches all keys from an old revision, and reads the events slowly", 0.5,
                  anywhere=True),
        ActorKind("odd-watches", "watches from future revisions, from compacted ones, and from -1", 0.5,
                  anywhere=True),
        ActorKind("given-up-calls", "sends requests for many keys, and cancels them at once", 0.2, anywhere=True),
        ActorKind("limits", "sends requests of the largest size that etcd takes, and larger ones", 10.0),
        ActorKind("maintenance", "defragments members, takes their snapshots, asks for their hashes", 1.0),
        ActorKind("leaders", "transfers leadership to another member", 3.0),
        ActorKind("members", "adds a learner that never starts, changes its peer URL, and removes it", 2.0),
        ActorKind("alarms", "raises the alarm NOSPACE for a moment, in which etcd refuses writes", 3.0),
        ActorKind("users", "switches authentication on for a moment, in which etcd refuses the load", 6.0),
    )
}  # fmt: skip
"""All kinds by name."""
