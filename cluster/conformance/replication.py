"""Log replication: every member applies the same log and ends in the same state."""

from __future__ import annotations

import hashlib
import time

from cluster.base.errors import ClusterError
from cluster.base.etcd_values import KeyValue
from cluster.conformance.model import Broken, Env, Inconclusive, NotApplicable, Test, expect, ms
from cluster.gateway.client import Client, Unsupported
from cluster.observe.probe import MemberStatus

WRITES = 60


def same_state(env: Env) -> str:
    """Raft's state machine safety: members that applied the same entries hold the same store.

    After writes through all members, each reaches the applied index and the revision at which the last write was
    acknowledged, and at that one revision all have the same keys, values and revisions; by HashKV too, where the
    client and the server offer it.
    """
    if len(env) < 2:
        raise NotApplicable("only one member to compare")
    revision, wanted = write_some(env, WRITES)
    lag = reach(env, revision)
    env.figures["catch_up_ms"] = ms(lag)
    how = same_at(env, revision, wanted)
    return f"{WRITES} writes at {len(env)} members within {lag * 1000:.0f} ms; same content at revision {revision}{how}"


def write_some(env: Env, count: int, clients: list[Client] | None = None) -> tuple[int, dict[bytes, tuple[bytes, int]]]:
    """Put and deletes, member by member.

    Returns the revision of the last change, and what is to be there at it: key to value and revision.
    """
    clients = clients or env.clients()
    wanted: dict[bytes, tuple[bytes, int]] = {}
    revision = 0
    for number in range(count):
        client, key = clients[number % len(clients)], env.key(f"r/{number % (count // 2):04d}")
        if number % 7 == 6 and key in wanted:
            revision = client.delete(key).revision
            del wanted[key]
        else:
            value = b"%d" % number
            revision = client.put(key, value).revision
            wanted[key] = (value, revision)
    return revision, wanted


def reach(env: Env, revision: int, within_s: float | None = None) -> float:
    """Wait until every member has applied what any had committed by now; return the seconds it took."""
    within_s = env.bounds.lag_s if within_s is None else within_s
    began = time.monotonic()
    statuses = [status for client in env.clients() if (status := _status(client)) is not None]
    index = max((status.commit_index for status in statuses), default=0)
    for place, client in enumerate(env.clients()):

        def there(client: Client = client) -> bool:
            status = _status(client)
            return status is not None and status.applied_index >= index and status.revision >= revision

        if env.until(there, within_s) is None:
            status = _status(client)
            where = f"applied index {status.applied_index} and revision {status.revision}" if status else "no answer"
            raise Broken(
                f"{env.name(place)} stands at {where} {within_s:g} s after index {index} and revision {revision} "
                "were committed"
            )
    return time.monotonic() - began


def _status(client: Client) -> MemberStatus | None:
    try:
        return client.status()
    except ClusterError:
        return None


def same_at(env: Env, revision: int, wanted: dict[bytes, tuple[bytes, int]]) -> str:
    """Compare all members' content at one revision, with each other and with what was written.

    Returns how, for the reason's end. Raises Broken where they differ.
    """
    stores = [_content(client, env, revision) for client in env.clients()]
    for place, store in enumerate(stores):
        found = {kv.key: (kv.value, kv.mod_revision) for kv in store}
        for key in sorted(wanted.keys() | found.keys()):
            expect(
                found.get(key) == wanted.get(key),
                f"{env.name(place)} has {_say(found.get(key))} under {key.decode()} at revision {revision}, "
                f"where {_say(wanted.get(key))} was acknowledged",
            )
    digests = {hashlib.sha256(repr(store).encode()).hexdigest() for store in stores}
    expect(len(digests) == 1, f"the members' keys differ at revision {revision}: {len(digests)} contents")
    try:
        hashes = [client.hash_kv(revision) for client in env.clients()]
    except Unsupported:
        return ""
    if len({answer.compact_revision for answer in hashes}) != 1:
        raise Inconclusive("members were compacted at different revisions, so their hashes do not compare")
    said = ", ".join(f"{env.name(place)} {answer.hash}" for place, answer in enumerate(hashes))
    expect(len({answer.hash for answer in hashes}) == 1, f"HashKV differs at revision {revision}: {said}")
    return " and same HashKV"


def _content(client: Client, env: Env, revision: int) -> tuple[KeyValue, ...]:
    return client.get(env.key("r/"), range_end=env.key("r0"), serializable=True, revision=revision).kvs


def _say(entry: tuple[bytes, int] | None) -> str:
    return "nothing" if entry is None else f"{entry[0].decode(errors='replace')!r} of revision {entry[1]}"


TESTS = (
    Test(
        "replication.same-state", "all members apply the same log and hold the same state", same_state,
        needs_all=True,
    ),
)  # fmt: skip
