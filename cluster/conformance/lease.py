"""Leases: time that the server keeps, and keys that go with it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from cluster.base.errors import ClusterError
from cluster.conformance.model import Broken, Env, Inconclusive, Test, expect, ms, refused
from cluster.gateway.client import Client, Lease, collect, watching

TTL_S = 2  # etcd grants no less at its default election timeout
_KEYS = 3
_HOLD = 1.75  # so many times its TTL a lease is kept alive


def expiry(env: Env) -> str:
    """Lease.LeaseGrant: not expired before its TTL has passed since the grant, and expired in the end.

    The client's clock starts before the grant is sent and is read after an answer arrived, so that an early
    expiry is the server's.
    """
    client, key = env.client(), env.key("expiry")
    with _granted(client) as (lease, began):
        client.put(key, b"v", lease=lease.id)
        reader = env.client(1)
        while True:
            there = bool(reader.get(key).kvs)
            elapsed = time.monotonic() - began
            if not there:
                break
            state = client.lease_state(lease.id)
            if state.is_gone and time.monotonic() - began < lease.ttl_s:
                raise Broken(_early(lease, time.monotonic() - began))
            _expect_gone_by(env, lease, elapsed, "its key is still there")
            env.sleep(0.05)
        expect(elapsed >= lease.ttl_s, _early(lease, elapsed))
        state = client.lease_state(lease.id)
        expect(state.is_gone, f"the lease's key is gone, yet the lease has {state.remaining_s} s left")
    env.figures["late_ms"] = ms(elapsed - lease.ttl_s)
    return f"a lease of {lease.ttl_s} s ended after {elapsed:.2f} s"


def one_revision(env: Env) -> str:
    """A lease that expires deletes all its keys in one transaction: a watch sees them go at one revision."""
    client = env.client()
    keys = [env.key(f"keys/{number}") for number in range(_KEYS)]
    with (
        _granted(client) as (lease, began),
        watching(client, env.key("keys/"), range_end=env.key("keys0")) as watch,
    ):
        for number, key in enumerate(keys):
            env.client(number).put(key, b"v", lease=lease.id)
        # The leader answers for a lease from what it has applied, without a round through Raft, and a follower that
        # acknowledged a put may have applied it first: so many keys are there within the lag that any write may have.
        listed: list[bytes] = []

        def all_listed() -> bool:
            listed[:] = sorted(client.lease_state(lease.id).keys)
            return listed == keys

        within_s = min(env.bounds.lag_s, lease.ttl_s - (time.monotonic() - began))
        if env.until(all_listed, within_s) is None:
            if not client.get(keys[0]).kvs and time.monotonic() - began >= lease.ttl_s:
                raise Inconclusive("this machine stood still until the lease had expired")
            raise Broken(f"the lease lists {len(listed)} of the {_KEYS} keys put under it")
        wait_s = lease.ttl_s + env.bounds.lease_grace_s - (time.monotonic() - began)
        events = collect(watch, 2 * _KEYS, wait_s)
        gone = [event for event in events if event.type == "delete"]
        if len(gone) < _KEYS:
            _expect_gone_by(env, lease, time.monotonic() - began, f"{_KEYS - len(gone)} of its keys are still there")
        expect(
            sorted(event.kv.key for event in gone) == keys,
            f"the lease had {_KEYS} keys, and a watch saw {len(gone)} deletes",
        )
        revisions = sorted({event.revision for event in gone})
        expect(
            len(revisions) == 1,
            f"the keys of one lease were deleted at {len(revisions)} revisions: {', '.join(map(str, revisions))}",
        )
    return f"{_KEYS} keys deleted at revision {revisions[0]}"


def keepalive(env: Env) -> str:
    """Lease.LeaseKeepAlive: renewed in time a lease holds for another TTL, so its keys stay, and end after it."""
    client, key = env.client(), env.key("keepalive")
    with _granted(client) as (lease, began):
        client.put(key, b"v", lease=lease.id)
        renewed, renewals = began, 0
        while time.monotonic() - began < _HOLD * lease.ttl_s:
            env.sleep(lease.ttl_s / 4)
            before = time.monotonic()
            ttl = env.client(renewals).lease_keepalive(lease.id)
            if ttl <= 0 and time.monotonic() - renewed > lease.ttl_s:
                raise Inconclusive(
                    "this machine stood still for longer than the lease, so it could not be renewed in time"
                )
            expect(ttl > 0, f"a lease renewed {time.monotonic() - renewed:.2f} s ago was gone at the next keepalive")
            renewed, renewals = before, renewals + 1
            there = bool(client.get(key).kvs)
            since = time.monotonic() - renewed
            expect(
                there or since >= lease.ttl_s, f"a key was gone {since:.2f} s after its lease of {ttl} s was renewed"
            )
        while client.get(key).kvs:
            _expect_gone_by(env, lease, time.monotonic() - renewed, "its key is still there")
            env.sleep(0.05)
        since = time.monotonic() - renewed
        expect(since >= lease.ttl_s, f"the lease of {lease.ttl_s} s ended {since:.2f} s after its last keepalive")
    return f"held by {renewals} keepalives over {_HOLD * lease.ttl_s:g} s, gone {since:.2f} s after the last"


def revoke(env: Env) -> str:
    """Lease.LeaseRevoke: when it returns, the lease and all keys attached to it are deleted, at every member."""
    client = env.client()
    keys = [env.key(f"revoke/{number}") for number in range(_KEYS)]
    with _granted(client, 60) as (lease, _):
        for key in keys:
            client.put(key, b"v", lease=lease.id)
        kept = env.key("kept")
        client.put(kept, b"v", lease=lease.id)
        client.put(kept, b"v")  # a put without the lease detaches the key
        client.lease_revoke(lease.id)
        for place, member in enumerate(env.clients()):
            left = [key for key in keys if member.get(key).kvs]
            expect(not left, f"{len(left)} of {_KEYS} keys of a revoked lease are still at {env.name(place)}")
        expect(bool(client.get(kept).kvs), "a key that was detached from a lease went with it")
        state = client.lease_state(lease.id)
        expect(state.is_gone, f"a revoked lease has {state.remaining_s} s left")
        refused(lambda: client.lease_revoke(lease.id), ["LeaseNotFound"], "revoking a revoked lease")
    return f"{_KEYS} keys gone at all {len(env)} members"


def dead_put(env: Env) -> str:
    """KV.Put: under a lease that does not exist it fails with LeaseNotFound and writes nothing."""
    client, key = env.client(), env.key("dead")
    with _granted(client, 60) as (lease, _):
        client.lease_revoke(lease.id)
        for place, member in enumerate(env.clients()):
            what = f"a put under a revoked lease at {env.name(place)}"
            refused(lambda member=member: member.put(key, b"v", lease=lease.id), ["LeaseNotFound"], what)  # type: ignore[misc]
        expect(not client.get(key).kvs, "a put that was refused wrote its key all the same")
        expect(client.lease_keepalive(lease.id) <= 0, "a keepalive brought a revoked lease back")
    return f"refused at all {len(env)} members"


TESTS = (
    Test("lease.expiry", "a lease ends not before its TTL, and ends", expiry, waits=True),
    Test("lease.one-revision", "all keys of a lease go in one revision", one_revision, waits=True),
    Test("lease.keepalive", "a lease holds for a TTL after each keepalive, then ends", keepalive, waits=True),
    Test("lease.revoke", "a revoked lease is gone with all its keys", revoke),
    Test("lease.dead-put", "a put under a lease that is gone fails", dead_put),
)  # fmt: skip


@contextlib.contextmanager
def _granted(client: Client, ttl_s: int = TTL_S) -> Iterator[tuple[Lease, float]]:
    """Yield a lease for a block, and the moment before it was asked for."""
    began = time.monotonic()
    lease = client.lease_grant(ttl_s)
    try:
        expect(lease.ttl_s >= ttl_s, f"a lease of {ttl_s} s was asked for, one of {lease.ttl_s} s granted")
        yield lease, began
    finally:
        with contextlib.suppress(ClusterError):
            client.lease_revoke(lease.id)


def _early(lease: Lease, elapsed: float) -> str:
    return f"expired early: a lease of {lease.ttl_s} s was gone after {elapsed:.2f} s"


def _expect_gone_by(env: Env, lease: Lease, elapsed: float, otherwise: str) -> None:
    expect(
        elapsed < lease.ttl_s + env.bounds.lease_grace_s,
        f"never expired: a lease of {lease.ttl_s} s ran out {elapsed - lease.ttl_s:.1f} s ago and {otherwise}",
    )
