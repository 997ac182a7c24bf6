"""The rest of etcd's API through us and through grpcio, on two clusters alike: equal answers, equal events.

Run as a script it is the grpcio side: grpcio and gevent do not share a process.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from loadgen.proto import auth_pb2
from loadgen.proto import etcd_pb2 as pb

Step = tuple[str, Callable[[Any], Any], str, Any]
SEED = 5
END = b"k~"
# What no two clusters have in common: ids, seconds that went by, tokens.
OWN = {"cluster_id", "member_id", "raft_term", "ID", "memberID", "peerURLs", "clientURLs", "token", "TTL"}


def keys_and_values(rng: random.Random) -> Iterator[Step]:
    """Every option of KV, and transactions within transactions."""
    sort = pb.RangeRequest

    def key() -> bytes:
        return b"k%02d" % rng.randrange(12)

    for n in range(400):
        name, value = key(), b"%d" % n
        match rng.randrange(5):
            case 0:
                flags = {flag: True for flag in ("prev_kv", "ignore_value", "ignore_lease") if rng.random() < 0.3}
                lease = rng.choice([0, 0, 101, 999])
                kept = b"" if "ignore_value" in flags else value
                yield (
                    "put", lambda c, k=name, v=kept, le=lease, f=flags: c.put(k, v, lease=le, **f),
                    "KV/Put", pb.PutRequest(key=name, value=kept, lease=lease, **flags),
                )  # fmt: skip
            case 1:
                prev = rng.random() < 0.5
                end = rng.choice([b"", b"", END])
                yield (
                    "delete", lambda c, k=name, e=end, p=prev: c.delete(k, e, prev_kv=p),
                    "KV/DeleteRange", pb.DeleteRangeRequest(key=name, range_end=end, prev_kv=prev),
                )  # fmt: skip
            case 2:
                options: dict[str, Any] = {
                    "sort_order": rng.choice([sort.NONE, sort.ASCEND, sort.DESCEND]),
                    "sort_target": rng.choice([sort.KEY, sort.VERSION, sort.CREATE, sort.MOD, sort.VALUE]),
                    "limit": rng.choice([0, 0, 3]),
                }
                bound = f"{rng.choice(['min', 'max'])}_{rng.choice(['mod', 'create'])}_revision"
                options[bound] = rng.randrange(1, 300)
                options |= {flag: True for flag in ("keys_only", "count_only", "serializable") if rng.random() < 0.2}
                yield (
                    "range", lambda c, k=name, o=options: c.range(k, END, **o),
                    "KV/Range", pb.RangeRequest(key=name, range_end=END, **options),
                )  # fmt: skip
            case 3:
                target, result = rng.choice(["value", "version", "create", "mod", "lease"]), rng.choice("=!><")
                operand = b"%d" % rng.randrange(n + 1) if target == "value" else rng.randrange(n + 2)
                yield nested(name, value, target, result, operand)
            case _:
                yield from lease_steps(rng, n)


def nested(key: bytes, value: bytes, target: str, result: str, operand: Any) -> Step:
    field = {"create": "create_revision", "mod": "mod_revision"}.get(target, target)
    results = {"=": pb.Compare.EQUAL, "!": pb.Compare.NOT_EQUAL, ">": pb.Compare.GREATER, "<": pb.Compare.LESS}
    condition = pb.Compare(key=key, result=results[result], target=pb.Compare.CompareTarget.Value(target.upper()))
    setattr(condition, field, operand)
    put = pb.RequestOp(request_put=pb.PutRequest(key=key, value=value, prev_kv=True))
    read = pb.RequestOp(request_range=pb.RangeRequest(key=b"k", range_end=END, limit=2))
    inner = pb.RequestOp(request_txn=pb.TxnRequest(compare=[condition], success=[put], failure=[read]))

    def ours(client: Any) -> Any:
        from loadgen.client import kv

        said = kv.compare(key, target, "!=" if result == "!" else result, operand)  # type: ignore[arg-type]
        within = kv.txn_op([said], [kv.put_op(key, value, prev_kv=True)], [kv.get_op(b"k", END, limit=2)])
        return client.txn([], [within, kv.get_op(b"k", END, limit=2)])

    return "txn", ours, "KV/Txn", pb.TxnRequest(success=[inner, read])


def lease_steps(rng: random.Random, n: int) -> Iterator[Step]:
    lease = rng.choice([101, 102, 103])
    grant, keys = pb.LeaseGrantRequest(TTL=500 + n, ID=lease), rng.random() < 0.5
    look = pb.LeaseTimeToLiveRequest(ID=lease, keys=keys)
    yield from rng.sample(
        [
            ("grant", lambda c: c.lease_grant(500 + n, lease), "Lease/LeaseGrant", grant),
            ("revoke", lambda c: c.lease_revoke(lease), "Lease/LeaseRevoke", pb.LeaseRevokeRequest(ID=lease)),
            ("look", lambda c: c.lease_time_to_live(lease, keys=keys), "Lease/LeaseTimeToLive", look),
            ("leases", lambda c: c.lease_list(), "Lease/LeaseLeases", pb.LeaseLeasesRequest()),
        ],
        2,
    )


def the_rest() -> Iterator[Step]:
    """Maintenance, members and users, with what is refused."""
    raise_ = pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=7, alarm=pb.NOSPACE)
    clear = pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, memberID=7, alarm=pb.NOSPACE)
    yield "alarm", lambda c: c.alarm_activate(7, pb.NOSPACE), "Maintenance/Alarm", raise_
    yield "full", lambda c: c.put(b"k", b"v"), "KV/Put", pb.PutRequest(key=b"k", value=b"v")
    yield "alarms", lambda c: c.alarm_list(), "Maintenance/Alarm", pb.AlarmRequest()
    yield "alarm", lambda c: c.alarm_deactivate(7, pb.NOSPACE), "Maintenance/Alarm", clear
    yield "hash", lambda c: c.hash_kv(revision=60), "Maintenance/HashKV", pb.HashKVRequest(revision=60)
    yield "hash", lambda c: c.hash_kv(revision=1 << 40), "Maintenance/HashKV", pb.HashKVRequest(revision=1 << 40)
    for revision in (40, 30, 1 << 40):
        request = pb.CompactionRequest(revision=revision, physical=True)
        yield "compact", lambda c, r=revision: c.compact(r, physical=True), "KV/Compact", request
    yield "old", lambda c: c.get(b"k01", revision=20), "KV/Range", pb.RangeRequest(key=b"k01", revision=20)
    yield "defragment", lambda c: c.defragment(), "Maintenance/Defragment", pb.DefragmentRequest()
    move = pb.MoveLeaderRequest(targetID=7)
    yield "move", lambda c: c.at(c.endpoints[0]).move_leader("", 7), "Maintenance/MoveLeader", move
    yield "members", lambda c: c.member_list(), "Cluster/MemberList", pb.MemberListRequest(linearizable=True)
    yield "promote", lambda c: c.member_promote(7), "Cluster/MemberPromote", pb.MemberPromoteRequest(ID=7)
    yield "remove", lambda c: c.member_remove(7), "Cluster/MemberRemove", pb.MemberRemoveRequest(ID=7)
    update = pb.MemberUpdateRequest(ID=7, peerURLs=["http://127.0.0.1:1"])
    yield "update", lambda c: c.member_update(7, ["http://127.0.0.1:1"]), "Cluster/MemberUpdate", update
    add = pb.MemberAddRequest(peerURLs=["nonsense"], isLearner=True)
    yield "add", lambda c: c.member_add(["nonsense"], learner=True), "Cluster/MemberAdd", add
    yield from users()


def users() -> Iterator[Step]:
    read, some = auth_pb2.Permission.READ, auth_pb2.UserAddOptions()
    allowed = auth_pb2.Permission(permType=read, key=b"a", range_end=b"b")
    yield "status", lambda c: c.auth_status(), "Auth/AuthStatus", pb.AuthStatusRequest()
    yield "enable", lambda c: c.auth_enable(), "Auth/AuthEnable", pb.AuthEnableRequest()
    for name in ("u", "u", ""):
        request = pb.AuthUserAddRequest(name=name, password="p", options=some)
        yield "user add", lambda c, n=name: c.user_add(n, "p"), "Auth/UserAdd", request
    for name in ("r", "r"):
        yield "role add", lambda c, n=name: c.role_add(n), "Auth/RoleAdd", pb.AuthRoleAddRequest(name=name)
    permit = pb.AuthRoleGrantPermissionRequest(name="r", perm=allowed)
    yield "permit", lambda c: c.role_grant_permission("r", read, b"a", b"b"), "Auth/RoleGrantPermission", permit
    yield "role", lambda c: c.role_get("r"), "Auth/RoleGet", pb.AuthRoleGetRequest(role="r")
    for role in ("r", "none"):
        request_ = pb.AuthUserGrantRoleRequest(user="u", role=role)
        yield "grant role", lambda c, r=role: c.user_grant_role("u", r), "Auth/UserGrantRole", request_
    yield "user", lambda c: c.user_get("u"), "Auth/UserGet", pb.AuthUserGetRequest(name="u")
    yield "users", lambda c: c.user_list(), "Auth/UserList", pb.AuthUserListRequest()
    yield "roles", lambda c: c.role_list(), "Auth/RoleList", pb.AuthRoleListRequest()
    change = pb.AuthUserChangePasswordRequest(name="u", password="q")
    yield "password", lambda c: c.user_change_password("u", "q"), "Auth/UserChangePassword", change
    login = pb.AuthenticateRequest(name="u", password="q")
    yield "login", lambda c: c.authenticate("u", "q"), "Auth/Authenticate", login
    revoke = pb.AuthUserRevokeRoleRequest(name="u", role="r")
    yield "revoke role", lambda c: c.user_revoke_role("u", "r"), "Auth/UserRevokeRole", revoke
    forbid = pb.AuthRoleRevokePermissionRequest(role="r", key=b"a", range_end=b"b")
    yield "forbid", lambda c: c.role_revoke_permission("r", b"a", b"b"), "Auth/RoleRevokePermission", forbid
    yield "role delete", lambda c: c.role_delete("r"), "Auth/RoleDelete", pb.AuthRoleDeleteRequest(role="r")
    yield "user delete", lambda c: c.user_delete("u"), "Auth/UserDelete", pb.AuthUserDeleteRequest(name="u")
    yield "disable", lambda c: c.auth_disable(), "Auth/AuthDisable", pb.AuthDisableRequest()


def steps() -> Iterator[Step]:
    yield from keys_and_values(random.Random(SEED))
    yield from the_rest()


def watched() -> pb.WatchCreateRequest:
    """Return what is watched in the end: everything that is left after the compaction."""
    return pb.WatchCreateRequest(key=b"k", range_end=END, start_revision=41, prev_kv=True, fragment=True)


def normal(message: Any) -> str:
    """Return an answer's bytes without what is a cluster's own."""
    copy = type(message)()
    copy.CopyFrom(message)
    _normalize(copy)
    return copy.SerializeToString(deterministic=True).hex()


def _normalize(message: Any) -> None:
    for field, value in message.ListFields():
        if field.name in OWN:
            message.ClearField(field.name)
        elif field.message_type is not None:
            for each in value if field.is_repeated else [value]:
                _normalize(each)


def through_grpcio(endpoint: str) -> dict[str, Any]:
    import grpc

    channel = grpc.insecure_channel(endpoint, [("grpc.max_receive_message_length", -1)])
    lines, reached = [], 0
    for f, _, path, request in steps():
        answer = getattr(pb, type(request).__name__.replace("Request", "Response"))
        call = channel.unary_unary(
            f"/etcdserverpb.{path}", lambda message: message.SerializeToString(), answer.FromString
        )
        try:
            said = call(request, timeout=20)
        except grpc.RpcError as exc:
            lines.append([f, exc.code().name])
        else:
            lines.append([f, normal(said)])
            reached = max(reached, said.header.revision)
    watch = channel.stream_stream(
        "/etcdserverpb.Watch/Watch", lambda message: message.SerializeToString(), pb.WatchResponse.FromString
    )
    events: list[str] = []
    for answer in watch(iter([pb.WatchRequest(create_request=watched())])):
        events += [normal(event) for event in answer.events]
        if answer.events and answer.events[-1].kv.mod_revision >= reached - 1:
            break
    channel.close()
    return {"lines": lines, "events": events}


if __name__ == "__main__":
    json.dump(through_grpcio(sys.argv[1]), sys.stdout)
    sys.exit()


import gevent  # noqa: E402

from cluster.local.cluster import LocalCluster  # noqa: E402
from loadgen.client.etcd import EtcdClient  # noqa: E402
from loadgen.wire import Code  # noqa: E402


def test_equal_to_grpcio(make_cluster: Callable[..., LocalCluster]) -> None:
    mine, theirs = (make_cluster(1, storage="memory").endpoints[0] for _ in range(2))
    root = Path(__file__).parents[2]
    other = subprocess.Popen(
        [sys.executable, __file__, theirs.removeprefix("http://")],
        stdout=subprocess.PIPE, text=True, cwd=root, env={"PYTHONPATH": str(root)},
    )  # fmt: skip
    client = EtcdClient([mine], timeout_s=20)
    lines = []
    for f, ours, _, _ in steps():
        done = ours(client)
        # The code, not the error's name: the client calls some of them by what they mean.
        lines.append([f, Code(done.code).name if done.response is None else normal(done.response)])
    wanted = json.loads(other.communicate(timeout=120)[0])
    assert [(n, a, b) for n, (a, b) in enumerate(zip(lines, wanted["lines"], strict=True)) if a != b][:3] == []
    request = watched()
    watch = client.watch(request.key, request.range_end, start_revision=41, prev_kv=True, fragment=True)
    events: list[str] = []
    with gevent.Timeout(30):
        while len(events) < len(wanted["events"]):
            answer = watch.next()
            assert answer is not None, watch.error
            events += [normal(each) for each in answer.response.events]
    assert events == wanted["events"]
    client.close()
    # The sequence is worth something: successes and refusals of many kinds.
    said = {text for _, text in lines}
    assert {"NOT_FOUND", "OUT_OF_RANGE", "FAILED_PRECONDITION", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"} <= said
    assert len(events) > 50
