"""Transactions: conditions decide, a branch happens as one, and increments are not lost."""

from __future__ import annotations

from cluster.base.errors import NoAnswer
from cluster.base.etcd_values import Answer, Compare, Op, Relation, Target
from cluster.conformance.model import Env, Inconclusive, Load, Test, expect, refused
from cluster.gateway.client import Client, collect, watching

_KEYS = 3
_COUNTERS, _INCREMENTS = 4, 12


def branches(env: Env) -> str:
    """KV.Txn: all conditions hold, the first branch runs, else the second; the other one leaves no trace."""
    for place, client in enumerate(env.clients()):
        key, other = env.key(f"branch/{place}"), env.key(f"other/{place}")
        absent = Compare(key, "create", "=", 0)
        first = client.txn([absent], [Op.put(key, b"1"), Op.get(key)], [Op.put(other, b"1")])
        _expect_branch(first, True, f"the first transaction at {env.name(place)}")
        expect(
            [kv.value for kv in first.responses[1].kvs] == [b"1"],
            "a read inside a transaction does not see the write before it",
        )
        second = client.txn([absent], [Op.put(key, b"2")], [Op.put(other, b"2"), Op.get(key)])
        _expect_branch(second, False, f"the second transaction at {env.name(place)}")
        expect(
            [kv.value for kv in second.responses[1].kvs] == [b"1"],
            "the branch that was not taken wrote its key, or the other one's read is wrong",
        )
        holds, fails = Compare(key, "version", "=", 1), Compare(key, "version", "=", 2)
        mixed = client.txn([holds, fails], [Op.put(key, b"3")], [])
        _expect_branch(mixed, False, f"a transaction with one failing condition at {env.name(place)}")
        deleted = client.txn([holds], [Op.delete(key)], [])
        _expect_branch(deleted, True, f"a delete in a transaction at {env.name(place)}")
        expect(not client.get(key).kvs, "a key deleted in a transaction is still there")
        (kv,) = client.get(other).kvs or (None,)
        expect(kv is not None and (kv.value, kv.version) == (b"2", 1), f"the second branch left {kv}")
    return f"both branches at each of {len(env)} members"


def compare(env: Env) -> str:
    """KV.Txn: conditions on value, version, create and mod revision, equal, unequal, less, greater, each true where
    it should be and at no other time; a key that does not exist has version and revisions 0.
    """
    client, key, none = env.client(), env.key("compare"), env.key("none")
    create = client.put(key, b"m").revision
    mod = client.put(key, b"m").revision
    actual: tuple[tuple[bytes, Target, bytes | int, bytes | int, bytes | int], ...] = (
        (key, "value", b"l", b"m", b"n"),
        (key, "version", 1, 2, 3),
        (key, "create", create - 1, create, create + 1),
        (key, "mod", mod - 1, mod, mod + 1),
        (none, "version", -1, 0, 1),
        (none, "create", -1, 0, 1),
        (none, "mod", -1, 0, 1),
    )
    tried = 0
    for on, target, less, equal, more in actual:
        relations: tuple[tuple[Relation, tuple[bool, bool, bool]], ...] = (
            ("=", (False, True, False)),
            ("!=", (True, False, True)),
            (">", (True, False, False)),
            ("<", (False, False, True)),
        )
        for relation, truths in relations:
            for operand, truth in zip((less, equal, more), truths, strict=True):
                # Without a linearizable operation etcd judges by what the member has applied (v3_server.go,
                # isTxnSerializable): a member that lags would be right and look wrong.
                answer = env.client(tried).txn([Compare(on, target, relation, operand)], [Op.get(on)], [Op.get(on)])
                tried += 1
                what = "a key" if on == key else "an absent key"
                expect(
                    answer.succeeded is truth,
                    f"{target} of {what} is {equal!r}, and `{target} {relation} {operand!r}` "
                    f"was {'' if answer.succeeded else 'not '}taken to hold",
                )
    return f"{tried} conditions"


