"""Tests of operators' work: membership changes, users and roles, a full store, a restored snapshot."""

from __future__ import annotations

import base64
import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from cluster.base.errors import ClusterError, EtcdError
from cluster.base.etcd_values import KeyValue, Op, prefix_end
from cluster.conformance import replication
from cluster.conformance.beside import Beside
from cluster.conformance.model import Broken, Env, NotApplicable, Test, expect, ms, refused
from cluster.gateway.admin import NO_SPACE, Admin
from cluster.gateway.client import Client
from cluster.observe.health import Alarm
from cluster.observe.probe import MemberInfo

_UNAVAILABLE = 14
T = TypeVar("T")
_LEARNER, _RESTORED = "raftload-learner", "raftload-restored"


def learner(env: Env) -> str:
    """Cluster.MemberAdd, MemberPromote, MemberRemove: a learner has no vote until it has caught up and is promoted.

    Added and not yet started it neither counts for the majority nor can be promoted; started it catches up, is
    promoted, and serves linearizable reads; removed it is a member no more.
    """
    admin, beside = _admin(env), Beside.of(env)
    beside.expect_joinable()
    revision, wanted = replication.write_some(env, replication.WRITES)
    with beside.folder() as ground:
        port, peer_port = ground.ports()
        peer_url = f"http://127.0.0.1:{peer_port}"
        member_id = _settled(env, lambda: admin.member_add(peer_url, learner=True))
        try:
            expect(
                [member.is_learner for member in _listed(env) if member.id == member_id] == [True],
                "a member added as a learner is not listed as one",
            )
            refused(
                lambda: admin.member_promote(member_id),
                ["LearnerNotReady"],
                "the promotion of a learner that was never started",
            )
            env.client().put(env.key("beside"), b"v")  # no vote, so the majority is as it was
            began = time.monotonic()
            ground.join(_LEARNER, port, peer_port)
            client = ground.client(_LEARNER, port)

            def promoted() -> bool:
                try:
                    admin.member_promote(member_id)
                except EtcdError as exc:
                    expect(exc.name == "LearnerNotReady", f"a learner in sync was not promoted: {exc}")
                    return False
                return True

            expect(
                env.until(promoted, env.bounds.heal_s) is not None,
                f"a learner was not promoted within {env.bounds.heal_s:g} s of its start",
            )
            env.figures["promoted_ms"] = ms(time.monotonic() - began)
            expect(
                [member.is_learner for member in _listed(env) if member.id == member_id] == [False],
                "a promoted learner is still listed as one",
            )

            def read() -> dict[bytes, tuple[bytes, int]] | None:
                try:
                    return {kv.key: (kv.value, kv.mod_revision) for kv in _all(client, env.key("r/"))}
                except EtcdError as exc:
                    if exc.name != "NotSupportedForLearner":  # until it has applied its own promotion
                        raise
                    return None

            found = env.until(read, env.bounds.heal_s) or {}
            expect(found == wanted, f"the new member has {len(found)} of the {len(wanted)} keys written before it came")
        finally:
            with contextlib.suppress(ClusterError):
                _settled(env, lambda: admin.member_remove(member_id))
        ids = [member.id for member in _listed(env)]
        expect(member_id not in ids, "a member that was removed is still listed")
        refused(lambda: admin.member_remove(member_id), ["MemberNotFound"], "removing a member that was removed")
    return f"added, promoted after {env.figures['promoted_ms']:.0f} ms with all of revision {revision}, removed"


def snapshot(env: Env) -> str:
    """Maintenance.Snapshot: a store restored from a member's snapshot has every key as it was, value and revision.

    The whole store comes to this machine, so it counts as a disturbance.
    """
    admin, beside = _admin(env), Beside.of(env)
    revision, wanted = replication.write_some(env, replication.WRITES)
    with beside.folder() as ground:
        file = ground.root / "snapshot.db"
        with file.open("wb") as out:
            size = admin.snapshot(out)
        env.client().put(env.key("r/after"), b"not in the snapshot")
        port, peer_port = ground.ports()
        ground.restore(file, _RESTORED, port, peer_port)
        client = ground.client(_RESTORED, port)
        found = {kv.key: (kv.value, kv.mod_revision) for kv in _all(client, env.key("r/"))}
        for key in sorted(found.keys() | wanted.keys()):
            expect(
                found.get(key) == wanted.get(key),
                f"the restored cluster has {found.get(key)} under {key.decode()}, the snapshot was taken with "
                f"{wanted.get(key)}",
            )
    env.figures["snapshot_bytes"] = size
    return f"{len(wanted)} keys of revision {revision} restored from {size} bytes"


