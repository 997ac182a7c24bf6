"""The comparison of a watch's events at one revision with the write that made it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from loadgen.check.store import Change, Changes, Entry, entry_of
from loadgen.check.watches import Watch
from loadgen.check.words import entry_words, show
from loadgen.proto.kv_pb2 import Event

Group = tuple[Watch, Sequence[Event], int]
"""A watch, its events of one revision, and when they came."""


def differences(
    watch: Watch, events: Sequence[Event], changes: Changes, revision: int, compacted: int
) -> list[tuple[str, str]]:
    """Return how the events of a watch differ from the changes of a revision: rules, and the words for each.

    ``compacted`` is the newest revision that anybody compacted to: previous key-values before it may be missing.
    """
    wanted = [change for change in changes if watch.wants(change[0], change[2] is None)]
    if [event.kv.key for event in events] != [change[0] for change in wanted] or revision < watch.start:
        return _other_events(watch, events, wanted, revision)
    before: dict[bytes, Entry | None] = {}
    found: list[tuple[str, str]] = []
    for event, change in zip(events, wanted, strict=True):
        # A transaction may change a key twice; the previous one is still that of the revision before.
        old = before.setdefault(change[0], change[1])
        found.extend(_difference(watch, event, (change[0], old, change[2]), revision, compacted))
    return found


def _other_events(watch: Watch, events: Sequence[Event], changes: Changes, revision: int) -> list[tuple[str, str]]:
    """Say how the keys of the events are not those of the changes that a watch had asked for."""
    found: list[tuple[str, str]] = []
    wanted = {change[0]: change for change in changes} if revision >= watch.start else {}
    got: dict[bytes, Event] = {}
    for event in events:
        key = event.kv.key
        if not watch.wants(key, event.type == 1) or revision < watch.start:
            why = "before its start" if revision < watch.start else "that it had not asked for"
            found.append(("watch.filter", f"got an event {why}: {_event_words(event)} of revision {revision}"))
        elif key in got and len(wanted) == len(changes):
            found.append(("watch.unique", f"got the event of {show(key)} of revision {revision} twice in one answer"))
        else:
            got[key] = event
    extra = [key for key in got if key not in wanted]
    missing = [key for key in wanted if key not in got]
    if extra:
        done = f"the write was {change_words(next(iter(wanted.values())))}" if wanted else "nothing was written"
        found.append(("watch.members", f"got {_event_words(got[extra[0]])} of revision {revision}, where {done}"))
    elif missing:
        text = f"got {len(got)} of the {len(wanted)} events of revision {revision}, not that of {show(missing[0])}"
        found.append(("watch.atomic" if got else "watch.reliable", text))
    if not found:
        found.append(("watch.ordered", f"got the events of revision {revision} in another order than they were made"))
    return found


def _difference(watch: Watch, event: Event, change: Change, revision: int, compacted: int) -> list[tuple[str, str]]:
    key, old, new = change
    if (new is None) != (event.type == 1) or (new is not None and event.kv.value != new[0]):
        return [
            (
                "watch.members",
                f"got {_event_words(event)} of revision {revision}, where the write was {change_words(change)}",
            )
        ]
    found = []
    if new is not None and (has := entry_of(event.kv)) != new:
        found.append(("watch.flags", f"got {show(key)} as {entry_words(has)}, where it is {entry_words(new)}"))
    if watch.previous:
        has_previous = event.HasField("prev_kv")
        previous = entry_of(event.prev_kv) if has_previous else None
        # etcd forgets that it was asked for them before it has sent the last events of a watch that is being cancelled.
        excused = previous is None and (revision - 1 < compacted or revision > watch.leaving)
        if previous != old and not excused:
            text = f"got {entry_words(previous)} as what {show(key)} had before revision {revision}"
            found.append(("watch.previous-value", f"{text}, where it had {entry_words(old)}"))
    return found


def plurality(groups: list[Group]) -> Group:
    """Return what most watches saw of a revision; of the widest, where they are of different ranges."""
    widest = [group for group in groups if group[0].whole] or groups
    said = [b"".join(event.kv.SerializeToString() for event in events) for _, events, _ in widest]
    return widest[said.index(Counter(said).most_common(1)[0][0])]


def only_metadata(watch: Watch, events: Sequence[Event], changes: Changes) -> bool:
    """Return whether a watch got the same keys and values, though perhaps with other versions or previous values."""
    wanted = {key: new[0] if new else None for key, _, new in changes if watch.wants(key, new is None)}
    return {event.kv.key: event.kv.value if event.type == 0 else None for event in events} == wanted


def only_part(events: Sequence[Event], changes: Changes) -> bool:
    """Return whether the events of a watch are some of the changes and nothing else."""
    wanted = {key: new[0] if new else None for key, _, new in changes}
    return all(
        event.kv.key in wanted and wanted[event.kv.key] == (event.kv.value if event.type == 0 else None)
        for event in events
    )


def _event_words(event: Event) -> str:
    return f"the {'deletion' if event.type == 1 else 'put'} of {show(event.kv.key)}" + (
        f"={show(event.kv.value)}" if event.type == 0 else ""
    )


def events_words(events: Sequence[Event]) -> str:
    """Return a revision's events in words."""
    more = f" and {len(events) - 2} more" if len(events) > 2 else ""
    return ", ".join(_event_words(event) for event in events[:2]) + more


def change_words(change: Change) -> str:
    """Return a change in words."""
    key, _, new = change
    return f"the deletion of {show(key)}" if new is None else f"the put of {show(key)}={show(new[0])}"