def all_or_nothing(env: Env) -> str:
    """KV.Txn is atomic and takes one revision: no read, at any member, sees only some of a transaction's writes, all
    its keys carry its revision, and a watch delivers them at that revision.
    """
    keys, load = [env.key(f"atom/{number}") for number in range(_KEYS)], Load(len(env), env.bounds)
    writer = env.fresh(0)
    readers = [env.fresh(place) for place in range(len(env))]
    start, end = env.key("atom/"), env.key("atom0")

    revisions: list[int] = []

    def write() -> None:
        with load:
            while load.goes_on:
                value = b"%d" % len(revisions)
                answer = writer.txn([], [Op.put(key, value) for key in keys])
                expect(answer.succeeded is True, "a transaction without conditions did not succeed")
                revisions.append(answer.revision)
                load.counts[0] += 1

    def read(place: int) -> None:
        with load:
            while not load.over:
                serializable = load.counts[1 + place] % 2 == 1
                kvs = readers[place].get(start, range_end=end, serializable=serializable).kvs
                states = {(kv.value, kv.mod_revision) for kv in kvs}
                expect(
                    len(kvs) in (0, _KEYS) and len(states) <= 1,
                    f"split transaction: one read at {env.name(place)} saw the {_KEYS} keys that are always written "
                    f"together as {', '.join(f'{kv.value.decode()} of revision {kv.mod_revision}' for kv in kvs)}",
                )
                load.counts[1 + place] += 1

    with watching(env.client(), start, range_end=end) as watch:
        env.together([write, *(lambda place=place: read(place) for place in range(len(env)))])
        events = collect(watch, len(revisions) * _KEYS, env.bounds.event_s)
    found = sorted({(event.revision, event.kv.key) for event in events})
    wanted = [(revision, key) for revision in revisions for key in keys]
    expect(
        found == wanted,
        f"split transaction: {len(revisions)} transactions over {_KEYS} keys were watched as {len(events)} changes at "
        f"{len({revision for revision, _ in found})} revisions",
    )
    reads = sum(load.counts[1:])
    env.figures.update(transactions=len(revisions), reads=reads)
    load.judge("transactions")
    return f"{reads} reads beside {len(revisions)} transactions, none split"


def counters(env: Env) -> str:
    """Compare-and-swap on the mod revision, from several clients at once: the counter ends at the number of
    successes, so no increment was lost and none counted twice.
    """
    key = env.key("counter")
    env.client().put(key, b"0")
    unsure = [0] * _COUNTERS

    def increment(place: int, client: Client) -> int:
        done = tries = 0
        while done < _INCREMENTS:
            tries += 1
            if tries > 100 * _INCREMENTS:
                raise Inconclusive(f"one of {_COUNTERS} clients got {done} of {_INCREMENTS} increments through")
            (kv,) = client.get(key).kvs
            swap = [Compare(key, "mod", "=", kv.mod_revision)]
            try:
                answer = client.txn(swap, [Op.put(key, b"%d" % (int(kv.value) + 1))])
            except NoAnswer:
                unsure[place] += 1
                continue
            done += answer.succeeded is True
            env.sleep(0.0)
        return done

    clients = [env.fresh(place) for place in range(_COUNTERS)]
    works = [lambda place=place: increment(place, clients[place]) for place in range(_COUNTERS)]
    acknowledged = sum(env.together(works))
    (kv,) = env.client(1).get(key).kvs
    value, perhaps = int(kv.value), sum(unsure)
    expect(
        value >= acknowledged,
        f"lost increment: {acknowledged} increments were acknowledged, and the counter stands at {value}",
    )
    expect(
        value <= acknowledged + perhaps and kv.version == value + 1,
        f"the counter stands at {value} in version {kv.version} after {acknowledged} acknowledged increments",
    )
    return f"{acknowledged} increments by {_COUNTERS} clients, all counted"


def duplicate_key(env: Env) -> str:
    """KV.Txn: a key may be put only once in a transaction; one that does is rejected whole."""
    client, key, other = env.client(), env.key("duplicate"), env.key("beside")
    refused(
        lambda: client.txn([], [Op.put(other, b"1"), Op.put(key, b"1"), Op.put(key, b"2")]),
        ["DuplicateKey"],
        "a transaction that puts one key twice",
    )
    left = [name for name in (key, other) if client.get(name).kvs]
    expect(not left, f"a transaction that was rejected wrote {len(left)} of its keys")
    return "rejected, and nothing written"


TESTS = (
    Test("txn.branches", "a transaction takes the branch that its conditions say, and only that", branches),
    Test("txn.compare", "conditions on value, version and revisions hold exactly when they are true", compare),
    Test("txn.all-or-nothing", "a transaction happens as a whole, at one revision", all_or_nothing, needs_all=True),
    Test("txn.counters", "concurrent compare-and-swap loses no increment", counters),
    Test("txn.duplicate-key", "a transaction that puts a key twice is rejected whole", duplicate_key),
)


def _expect_branch(answer: Answer, taken: bool, what: str) -> None:
    expect(
        answer.succeeded is taken,
        f"{what} took the {'first' if answer.succeeded else 'second'} branch, against its conditions",
    )