def alarm(env: Env) -> str:
    """Maintenance.Alarm: under NOSPACE writes are refused at every member, reads and deletes are not; cleared, all is
    as before. The alarm is raised by hand, so that the store need not be filled.
    """
    admin, key, member_id = _admin(env), env.key("alarm"), env.targets[0].member_id
    env.client().put(key, b"v")
    if raised := admin.alarms():
        raise NotApplicable(f"there is an alarm already, which is left alone: {raised[0].kind}")
    admin.alarm_set(member_id, NO_SPACE, raised=True)
    try:
        expect(admin.alarms() == (Alarm(member_id, NO_SPACE),), f"the alarm raised is listed as {admin.alarms()}")
        for place, client in enumerate(env.clients()):
            for what, write in _writes(client, env.key(f"refused/{place}")):
                refused(write, ["NoSpace"], f"{what} at {env.name(place)} under the NOSPACE alarm")
            expect(bool(client.get(key).kvs), f"{env.name(place)} does not serve reads under the NOSPACE alarm")
        expect(env.client().delete(key).deleted == 1, "nothing can be deleted under the NOSPACE alarm")
    finally:
        admin.alarm_set(member_id, NO_SPACE, raised=False)
    expect(not admin.alarms(), "an alarm that was cleared is still listed")
    for place, client in enumerate(env.clients()):
        for what, write in _writes(client, env.key(f"accepted/{place}")):
            try:
                write()
            except EtcdError as exc:
                raise Broken(f"{what} at {env.name(place)} is refused after the alarm was cleared: {exc}") from exc
    left = env.client().get(env.key("refused/"), range_end=env.key("refused0")).kvs
    expect(not left, f"{len(left)} writes that were refused under the alarm were done")
    return f"writes refused at {len(env)} members while it was raised, accepted after"


def auth(env: Env) -> str:
    """Auth: once enabled nobody without a user may do anything, a user only what its roles say, and root everything;
    disabled, all is open as before.
    """
    admin, tag = _admin(env), secrets.token_hex(4)
    user, role, password = f"raftload-{tag}", f"raftload-{tag}", secrets.token_hex(16)
    mine, others = env.key("mine/"), env.key("others/")
    stranger, limited, root = env.fresh(), env.fresh(), env.fresh()
    asked = _admin_of(root)
    made: list[Callable[[], None]] = []

    def make(call: str, undo: tuple[str, dict[str, str]] | None = None, **fields: str | dict[str, str]) -> None:
        admin.auth(call, **fields)
        if undo is not None:
            path, undo_fields = undo
            made.append(lambda: admin.auth(path, **undo_fields))

    stranger.put(others + b"a", b"v")
    try:
        try:
            make("user/add", ("user/delete", {"name": "root"}), name="root", password=password)
        except EtcdError as exc:
            raise NotApplicable(f"this cluster has users already, which are left alone ({exc})") from exc
        with contextlib.suppress(EtcdError):
            make("role/add", ("role/delete", {"role": "root"}), name="root")
        make("user/grant", user="root", role="root")
        make("role/add", ("role/delete", {"role": role}), name=role)
        permission = {"permType": "READWRITE", "key": _b64(mine), "range_end": _b64(prefix_end(mine))}
        make("role/grant", name=role, perm=permission)
        make("user/add", ("user/delete", {"name": user}), name=user, password=password)
        make("user/grant", user=user, role=role)
        admin.auth("enable")
        try:
            nobody = ["UserEmpty", "InvalidAuthToken"]
            refused(lambda: stranger.put(mine + b"a", b"v"), nobody, "a write without a user, with auth on,")
            refused(lambda: stranger.get(mine + b"a"), nobody, "a read without a user, with auth on,")
            refused(lambda: _admin_of(limited).login(user, "wrong"), ["AuthFailed"], "a login with a wrong password")
            _admin_of(limited).login(user, password)
            asked.login("root", password)
            denied = ["PermissionDenied"]
            limited.put(mine + b"a", b"v")
            expect(bool(limited.get(mine + b"a").kvs), "a user cannot read what its role lets it")
            refused(lambda: limited.put(others + b"a", b"w"), denied, "a user's write beside its role's range")
            refused(lambda: limited.get(others + b"a"), denied, "a user's read beside its role's range")
            both = [Op.put(mine + b"b", b"v"), Op.put(others + b"b", b"v")]
            refused(lambda: limited.txn([], both), denied, "a user's transaction that leaves its role's range")
            refused(lambda: _admin_of(limited).auth("disable"), denied, "turning auth off by a user who is not root")
            expect([kv.value for kv in root.get(others + b"a").kvs] == [b"v"], "a write that was denied was done")
            expect(not root.get(mine + b"b").kvs, "half of a transaction that was denied was done")
        finally:
            env.until(lambda: _auth_off(asked, password), env.bounds.heal_s)
        stranger.put(others + b"a", b"x")
    finally:
        for undo in reversed(made):
            with contextlib.suppress(ClusterError):
                undo()
    return "nobody without a user, a user within its role, root everywhere; open again after"


