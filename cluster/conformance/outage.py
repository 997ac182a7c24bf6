"""Members that die: the rest goes on where it is a majority, refuses where it is none, and heals."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Iterator, Sequence

from cluster.base.errors import ClusterError, EtcdError, NoAnswer
from cluster.base.known_bugs import known_bug
from cluster.conformance import replication
from cluster.conformance.model import Broken, Disturber, Env, Inconclusive, Test, expect, ms
from cluster.gateway.client import Client

_BEFORE_S = 0.5
_ENOUGH = 5  # writes before the kill, without which it was none under load
_WRITERS = 2
_AGREE_S = 10.0
_MISSES_A_WRITE = "13766"  # the bug by which a member that was killed under load lacks what the others have


def catch_up(env: Env) -> str:
    """A member that was down during writes applies them after its start and ends in the same state as the others."""
    leader = _leader(env)
    away = (leader + 1) % len(env)
    others = [client for place, client in enumerate(env.clients()) if place != away]
    with _down(env, [away]):
        revision, wanted = replication.write_some(env, replication.WRITES, others)
        started = time.monotonic()
    replication.reach(env, revision, env.bounds.heal_s)
    env.figures["catch_up_ms"] = ms(time.monotonic() - started)
    how = replication.same_at(env, revision, wanted)
    return (
        f"{env.name(away)} had {replication.WRITES} missed writes {env.figures['catch_up_ms']:.0f} ms after its start; "
        f"same content at revision {revision}{how}"
    )


def failover(env: Env) -> str:
    """Raft's leader completeness: when the leader dies the rest elects another, and it has every acknowledged write.

    Writers go on at the survivors while the leader is killed; then all that was acknowledged is read at every
    survivor, and at the dead member after its start.
    """
    leader = _leader(env)
    old_id, version = env.targets[leader].member_id, env.client(leader).status().version
    survivors = [place for place in range(len(env)) if place != leader]
    clients = env.clients()
    writers = [env.fresh(survivors[number % len(survivors)]) for number in range(_WRITERS)]
    acknowledged: list[tuple[float, bytes, int]] = []
    done = threading.Event()

    def write(number: int) -> None:
        count = 0
        while not done.is_set():
            count += 1
            key = env.key(f"f/{number}/{count:06d}")
            try:
                revision = _put(writers[number], key)
            except ClusterError:
                done.wait(0.05)
                continue
            acknowledged.append((time.monotonic(), key, revision))

    broken: list[Exception] = []

    def go_on(number: int) -> None:
        try:
            write(number)
        except Exception as exc:
            broken.append(exc)

    threads = [threading.Thread(target=go_on, args=(number,), name="writer") for number in range(_WRITERS)]
    with _down(env, []) as kill:
        try:
            for thread in threads:
                thread.start()
            env.sleep(_BEFORE_S)
            env.until(lambda: bool(broken) or len(acknowledged) >= _ENOUGH, env.bounds.load_at_most_s)
            killed = time.monotonic()
            kill(leader)
            elected = env.until(lambda: _new_leader(clients, survivors, old_id), env.bounds.failover_s)
            expect(
                elected is not None,
                f"no new leader within {env.bounds.failover_s:g} s after {env.name(leader)}, the leader, was killed",
            )
            leaderless = time.monotonic() - killed
            again = env.until(lambda: _try_put(env, clients, survivors, acknowledged), env.bounds.failover_s)
            expect(again is not None, f"no write was acknowledged within {env.bounds.failover_s:g} s of the election")
            env.sleep(_BEFORE_S)
        finally:
            done.set()
            for thread in threads:
                thread.join()
        if broken:
            raise broken[0]
        wanted = {key: revision for _, key, revision in acknowledged}
        for place in survivors:
            _expect_all(env, place, wanted)
    _expect_all(env, leader, wanted, killed=version)
    times = sorted(at for at, _, _ in acknowledged)
    before = max((at for at in times if at <= killed), default=killed)
    after = min(at for at in times if at > max(before, killed + 0.2))
    env.figures.update(leaderless_ms=ms(leaderless), write_outage_ms=ms(after - before), writes=len(wanted))
    if sum(at <= killed for at in times) < _ENOUGH:
        raise Inconclusive(f"too little load to tell: {len(wanted)} writes were acknowledged")
    return (
        f"new leader after {leaderless:.2f} s, {after - before:.2f} s without an acknowledged write, "
        f"none of {len(wanted)} lost"
    )


def no_quorum(env: Env) -> str:
    """Without a majority nothing is committed: writes and linearizable reads fail, serializable reads answer.

    On every member that kept running. With the majority back, all works again and nothing that was acknowledged is
    lost.
    """
    leader = _leader(env)
    count = len(env)
    stopped = [(leader + step) % count for step in range(count - (count // 2 + 1) + 1)]
    kept = [place for place in range(count) if place not in stopped]
    key, clients = env.key("quorum"), env.clients()
    before = clients[leader].put(key, b"before").revision
    replication.reach(env, before)
    tries = [(place, linearizable, env.fresh(place)) for place in kept for linearizable in (False, True)]

    def attempt(place: int, linearizable: bool, client: Client) -> None:
        what = "a linearizable read" if linearizable else "a write"
        with contextlib.suppress(EtcdError, NoAnswer):
            if linearizable:
                client.get(key)
            else:
                client.put(key, b"during")
            raise Broken(f"{what} succeeded at {env.name(place)} with {len(stopped)} of {count} members down")

    def serializable() -> None:
        for place in kept:
            try:
                found = clients[place].get(key, serializable=True).kvs
            except ClusterError as exc:
                raise Broken(f"a serializable read failed at {env.name(place)}, which kept running: {exc}") from exc
            expect(bool(found), f"a serializable read at {env.name(place)} lost a write that it had applied")

    with _down(env, stopped):
        serializable()
        env.together([functools.partial(attempt, *one) for one in tries])
        serializable()
        started = time.monotonic()
    healed = time.monotonic() - started
    env.figures["heal_ms"] = ms(healed)
    for place, client in enumerate(clients):
        found = client.get(key).kvs
        expect(
            bool(found) and found[0].value in (b"before", b"during"),
            f"lost write: {env.name(place)} has not what was acknowledged before the majority was stopped",
        )
    for place, client in enumerate(clients):
        after = b"after %d" % place
        revision = client.put(key, after).revision
        expect(
            [kv.value for kv in client.get(key).kvs] == [after] and revision > before,
            f"{env.name(place)} does not serve its own write after the cluster has healed",
        )
    return (
        f"{len(stopped)} of {count} down: at the others writes and linearizable reads failed and serializable ones "
        f"answered; healed {healed:.2f} s after the start"
    )


TESTS = (
    Test(
        "replication.catch-up", "a member that was down catches up with what it missed", catch_up,
        disturbs=True, needs_handle=True, needs_all=True, min_members=3,
    ),
    Test(
        "failover.leader-killed", "when the leader dies another is elected and no acknowledged write is lost", failover,
        disturbs=True, needs_handle=True, needs_all=True, min_members=3,
    ),
    Test(
        "quorum.lost", "without a majority nothing is committed, and it heals", no_quorum,
        disturbs=True, needs_handle=True, needs_all=True, min_members=2,
    ),
)  # fmt: skip


class _Kill:
    """Kills members by their place among the targets."""

    def __init__(self, env: Env, handle: Disturber) -> None:
        self._env, self._handle = env, handle

    def __call__(self, place: int) -> None:
        self._handle.kill(self._env.name(place))


@contextlib.contextmanager
def _down(env: Env, places: Sequence[int]) -> Iterator[_Kill]:
    """Kills members for a block, and gives what kills more of them.

    Starts them all again at its end, whatever ended it, and waits until all serve. Raises Broken where a cluster
    that the test left in order does not heal.
    """
    handle = env.handle
    if handle is None:
        raise Inconclusive("no hold on the members' processes")
    names = {member.name for member in handle.members}
    if names != {target.name for target in env.targets}:
        raise Inconclusive(f"the endpoints are not of all members and only them: {', '.join(sorted(names))}")
    kill = _Kill(env, handle)
    try:
        for place in places:
            kill(place)
        yield kill
    except Exception:
        with contextlib.suppress(ClusterError):
            _start_all(handle)
            env.until(lambda: _serves(env), env.bounds.heal_s)
        raise
    except BaseException:
        _start_all(handle)
        raise
    _start_all(handle)
    expect(
        env.until(lambda: _serves(env), env.bounds.heal_s) is not None,
        f"the cluster does not serve at all members {env.bounds.heal_s:g} s after they were started again",
    )


def _start_all(handle: Disturber) -> None:
    for member in handle.members:
        if not handle.is_running(member.name):
            handle.start(member.name)


def _serves(env: Env) -> bool:
    """Whether all members agree on a leader and serve linearizable reads."""
    try:
        statuses = [client.status(timeout_s=1.0) for client in env.clients()]
        if 0 in {status.leader_id for status in statuses} or len({status.leader_id for status in statuses}) != 1:
            return False
        for client in env.clients():
            client.get(env.key("health"))
    except ClusterError:
        return False
    return True


def _leader(env: Env) -> int:
    """Return the place of the leader on which all members agree. Raises Inconclusive where they do not."""

    def agreed() -> int | None:
        with contextlib.suppress(ClusterError):
            leaders = {client.status(timeout_s=1.0).leader_id for client in env.clients()}
            for place, target in enumerate(env.targets):
                if leaders == {target.member_id}:
                    return place
        return None

    # A place may be 0, so it is not asked for by its truth.
    found = env.until(lambda: None if (place := agreed()) is None else (place,), _AGREE_S)
    if found is None:
        raise Inconclusive(f"the members agree on no leader within {_AGREE_S:g} s, before anything was stopped")
    return found[0]


def _new_leader(clients: Sequence[Client], survivors: Sequence[int], old_id: int) -> int | None:
    for place in survivors:
        with contextlib.suppress(ClusterError):
            leader = clients[place].status(timeout_s=0.5).leader_id
            if leader not in (0, old_id):
                return leader
    return None


def _put(client: Client, key: bytes) -> int:
    return client.put(key, b"v").revision


def _try_put(
    env: Env, clients: Sequence[Client], survivors: Sequence[int], acknowledged: list[tuple[float, bytes, int]]
) -> bool:
    key = env.key(f"f/main/{len(acknowledged):06d}")
    try:
        revision = _put(clients[survivors[0]], key)
    except ClusterError:
        return False
    acknowledged.append((time.monotonic(), key, revision))
    return True


def _expect_all(env: Env, place: int, wanted: dict[bytes, int], *, killed: str = "") -> None:
    """Raise Broken where a member has not every key at its revision.

    Takes the version of one that was ``killed``, to say whether it is known for that.
    """
    found = {kv.key: kv.mod_revision for kv in env.client(place).get(env.key("f/"), range_end=env.key("f0")).kvs}
    lost = sorted((revision, key) for key, revision in wanted.items() if found.get(key) != revision)
    if not lost:
        return
    revision, key = lost[0]
    first = f"has revision {found[key]} there" if key in found else "is missing there"
    reason = (
        f"lost write: {len(lost)} of {len(wanted)} acknowledged writes are not at {env.name(place)} as they were "
        f"acknowledged, after the failover; the first, of revision {revision}, {first}"
    )
    if bug := known_bug(_MISSES_A_WRITE, killed):
        reason += f"; etcd {killed} is known for it ({bug.name}: {bug.summary})"
    raise Broken(reason)
