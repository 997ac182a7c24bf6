"""What a member forgets that falls behind so far that it is sent a snapshot.

It falls behind while it is paused, so that what it has in memory stays there, as watches, caches and old files.
"""

from __future__ import annotations

import contextlib
import time

from cluster.base.errors import MemberFailed
from cluster.local.strike_rules import hold
from loadgen.bugs.scenario import CannotTryError, ClusterOptions, Scenario
from loadgen.bugs.stage import Permission, Stage, answer_of
from loadgen.client.auth import READWRITE
from loadgen.history.operation import Outcome
from loadgen.proto import auth_pb2
from loadgen.proto import etcd_pb2 as pb

# A leader keeps 5,000 entries beside its snapshot, and none of them once it was started anew.
_SNAPSHOT_COUNT, _WRITES = 100, 150
_CLUSTER = ClusterOptions(nodes=3, fast_elections=True, snapshot_count=_SNAPSHOT_COUNT)
_STRUCK = ClusterOptions(nodes=3, fast_elections=True, snapshot_count=_SNAPSHOT_COUNT, strikes=("sync", "rename"))
_LOGGED_S, _APPLIED_S = 20.0, 20.0
# So many of the writes after the snapshot come before the watch is to begin; seconds after each of them.
_EARLY, _LOOKED_AFTER_S = 10, 0.1
# `lease.ends` gives a lease 10 s, where writes show that others go on.
_TOLD_S, _OVERDUE_S = 12, 25.0
_DEFRAGMENTED_S, _NO_TIME_S = 10.0, 0.001


def _fall_behind(stage: Stage, name: str) -> None:
    """Write much while a member is paused, and have the others forget it, so that they have to send it a snapshot.

    The member is paused on return.
    """
    others = [each for each in stage.names if each != name]
    stage.cluster.pause(name)
    # What is sent to a paused member waits in its sockets. Those that were started anew have no connection to it.
    _start_anew(stage, others)
    writer = stage.client(*others)

    def write() -> None:
        done = 0
        while done < _WRITES and stage.left_s:
            done += writer.put(b"other%d" % done, b"").outcome is Outcome.OK

        if done < _WRITES:
            raise CannotTryError(f"only {done} of {_WRITES} keys were written")

    stage.work(write)
    for each in others:
        _wait_for_log(stage, each, "saved snapshot")
    _start_anew(stage, others)


def _start_anew(stage: Stage, names: list[str]) -> None:
    for each in names:
        stage.kill(each)
    for each in names:
        stage.start(each, healthy=False)
    stage.leader()


def _wait_for_log(stage: Stage, name: str, *texts: str) -> None:
    """Wait until a member has logged one of these."""
    log, until = stage.cluster.log(name), time.monotonic() + _LOGGED_S
    while not any(text in log.read_text(encoding="utf-8", errors="replace") for text in texts):
        if time.monotonic() > until:
            raise CannotTryError(f"{name} did not log {texts[0]!r} in {_LOGGED_S:g} s")
        time.sleep(0.05)


def _catch_up(stage: Stage, name: str) -> None:
    """Resume a member, and wait until it has installed the snapshot that it is sent."""
    stage.cluster.resume(name)
    _wait_for_log(stage, name, "applied snapshot", "finished applying incoming snapshot")


def _wait_until_alike(stage: Stage, name: str) -> None:
    until = time.monotonic() + _APPLIED_S
    while time.monotonic() < until:
        statuses = [status for status in stage.cluster.statuses() if status is not None]
        if len(statuses) == len(stage.names) and len({status.revision for status in statuses}) == 1:
            return
        time.sleep(0.05)
    raise CannotTryError(f"{name} did not catch up in {_APPLIED_S:g} s")


def _watch_the_future(stage: Stage) -> None:
    """Watch from a revision that is still to come, also after the snapshot.

    The member takes its watches for such as have to catch up when it installs that, and forgets where they begin when
    it looks after those next, as it does every 100 ms.
    """
    name = stage.follower()
    actor = stage.actor(name)
    put = actor.put(b"key", b"before")
    first = answer_of(put)["header"]["revision"] + _WRITES + _EARLY
    watch = actor.watch(b"key", start_revision=first)
    _fall_behind(stage, name)
    _catch_up(stage, name)
    other = stage.actor(stage.leader())
    for number in range(20):
        put = other.put(b"key", b"%d" % number)
        if not number and answer_of(put)["header"]["revision"] >= first:
            raise CannotTryError("more was written than was to be, so that the watch has begun")
        time.sleep(_LOOKED_AFTER_S if number < _EARLY else 0)
    watch.take_up_to(answer_of(put)["header"]["revision"], within_s=_APPLIED_S)


