"""One turn of each kind of actor of a chaos run.

What they ask for is drawn from the run's seed. They judge nothing: each call is recorded with who made it, and the
promises of ``check`` are held against the record.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from loadgen.client.auth import READWRITE
from loadgen.client.connect_errors import AUTH_OFF
from loadgen.client.kv import bytes_prefix_end, put_op
from loadgen.history.calls import Call
from loadgen.history.operation import Outcome
from loadgen.proto import auth_pb2
from loadgen.proto import etcd_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from loadgen.client.actor import Actor

# etcd's own defaults: --max-txn-ops and --max-request-bytes.
MAX_OPS, MAX_REQUEST = 128, 1536 << 10
# Nobody listens there: a learner that is added never starts.
_NOBODY = "http://127.0.0.1:9"
_BEFORE_ALL, _AHEAD, _PATIENCE_S = -1, 20, (0.001, 0.003, 0.01, 0.03)
_TAKE_S, _ON_S, _TRIES, _PATIENT_TRIES, _AGAIN_S = 0.3, 0.2, 150, 3, 0.2
# Whoever looks after the cluster has no rights while authentication is on, from 3.5.32 on not even to its status.
_CHANGE_S, _RIGHT_S = 1.5, 0.5
# What says that there is nothing left to do.
_THERE, _GONE, _OFF = ("UserAlreadyExist", "RoleAlreadyExist"), ("MemberNotFound",), (AUTH_OFF, "AuthNotEnabled")
# In the newest releases only root may switch authentication on, which matters once it is on.
_ON = ("UserEmpty",)
ROOT, ALICE, PASSWORD = "root", "alice", "raftload"


class UncertainError(Exception):
    """An actor cannot go on: it is not known what became of a change on which all that follows depends."""


class Acting:
    """What one actor has. Takes its name, the members' names, the run's prefix, the seed, and what makes a client of a
    member for a user; ``over`` is set when it is to end.
    """

    def __init__(
        self, name: str, members: list[str], prefix: bytes, seed: int, connect: Callable[[str, str, str], Actor]
    ) -> None:
        self.rng = random.Random(f"{name}/{seed}")
        self.members = members
        self.prefix = prefix
        self.own = prefix + b"actors/%b/" % name.encode()
        self.over = threading.Event()
        self.turns = 0
        self._unsure = ""
        self._connect = connect
        self._actors: dict[tuple[str, str], Actor] = {}

    def at(self, member: str = "", user: str = "") -> Actor:
        """Return a client of a member, by default of one drawn at random, as a user or as nobody."""
        where = member or self.rng.choice(self.members)
        made = self._actors.get((where, user))
        if made is None:
            made = self._actors[where, user] = self._connect(where, user, PASSWORD if user else "")
        return made

    def anyhow(self, request: Message, *, user: str = "", over: Sequence[str] = ()) -> Call:
        """Ask until it is done, or refused by an error of these names; return the last call. Raises UncertainError.

        Where one has not answered, it is asked again, since a member passes on in order what it is asked. So what is
        done in the end is done after what may have been done before; where it does not answer for long, another one is.
        """
        for number in range(_TRIES):
            if number % _PATIENT_TRIES == _PATIENT_TRIES - 1:
                self._unsure = ""
            done = self.change(request, user=user)
            if done.ok or (done.outcome is Outcome.FAIL and done.error in over):
                return done
            threading.Event().wait(_AGAIN_S)  # also once it is to end
        raise UncertainError(f"{done.method}: {done.error}")

    def change(self, request: Message, *, user: str = "") -> Call:
        """Ask once for a change: the member that has not answered the last one, or else one drawn at random."""
        member = self._unsure or self.rng.choice(self.members)
        done = self.at(member, user).ask(request, timeout_s=_CHANGE_S)
        if done.outcome is not Outcome.FAIL:
            self._unsure = "" if done.ok else member
        return done


def _watch_late(acting: Acting) -> None:
    """Watch all keys of the run from a revision that is long past, and take what comes slowly."""
    actor = acting.at()
    newest = _revision(actor.get(acting.own))
    watch = actor.watch(
        acting.prefix, bytes_prefix_end(acting.prefix), start_revision=max(1, newest - acting.rng.randint(1, 5000)),
        recorded=False, prev_kv=acting.rng.random() < 0.5, fragment=acting.rng.random() < 0.5,
    )  # fmt: skip
    for _ in range(acting.rng.randint(1, 10)):
        if watch.next(_TAKE_S) is None or acting.over.wait(acting.rng.random() * 0.1):
            break
    watch.close()


def _watch_oddly(acting: Acting) -> None:
    """Watch from revisions that are still to come, that are compacted, and that never were."""
    actor = acting.at()
    key = acting.own + b"key"
    newest = _revision(actor.get(key))
    starts = [newest + acting.rng.randint(1, _AHEAD), 1, _BEFORE_ALL, newest]
    acting.rng.shuffle(starts)
    watches = [actor.watch(key, start_revision=start) for start in starts]
    other = acting.at()
    for number in range(5):
        other.put(key, b"%d" % number)
    for watch in watches:
        watch.take(3, within_s=_TAKE_S)
        watch.close()


def _give_up(acting: Acting) -> None:
    """Ask for much, and give it up at once."""
    everything = pb.RangeRequest(
        key=acting.prefix, range_end=bytes_prefix_end(acting.prefix), serializable=acting.rng.random() < 0.5
    )
    read = pb.RequestOp(request_range=everything)
    request = acting.rng.choice([
        everything, pb.TxnRequest(success=[read] * 10), pb.PutRequest(key=acting.own + b"key", value=b"given up"),
    ])  # fmt: skip
    acting.at().ask(request, cancel_after_s=acting.rng.choice(_PATIENCE_S))


def _reach_limits(acting: Acting) -> None:
    """Ask for as much as etcd takes, and for a little more."""
    actor, key = acting.at(), acting.own + b"key"
    for count in (MAX_OPS, MAX_OPS + 1):
        actor.ask(pb.TxnRequest(success=[put_op(key + b"%d" % n, b"") for n in range(count)]))
    for size in (MAX_REQUEST - 4096, MAX_REQUEST + 1):
        actor.put(key, b"x" * size)
    actor.delete(acting.own, prefix=True)


def _maintain(acting: Acting) -> None:
    """Defragment a member, copy it, or ask for its hash."""
    actor = acting.at()
    match acting.rng.randrange(3):
        case 0:
            actor.ask(pb.DefragmentRequest())
        case 1:
            actor.snapshot()
        case _:
            actor.ask(pb.HashKVRequest())
    actor.ask(pb.StatusRequest())


def _move_leader(acting: Acting) -> None:
    """Have another member lead."""
    status = acting.at().ask(pb.StatusRequest()).answer or {}
    listed = acting.at().ask(pb.MemberListRequest()).answer or {}
    names = {each["ID"]: each.get("name", "") for each in listed.get("members", ()) if not each.get("isLearner")}
    leader = names.get(status.get("leader", 0), "")
    others = sorted(member for member, name in names.items() if name and name != leader)
    if leader in acting.members and others:
        acting.at(leader).ask(pb.MoveLeaderRequest(targetID=acting.rng.choice(others)))


def _change_members(acting: Acting) -> None:
    """Add a learner, move it and remove it; list the members here and there."""

    def remove(learner: int) -> None:
        acting.anyhow(pb.MemberRemoveRequest(ID=learner), over=_GONE)

    listed = acting.at().ask(pb.MemberListRequest(linearizable=True)).answer or {}
    for each in listed.get("members", ()):
        if each.get("isLearner"):  # of a turn that did not hear what became of it
            remove(each["ID"])
    added = acting.change(pb.MemberAddRequest(peerURLs=[_NOBODY], isLearner=True))
    learner = (added.answer or {}).get("member", {}).get("ID")
    if learner is None:
        return
    acting.at().ask(pb.MemberListRequest(linearizable=acting.rng.random() < 0.5))
    acting.anyhow(pb.MemberUpdateRequest(ID=learner, peerURLs=[f"{_NOBODY}9"]), over=_GONE)
    acting.change(pb.MemberPromoteRequest(ID=learner))
    acting.at().ask(pb.MemberListRequest(linearizable=acting.rng.random() < 0.5))
    remove(learner)


def _raise_alarm(acting: Acting) -> None:
    """Have the store be full for a moment, and do then what takes space and what does not."""
    actor, key = acting.at(), acting.own + b"key"
    member = ((actor.ask(pb.StatusRequest()).answer or {}).get("header") or {}).get("member_id")
    if member is None:
        return
    acting.change(pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=member, alarm=pb.NOSPACE))
    acting.at().ask(pb.AlarmRequest(action=pb.AlarmRequest.GET))
    nested = pb.TxnRequest(success=[put_op(key, b"nested")])
    read = pb.RequestOp(request_range=pb.RangeRequest(key=key))
    requests = [
        pb.PutRequest(key=key, value=b"1"), pb.TxnRequest(success=[pb.RequestOp(request_txn=nested)]),
        pb.TxnRequest(success=[read]), pb.DeleteRangeRequest(key=key), pb.LeaseGrantRequest(TTL=60),
    ]  # fmt: skip
    for request in acting.rng.sample(requests, 3):
        acting.at().ask(request)
    off = pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, memberID=member, alarm=pb.NOSPACE)
    acting.anyhow(off)


def _use_rights(acting: Acting) -> None:
    """Switch authentication on for a moment; ask as root, as a user with few rights, and as nobody."""
    mine, foreign = acting.own + b"mine", acting.own + b"foreign"
    if not acting.turns:
        for user in (ROOT, ALICE):
            acting.anyhow(pb.AuthUserAddRequest(name=user, password=PASSWORD), over=_THERE)
            acting.anyhow(pb.AuthRoleAddRequest(name=user), over=_THERE)
            acting.anyhow(pb.AuthUserGrantRoleRequest(user=user, role=user))
        right = auth_pb2.Permission(permType=READWRITE, key=mine)
        acting.anyhow(pb.AuthRoleGrantPermissionRequest(name=ALICE, perm=right))
    try:
        acting.anyhow(pb.AuthEnableRequest(), over=_ON)
        for _ in range(4):
            _use_a_right(acting, mine, foreign)
            if acting.over.wait(_ON_S / 4):
                break
    finally:
        acting.anyhow(pb.AuthDisableRequest(), user=ROOT, over=_OFF)


def _use_a_right(acting: Acting, mine: bytes, foreign: bytes) -> None:
    read = pb.RequestOp(request_range=pb.RangeRequest(key=foreign))
    requests = [
        pb.RangeRequest(key=mine), pb.PutRequest(key=mine, value=b"1"), pb.RangeRequest(key=foreign),
        pb.PutRequest(key=foreign, value=b"1"), pb.DeleteRangeRequest(key=foreign),
        pb.RangeRequest(key=mine, range_end=bytes_prefix_end(acting.own), serializable=True),
        pb.TxnRequest(success=[pb.RequestOp(request_txn=pb.TxnRequest(success=[read]))]),
        pb.TxnRequest(success=[pb.RequestOp(request_put=pb.PutRequest(key=mine, value=b"2", prev_kv=True))]),
        pb.AuthUserGrantRoleRequest(user=ALICE, role=ROOT), pb.MemberListRequest(), pb.StatusRequest(),
    ]  # fmt: skip
    user = acting.rng.choice((ALICE, ALICE, ""))
    acting.at(user=user).ask(acting.rng.choice(requests), timeout_s=_RIGHT_S)


def _revision(call: Call) -> int:
    return int(((call.answer or {}).get("header") or {}).get("revision", 1))


TURNS: dict[str, Callable[[Acting], None]] = {
    "late-watches": _watch_late, "odd-watches": _watch_oddly, "given-up-calls": _give_up, "limits": _reach_limits,
    "maintenance": _maintain, "leaders": _move_leader, "members": _change_members, "alarms": _raise_alarm,
    "users": _use_rights,
}  # fmt: skip
"""What each kind of ``actor_kinds`` does once."""
