"""Writes and reads: what was acknowledged is there, at every member, and reads never go back in time."""

from __future__ import annotations

import time

from cluster.base.etcd_values import KeyValue
from cluster.conformance.model import Env, Load, NotApplicable, Test, expect, ms
from cluster.gateway.client import Client

_ROUNDS = 3


def own_member(env: Env) -> str:
    """KV.Put, KV.Range: the member that acknowledged a write has applied it.

    So both a linearizable and a serializable read there return it, with the put's revision, a version that
    counts the puts since the key was created, and the revision of that creation.
    """
    for index, client in enumerate(env.clients()):
        key, created = env.key(f"own/{index}"), 0
        for version in range(1, _ROUNDS + 1):
            value = b"%d of %d" % (version, index)
            revision = client.put(key, value).revision
            created = created or revision
            wanted = KeyValue(key, value, created, revision, version)
            for serializable in (False, True):
                answer = client.get(key, serializable=serializable)
                _expect_kv(answer.kvs, wanted, f"{_kind(serializable)} read at {env.name(index)} after its own write")
                expect(
                    answer.revision >= revision,
                    f"{env.name(index)} acknowledged a write at revision {revision} and then read at {answer.revision}",
                )
    return f"{_ROUNDS} writes at each of {len(env)} members read back"


def other_members(env: Env) -> str:
    """KV.Range is linearizable by default: it sees every write acknowledged before it began, at any member."""
    if len(env) < 2:
        raise NotApplicable("only one member to ask")
    clients, pairs = env.clients(), 0
    for writer, client in enumerate(clients):
        key, created = env.key(f"other/{writer}"), 0
        for version in range(1, _ROUNDS + 1):
            value = b"%d of %d" % (version, writer)
            revision = client.put(key, value).revision
            created = created or revision
            for reader, other in enumerate(clients):
                if reader != writer:
                    where = f"linearizable read at {env.name(reader)} after a write at {env.name(writer)}"
                    _expect_kv(other.get(key).kvs, KeyValue(key, value, created, revision, version), where)
                    pairs += 1
    return f"{pairs} reads at other members saw the write before them"


def serializable(env: Env) -> str:
    """A serializable read answers from the member's own store: it may lag, but it catches up and never goes back."""
    if len(env) < 2:
        raise NotApplicable("only one member to ask")
    clients, slowest, key = env.clients(), 0.0, env.key("serializable")
    seen = [0] * len(clients)
    for round_, writer in enumerate(clients * _ROUNDS):
        revision = writer.put(key, b"%d" % round_).revision
        acknowledged = time.monotonic()
        for reader, client in enumerate(clients):

            def caught_up(client: Client = client, reader: int = reader, revision: int = revision) -> bool:
                answer = client.get(key, serializable=True)
                at = answer.kvs[0].mod_revision if answer.kvs else 0
                expect(
                    at >= seen[reader],
                    f"serializable reads at {env.name(reader)} went back from revision {seen[reader]} to {at}",
                )
                seen[reader] = at
                return at >= revision

            expect(
                env.until(caught_up, env.bounds.lag_s) is not None,
                f"{env.name(reader)} serves a serializable read without the write of revision {revision}, "
                f"{env.bounds.lag_s:g} s after it was acknowledged",
            )
            slowest = max(slowest, time.monotonic() - acknowledged)
    env.figures["lag_max_ms"] = ms(slowest)
    return f"every member had the write within {slowest * 1000:.0f} ms"


def delete(env: Env) -> str:
    """KV.DeleteRange: a deleted key is gone for every later read; put again, it begins a new life at version 1."""
    clients, key = env.clients(), env.key("delete")
    for writer, client in enumerate(clients):
        first = client.put(key, b"first").revision
        answer = client.delete(key, prev_kv=True)
        expect(answer.deleted == 1, f"a delete of one key at {env.name(writer)} removed {answer.deleted}")
        expect(answer.revision > first, f"the delete's revision {answer.revision} is not after the put's {first}")
        expect(
            [kv.value for kv in answer.prev_kvs] == [b"first"],
            f"the delete at {env.name(writer)} did not return the value it removed",
        )
        for reader, other in enumerate(clients):
            found = other.get(key).kvs
            expect(not found, f"{env.name(reader)} still reads a key deleted at {env.name(writer)} before")
        again = clients[(writer + 1) % len(clients)].put(key, b"again").revision
        wanted = KeyValue(key, b"again", again, again, 1)
        _expect_kv(client.get(key).kvs, wanted, f"read at {env.name(writer)} of a key put again after its delete")
        client.delete(key)
        expect(client.delete(key).deleted == 0, "a delete of no key says that it removed one")
    return f"gone at all {len(env)} members at once"


def recency(env: Env) -> str:
    """Linearizable reads beside a writer: none returns less than what was acknowledged before it began, and the
    revision in the answers never goes back at one client.
    """
    key, load = env.key("recency"), Load(len(env), env.bounds)
    writer, readers = env.fresh(0), [env.fresh(index) for index in range(len(env))]
    writer.put(key, b"0")

    def write() -> None:
        with load:
            while load.goes_on:
                writer.put(key, b"%d" % (load.counts[0] + 1))
                load.counts[0] += 1

    def read(index: int) -> None:
        revision = 0
        with load:
            while not load.over:
                at_least = load.counts[0]
                answer = readers[index].get(key)
                found = int(answer.kvs[0].value) if answer.kvs else -1
                expect(
                    found >= at_least,
                    f"stale read: a linearizable read at {env.name(index)} returned write {found}, "
                    f"after write {at_least} had been acknowledged",
                )
                expect(
                    answer.revision >= revision,
                    f"linearizable reads at {env.name(index)} went back from revision {revision} to {answer.revision}",
                )
                revision = answer.revision
                load.counts[1 + index] += 1

    env.together([write, *(lambda index=index: read(index) for index in range(len(env)))])
    writes, reads = load.counts[0], sum(load.counts[1:])
    env.figures.update(writes=writes, reads=reads)
    load.judge("writes")
    return f"{reads} reads beside {writes} writes, none stale"


TESTS = (
    Test("kv.own-member", "a member serves the writes that it acknowledged", own_member, needs_all=True),
    Test(
        "kv.other-members", "linearizable reads at any member see every write acknowledged before", other_members,
        needs_all=True,
    ),
    Test(
        "kv.serializable", "serializable reads catch up with every write and never go back", serializable,
        needs_all=True,
    ),
    Test("kv.delete", "a deleted key is gone for every later read", delete, needs_all=True),
    Test("kv.recency", "no linearizable read is stale while the key is being written", recency, needs_all=True),
)  # fmt: skip


def _kind(serializable: bool) -> str:
    return "serializable" if serializable else "linearizable"


def _expect_kv(found: tuple[KeyValue, ...], wanted: KeyValue, where: str) -> None:
    expect(bool(found), f"lost write: {where} found no key, instead of the write of revision {wanted.mod_revision}")
    kv = found[0]
    expect(
        kv.mod_revision >= wanted.mod_revision,
        f"stale read: {where} returned revision {kv.mod_revision}, instead of {wanted.mod_revision}",
    )
    expect(
        kv.mod_revision == wanted.mod_revision,
        f"{where} returned revision {kv.mod_revision}, which nobody wrote, instead of {wanted.mod_revision}",
    )
    expect(kv == wanted, f"{where} returned {kv}, instead of {wanted}")