def _grant_while_behind(stage: Stage) -> None:
    """Give a user another right while a member that knows its rights is behind; it is used when that has caught up.

    Its member goes on by what it keeps of rights in memory, and does not apply what they do not allow.
    """
    name = stage.follower()
    root = stage.enable_auth({"alice": (Permission(READWRITE, b"first"),)})
    actor = stage.actor(name, user="alice")
    answer_of(actor.put(b"first", b"1"))  # so its member knows the rights
    _fall_behind(stage, name)
    root = stage.actor(stage.leader(), user="root")
    right = auth_pb2.Permission(permType=READWRITE, key=b"second")
    answer_of(root.ask(pb.AuthRoleGrantPermissionRequest(name="alice", perm=right)))
    _catch_up(stage, name)
    other = stage.actor(stage.leader(), user="alice")
    for number in range(5):
        other.put(b"second", b"%d" % number)


def _enable_auth_while_behind(stage: Stage) -> None:
    """Switch authentication on while a member is behind, have it lead afterwards, and let a lease run out.

    What makes its tokens stays off, so the one with which it revokes leases as the leader is refused.
    """
    name = stage.follower()
    _fall_behind(stage, name)
    root = stage.enable_auth(at=stage.leader())
    _catch_up(stage, name)
    members = (root.ask(pb.MemberListRequest()).answer or {}).get("members", ())
    target = next((each["ID"] for each in members if each["name"] == name), 0)
    until = time.monotonic() + _APPLIED_S
    while (root.ask(pb.StatusRequest()).answer or {}).get("leader") != target:
        if time.monotonic() > until:
            raise CannotTryError(f"{name} did not become the leader in {_APPLIED_S:g} s")
        stage.actor(stage.leader(), user="root").ask(pb.MoveLeaderRequest(targetID=target))
    term = answer_of(root.ask(pb.StatusRequest()))["raftTerm"]
    lease = answer_of(root.ask(pb.LeaseGrantRequest(TTL=1)))["ID"]
    root.put(b"key", b"held", lease=lease)
    until = time.monotonic() + _OVERDUE_S
    while time.monotonic() < until:
        left = answer_of(root.ask(pb.LeaseTimeToLiveRequest(ID=lease, keys=True)))
        if not left.get("grantedTTL"):
            if answer_of(root.ask(pb.StatusRequest()))["raftTerm"] != term:
                raise CannotTryError(f"{name} did not lead until the lease had ended")
            break
        if left.get("TTL", 0) < -_TOLD_S:
            break
        root.put(b"other", b"goes on")
        time.sleep(0.5)


def _defragment_in_between(stage: Stage) -> None:
    """Have a member defragment when it has opened the database that it was sent, and does not use it yet.

    The old database is then put over the new one, to which the member goes on writing, and finds after a restart.
    """
    name = stage.follower()
    actor = stage.actor(name)
    actor.put(b"key", b"before")
    _fall_behind(stage, name)
    placing = stage.strike(name, hold("rename", "*.snap.db"))
    stage.cluster.resume(name)
    stage.struck(name, placing)
    opened = stage.strike(name, hold("fdatasync", "db", times=1))
    if stage.cluster.rules(name)[opened].struck:
        raise CannotTryError(f"{name} committed to its old database when it was sent a new one")
    stage.cluster.clear_strikes(name, placing)
    stage.struck(name, opened)
    at_work = stage.strike(name, hold("fdatasync", "db.tmp*", _NO_TIME_S))
    asked = actor.ask(pb.DefragmentRequest(), timeout_s=_DEFRAGMENTED_S)
    if not asked.ok:
        _see_that_it_waits(stage, name, at_work)
    stage.cluster.clear_strikes(name, at_work)
    stage.cluster.clear_strikes(name, opened)
    _wait_until_alike(stage, name)
    other = stage.actor(stage.leader())
    for number in range(10):
        other.put(b"key%d" % number, b"after")
    _wait_until_alike(stage, name)
    stage.kill(name)
    with contextlib.suppress(MemberFailed):  # 3.4 does not start on such a database, which is noticed in the end
        stage.start(name)


def _see_that_it_waits(stage: Stage, name: str, at_work: int) -> None:
    """Look whether a member that has not defragmented waits with that for the new database, as one without the bug.

    Raises CannotTryError where it may be slow: it was not asked yet, or has begun.
    """
    _wait_for_log(stage, name, "starting defragment", "starting to defragment")
    if stage.cluster.rules(name)[at_work].seen:
        raise CannotTryError(f"{name} did not defragment in {_DEFRAGMENTED_S:g} s")


SCENARIOS = (
    Scenario("14571", ("convergence.revision", "convergence.keys"), _grant_while_behind, cluster=_CLUSTER),
    Scenario("13975", ("lease.ends",), _enable_auth_while_behind, limit_s=60.0, cluster=_CLUSTER,
             unanswered=("MoveLeader",)),
    Scenario("20221", ("watch.filter",), _watch_the_future, cluster=_CLUSTER),
    Scenario("20271", ("durability.revision", "convergence.revision", "member.lives"), _defragment_in_between,
             cluster=_STRUCK, unanswered=("Defragment",)),
)  # fmt: skip