TESTS = (
    Test(
        "members.learner", "a learner catches up, is promoted to a vote and can be removed", learner,
        disturbs=True, needs_handle=True, extended=True,
    ),
    Test(
        "auth.on-off", "with auth on everyone does what his roles allow and no more", auth,
        disturbs=True, extended=True,
    ),
    Test(
        "snapshot.restore", "a snapshot restored into a fresh cluster has every key as it was", snapshot,
        disturbs=True, extended=True,
    ),
    Test(
        "alarm.no-space", "under a NOSPACE alarm writes are refused until it is cleared", alarm,
        disturbs=True, extended=True,
    ),
)  # fmt: skip


def _admin(env: Env) -> Admin:
    return _admin_of(env.client())


def _admin_of(client: Client) -> Admin:
    if not isinstance(client, Admin):
        raise NotApplicable("this transport has no calls for operators")
    return client


def _auth_off(admin: Admin, password: str) -> bool:
    """Turn auth off; whether it is. A cluster must not stay locked because one call failed."""
    try:
        admin.login("root", password)
        admin.auth("disable")
    except EtcdError as exc:
        return exc.name == "AuthNotEnabled"
    except ClusterError:
        return False
    return True


def _settled(env: Env, call: Callable[[], T]) -> T:
    """Make a change of members, which etcd refuses until all have been connected for some seconds."""
    deadline = time.monotonic() + env.bounds.heal_s
    while True:
        try:
            return call()
        except EtcdError as exc:
            if exc.code != _UNAVAILABLE or time.monotonic() > deadline:
                raise
        env.sleep(0.2)


def _listed(env: Env) -> tuple[MemberInfo, ...]:
    """Return the list of members after all changes of it that were answered.

    A member lists what it has applied, and a promotion is answered by the leader (etcd's ``server.go``,
    ``PromoteMember``), which may have applied it before the member that was asked. A linearizable read waits until the
    member has applied all that was committed; that the list itself can be asked for so is of 3.5 and later.
    """
    env.client().get(env.key("applied"))
    return env.client().members()


def _all(client: Client, start: bytes) -> Iterator[KeyValue]:
    yield from client.get(start, range_end=prefix_end(start)).kvs


def _writes(client: Client, key: bytes) -> list[tuple[str, Callable[[], object]]]:
    return [
        ("a put", lambda: client.put(key + b"/put", b"v")),
        ("a put in a transaction", lambda: client.txn([], [Op.put(key + b"/txn", b"v")])),
    ]


def _b64(text: bytes) -> str:
    return base64.b64encode(text).decode()
