"""Watches: every change, once, in the order of revisions, from the revision asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from cluster.base.etcd_values import Op
from cluster.conformance.model import Broken, Env, Test, expect, refused
from cluster.gateway.client import Client, WatchCanceled, WatchEvent, collect, watching

CHANGES = 30
_QUIET_S = 0.15

Change = tuple[int, str, bytes, bytes]


def order(env: Env) -> str:
    """Watch: ordered, unique and reliable: all changes in the order of their revisions, none twice, none missing.

    Watched at every member while changes go through all of them.
    """
    with contextlib.ExitStack() as stack:
        watches = [
            stack.enter_context(watching(client, env.key("w/"), range_end=env.key("w0"))) for client in env.clients()
        ]
        wanted = change_some(env, CHANGES)
        for place, watch in enumerate(watches):
            _expect_same(wanted, collect(watch, len(wanted), env.bounds.event_s, _QUIET_S), env.name(place))
    return f"{len(wanted)} changes in order at each of {len(env)} members"


def resume(env: Env) -> str:
    """Watch: from a start revision it delivers that revision's changes and all after it, and nothing before.

    So a watch that broke goes on at the revision after the last one it saw, without a gap or a repetition.
    """
    wanted = change_some(env, CHANGES)
    middle = wanted[CHANGES // 3][0]
    rest = [change for change in wanted if change[0] >= middle]
    for place, client in enumerate(env.clients()):
        got = _from(client, env, middle, len(rest))
        _expect_same(rest, got, f"{env.name(place)}, from revision {middle}")
        with watching(client, env.key("w/"), range_end=env.key("w0"), start_revision=middle) as broken:
            seen = collect(broken, 5, env.bounds.event_s)
        last = seen[-1].revision if seen else middle - 1
        after = [change for change in wanted if change[0] > last]
        again = env.client(place + 1)
        got = _from(again, env, last + 1, len(after))
        _expect_same(after, got, f"{env.name(place + 1)}, resumed at revision {last + 1}")
    return f"{len(rest)} of {len(wanted)} changes from revision {middle} on at each of {len(env)} members"


def prefix(env: Env) -> str:
    """Watch: of a range delivers the keys in it, of a key that key, and no others."""
    client = env.client()
    inside = [env.key(f"p/{name}") for name in ("", "a", "a/b", "z", "\x7f")]
    outside = [env.key(name) for name in ("p", "p.", "p0", "o", "q/a")]
    with (
        watching(client, env.key("p/"), range_end=env.key("p0")) as by_prefix,
        watching(client, env.key("p/a")) as by_key,
    ):
        for number, key in enumerate([key for pair in zip(inside, outside, strict=True) for key in pair]):
            env.client(number).put(key, b"v")
        got = [event.kv.key for event in collect(by_prefix, len(inside), env.bounds.event_s, _QUIET_S)]
        strangers = [key.decode() for key in got if key in outside]
        expect(not strangers, f"a watch of a prefix delivered a key outside it: {strangers[:1]}")
        expect(got == inside, f"a watch of a prefix delivered {len(got)} of {len(inside)} changes to keys in it")
        one = [event.kv.key for event in collect(by_key, 1, env.bounds.event_s, _QUIET_S)]
        expect(one == [env.key("p/a")], f"a watch of one key delivered {len(one)} changes instead of 1")
    return f"{len(inside)} changes inside delivered, {len(outside)} outside not"


def prev_kv(env: Env) -> str:
    """Watch: with ``prev_kv`` each event carries the key as it was before, and none where there was none; without it
    no event does.
    """
    client, key = env.client(), env.key("prev")
    with watching(client, key, prev_kv=True) as asked, watching(client, key) as unasked:
        first = client.put(key, b"1").revision
        second = client.put(key, b"2").revision
        client.delete(key)
        client.put(key, b"3")
        got = [
            (event.prev_kv.value, event.prev_kv.mod_revision) if event.prev_kv else None
            for event in collect(asked, 4, env.bounds.event_s)
        ]
        wanted = [None, (b"1", first), (b"2", second), None]
        expect(got == wanted, f"the previous values of put, put, delete, put were delivered as {got}, not {wanted}")
        plain = collect(unasked, 4, env.bounds.event_s)
        expect(len(plain) == 4, f"a watch of one key delivered {len(plain)} of 4 changes")
        expect(all(event.prev_kv is None for event in plain), "previous values came that were not asked for")
    return "4 changes, each with the value before it"


def compaction(env: Env) -> str:
    """KV.Compact: history before the revision is gone; a read there is refused, a watch from there is canceled with the
    compacted revision instead of skipping what is gone, and a watch from after it misses nothing.
    """
    client = env.client()
    wanted = change_some(env, CHANGES)
    middle = wanted[CHANGES // 2][0]
    client.compact(middle)
    for place, member in enumerate(env.clients()):
        name = env.name(place)
        try:
            got = _from(member, env, wanted[0][0], 1)
        except WatchCanceled as exc:
            expect(
                exc.compact_revision >= middle,
                f"{name} canceled a watch for revision {exc.compact_revision}, where {middle} was compacted",
            )
        else:
            what = f"went on at revision {got[0].revision}" if got else "waits for ever"
            raise Broken(f"a watch at {name} from a revision that was compacted {what}, without an error")
        refused(
            lambda member=member: member.get(env.key("w/"), revision=wanted[0][0]),  # type: ignore[misc]
            ["Compacted"],
            f"a read at {name} of a revision that was compacted",
        )
        rest = [change for change in wanted if change[0] > middle]
        _expect_same(rest, _from(member, env, middle + 1, len(rest)), f"{name}, from after the compaction")
    return f"history before revision {middle} is gone with an error at {len(env)} members"


TESTS = (
    Test("watch.order", "a watch delivers every change once, in the order of revisions", order, needs_all=True),
    Test("watch.resume", "a watch goes on from a revision without gap or repetition", resume, needs_all=True),
    Test("watch.prefix", "a watch delivers the keys it asked for and no others", prefix),
    Test("watch.prev-kv", "a watch delivers the value before each change", prev_kv),
    Test(
        "watch.compaction", "what was compacted is refused, never left out in silence", compaction,
        disturbs=True, needs_all=True,
    ),
)  # fmt: skip


def change_some(env: Env, count: int) -> list[Change]:
    """Put, deletes and transactions over two keys, member by member.

    Returns at least ``count`` changes in the order in which they were acknowledged: revision, type, key, value.
    """
    changes: list[Change] = []
    number = 0
    while len(changes) < count:
        client, key, value = env.client(number), env.key(f"w/{number % 7}"), b"%d" % number
        if number % 5 == 3:
            twin = env.key("w/twin")
            revision = client.txn([], [Op.put(key, value), Op.put(twin, value)]).revision
            changes += [(revision, "put", key, value), (revision, "put", twin, value)]
        elif number % 9 == 8 and (answer := client.delete(key)).deleted:
            changes.append((answer.revision, "delete", key, b""))
        else:
            changes.append((client.put(key, value).revision, "put", key, value))
        number += 1
    return changes


def difference(wanted: Sequence[Change], got: Sequence[WatchEvent]) -> str:
    """Return what is wrong with a watch first:

    takes what was changed and what was delivered; empty where they agree.
    """
    found = [(event.revision, event.type, event.kv.key, event.kv.value) for event in got]
    if found == list(wanted):
        return ""
    known = set(wanted)
    for place, change in enumerate(found):
        where = f"{change[1]} of {change[2].decode(errors='replace')} at revision {change[0]}"
        if change not in known:
            before = wanted and change[0] < wanted[0][0]
            return f"delivered what was not asked for: {where}{', before the start revision' if before else ''}"
        if change in found[:place]:
            return f"delivered twice: {where}"
        if place and change[0] < found[place - 1][0]:
            return f"delivered out of order: {where}, after revision {found[place - 1][0]}"
    missing = [change for change in wanted if change not in found]
    if missing:
        revision, kind, key, _ = missing[0]
        return (
            f"{len(missing)} of {len(wanted)} changes never delivered, the first a {kind} of {key.decode()} "
            f"at revision {revision}"
        )
    return "delivered out of order within a transaction"


def _from(client: Client, env: Env, revision: int, count: int) -> list[WatchEvent]:
    with watching(client, env.key("w/"), range_end=env.key("w0"), start_revision=revision) as watch:
        return collect(watch, count, env.bounds.event_s, _QUIET_S)


def _expect_same(wanted: Sequence[Change], got: Sequence[WatchEvent], where: str) -> None:
    if wrong := difference(wanted, got):
        raise Broken(f"watch at {where}: {wrong}")
