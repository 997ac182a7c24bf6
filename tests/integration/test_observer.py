"""The observer against real members: what it writes while one dies, and that it never outlives its owner."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from cluster.observe import record
from cluster.observe.observer import Observer
from tests.conftest import ClusterFactory
from tests.support import fronts
from tests.support.processes import runs
from tests.support.waiting import until


def test_it_sees_a_leader_die_and_the_next_one(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    cluster = make_cluster(3)
    # Names are not told: the members list each other.
    observer = Observer(tmp_path, [("", member.endpoint) for member in cluster.members])
    observer.scrape("before")
    first = {poll.member: poll for poll in record.read_polls(tmp_path)}
    assert set(first) == {"etcd-node1", "etcd-node2", "etcd-node3"}
    leader = next(poll.leader for poll in first.values())
    cluster.kill(leader)
    until(lambda: (record.leader_changes(record.read_polls(tmp_path)) or 0) >= 1, "another leader")

    def silent() -> list[record.Poll]:
        return [poll for poll in record.read_polls(tmp_path) if poll.member == leader and not poll.answers]

    until(lambda: len(silent()) >= 4, "polls that the dead member does not answer")
    observer.scrape("end")
    observer.stop()
    assert observer.summary["polls"] == len(record.read_polls(tmp_path))
    assert 0 < observer.summary["unanswered"] < observer.summary["polls"]
    rows = {row["name"]: row for row in record.summary(record.read(tmp_path))["observed"]}
    others = [row for name, row in rows.items() if name != leader]
    assert all(row["wal_fsync_p99_ms"]["before"] > 0 for row in others)
    assert all(row["unanswered"] < rows[leader]["unanswered"] for row in others)
    assert {poll.reason for poll in silent()} <= {"connection refused", "connection lost"}


def test_a_paused_member_delays_nobody_elses_polls(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    cluster = make_cluster(3)
    observer = Observer(tmp_path, [(member.name, member.endpoint) for member in cluster.members])
    observer.scrape("before")
    cluster.pause("etcd-node3")

    def silent() -> list[record.Poll]:
        return [poll for poll in record.read_polls(tmp_path) if poll.member == "etcd-node3" and not poll.answers]

    until(lambda: len(silent()) >= 3, "polls that the paused member does not answer")
    cluster.resume("etcd-node3")
    observer.stop()
    assert {poll.reason for poll in silent()} == {"timeout"}
    first, last = silent()[0].at, silent()[2].at
    meanwhile = [poll for poll in record.read_polls(tmp_path) if first < poll.at < last]
    # Each silence lasts a second, four ticks of the others.
    assert sum(poll.member == "etcd-node1" for poll in meanwhile) >= 4


def test_a_member_that_lists_nobody_is_asked_for_the_list_once(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    """As a learner, which etcd lets list nobody."""
    cluster = make_cluster(1)
    (member,) = cluster.members
    asked: list[str] = []
    with fronts.denying(member.endpoint, "Cluster/MemberList", asked=asked) as front:
        observer = Observer(tmp_path, [("", front)])
        observer.scrape("before")
        observer.stop()
    assert asked.count("Maintenance/Status") >= 1
    # Each question for the status comes after one for the list, which is timed; the one more is for its name.
    assert asked.count("Cluster/MemberList") == asked.count("Maintenance/Status") + 1


def test_it_ends_with_its_owner_whatever_ends_that(etcd_single: object, tmp_path: Path) -> None:
    endpoint = etcd_single.members[0].endpoint  # type: ignore[attr-defined]
    code = (
        "import sys, time; from pathlib import Path; from cluster.observe.observer import Observer;"
        f"o = Observer(Path({str(tmp_path)!r}), [('n1', {endpoint!r})]); o.scrape('before');"
        "print(o._process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.send_signal(signal.SIGKILL)
    until(lambda: not runs(pid))
