"""Pictures of clusters that live, and of elections that this test caused."""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.local.cluster import LocalCluster
from tests.support.etcds import default_and_others, version_of
from tests.support.freed import FreedFile
from tests.support.outage import last_won
from tests.support.waiting import HANG_S, until
from viz.cli.command import visualize_raft_state
from viz.diagrams.elections import read_files
from viz.diagrams.model import ClusterSnapshot
from viz.live import polled
from viz.live.snapshot import ask
from viz.live.status import watch

ClusterFactory = Callable[..., LocalCluster]


def draw(capsysbinary: pytest.CaptureFixture[bytes], *args: str) -> tuple[int, str]:
    code = visualize_raft_state(args)
    return code, capsysbinary.readouterr().out.decode()


def test_a_live_cluster_as_its_members_say(
    etcd_cluster: LocalCluster, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    endpoints = ",".join(member.endpoint for member in etcd_cluster.members)
    code, out = draw(capsysbinary, "--type", "cluster-status", "--format", "json", "--endpoints", endpoints)
    assert code == 0
    members: list[dict[str, Any]] = json.loads(out)["members"]
    statuses = etcd_cluster.statuses(HANG_S)
    assert [member["name"] for member in members] == [member.name for member in etcd_cluster.members]
    for member, status in zip(members, statuses, strict=True):
        assert status is not None
        assert member["role"] == ("leader" if status.is_leader else "follower")
        assert (member["term"], member["version"]) == (status.term, status.version)
        assert member["lag"] >= 0 and member["db_size"] > 0 and member["round_trip_ms"] > 0


def test_one_endpoint_is_enough_to_draw_all_members(
    etcd_cluster: LocalCluster, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    one = etcd_cluster.members[1].endpoint
    code, out = draw(capsysbinary, "--type", "cluster-status", "--endpoints", one)
    assert code == 0
    assert all(member.name in out for member in etcd_cluster.members)
    assert "quorum (3 of 3 answer)" in out


def test_diagrams_have_the_members_names_and_their_leader(
    etcd_cluster: LocalCluster, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    endpoints = ",".join(member.endpoint for member in etcd_cluster.members)
    leader = etcd_cluster.leader(HANG_S)
    assert leader is not None
    code, out = draw(
        capsysbinary, "--type", "log-replication", "--variant", "slow-follower", "--format", "json",
        "--endpoints", endpoints,
    )  # fmt: skip
    assert code == 0
    model = json.loads(out)
    lanes = {lane["id"]: lane["label"] for lane in model["lanes"]}
    assert sorted(lanes.values()) == sorted(["client", *(member.name for member in etcd_cluster.members)])
    assert lanes[model["items"][0]["target"]] == leader.name
    code, out = draw(capsysbinary, "--type", "state-machine", "--format", "ascii", "--endpoints", endpoints)
    assert code == 0 and f"now: {leader.name}" in out


@pytest.mark.parametrize("etcd", default_and_others(), ids=version_of)
def test_a_killed_leader_is_drawn_and_its_election_read_from_the_logs(
    make_cluster: ClusterFactory, tmp_path: Path, etcd: str
) -> None:
    cluster = make_cluster(3, binary=etcd, log_dir=tmp_path)
    old = cluster.leader(HANG_S)
    assert old is not None
    killed_at = time.time()
    cluster.kill(old.name)
    endpoints = [member.endpoint for member in cluster.members]
    snapshot, _ = ask(endpoints)
    silent = {member.name for member in snapshot.members if member.role == "no answer"}
    assert silent == {old.name}  # by its name, from the list of those that are left
    until(lambda: (new := cluster.leader(HANG_S)) is not None and new.name != old.name, "another leader")
    cluster.start(old.name)
    cluster.wait_healthy()
    found = read_files([cluster.log(member.name) for member in cluster.members])
    last = last_won(found)
    status = [each for each in cluster.statuses(HANG_S) if each is not None]
    leader = cluster.leader(HANG_S)
    assert leader is not None and len(status) == 3
    assert {each.term for each in status} == {last.term}
    assert {format(each.leader_id, "x") for each in status} == {last.winner}
    assert (found.name(last.winner), found.name(last.failed)) == (leader.name, old.name)
    # It begins where the first of the others lost its connection, by their logs, which is after the signal was sent.
    lost = [
        datetime.datetime.fromisoformat(found).timestamp()
        for member in cluster.members
        if member.name != old.name
        for found in re.findall(r'"ts":"([^"]+)".*lost TCP streaming connection', cluster.log(member.name).read_text())
    ]
    assert last.began == pytest.approx(min(at for at in lost if at >= killed_at - 0.002), abs=0.002)
    assert last.won is not None and last.won > last.began
    assert not found.notes
    snapshot, _ = ask(endpoints)
    assert re.fullmatch(rf"etcd cluster: leader {leader.name} in term \d+, quorum \(3 of 3 answer\)", snapshot.title)


def test_without_a_majority_the_picture_says_so(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(3)
    follower = next(
        member.name for member, status in zip(cluster.members, cluster.statuses(HANG_S), strict=True)
        if status is not None and not status.is_leader
    )  # fmt: skip
    for member in cluster.members:
        if member.name != follower:
            cluster.kill(member.name)
    endpoint = cluster.spec.member(follower).endpoint
    until(lambda: "follower" not in {member.role for member in ask([endpoint])[0].members}, "the leader to be missed")
    snapshot, _ = ask([endpoint])
    assert {member.name: member.role for member in snapshot.members} == {
        member.name: "no leader" if member.name == follower else "no answer" for member in cluster.members
    }
    assert "leader NONE, NO QUORUM (1 of 3 answer)" in snapshot.title
    assert snapshot.links == ()


def test_one_member_alone(etcd_single: LocalCluster) -> None:
    endpoints = [etcd_single.members[0].endpoint]
    snapshot, _ = ask(endpoints)
    assert [member.role for member in snapshot.members] == ["leader"]
    assert "quorum (1 of 1 answer)" in snapshot.title
    out = io.StringIO()
    assert watch(endpoints, 0.01, out, as_json=True, ticks=3) == 0
    assert len(out.getvalue().splitlines()) == 3


def test_ctrl_c_ends_a_look_and_draws_what_was_seen(
    etcd_single: LocalCluster, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[polled.ClusterPoll] = []
    look = polled.look

    def looking(at: float, snapshot: ClusterSnapshot) -> polled.ClusterPoll:
        seen.append(look(at, snapshot))
        if len(seen) == 3:
            FreedFile(signal.SIGINT)  # as where an answer's connection is freed
        return seen[-1]

    monkeypatch.setattr(polled, "look", looking)
    of = ("--type", "timeline", "--observed", "--for", "1h", "--endpoints", etcd_single.members[0].endpoint)
    code, out = draw(capsysbinary, *of)
    assert code == 0
    assert len(seen) >= 3
    assert etcd_single.members[0].name in out


class Ticks(io.StringIO):
    """What the live view writes, one document a tick, until it is told to end."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, Any]] = []
        self.enough = False

    def write(self, text: str) -> int:
        if self.enough:
            raise EOFError
        self.seen.append(json.loads(text))
        return len(text)


def test_the_live_view_goes_on_while_members_die_and_come_back(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(3)
    endpoints = [member.endpoint for member in cluster.members]
    names = [member.name for member in cluster.members]
    out = Ticks()

    def look() -> None:
        with contextlib.suppress(EOFError):
            watch(endpoints, 0.1, out, as_json=True)

    watching = threading.Thread(target=look)
    watching.start()
    try:
        until(lambda: len(out.seen) >= 2, "the first ticks")
        for name in names:
            cluster.kill(name)
        until(lambda: {member["role"] for member in out.seen[-1]["members"]} == {"no answer"}, "a tick of the dead")
        for name in names:
            cluster.start(name)
        cluster.wait_healthy()
        until(
            lambda: (title := out.seen[-1]["title"]).endswith("quorum (3 of 3 answer)") and "NONE" not in title,
            "a tick of a healthy cluster",
        )
    finally:
        out.enough = True
        watching.join(timeout=120)
    assert not watching.is_alive()
    assert all([member["name"] for member in tick["members"]] == names for tick in out.seen)
    assert out.seen[0]["members"][0]["db_quota"] == 2 * 1024**3
    assert any("answers again" in change for tick in out.seen for change in tick["changes"])


def test_the_live_view_of_nothing_is_exit_4(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # and nobody listens
        port = sock.getsockname()[1]
        code = visualize_raft_state(["--type", "cluster-status", "--watch", "--endpoints", f"127.0.0.1:{port}"])
    assert code == 4
    assert "no cluster found" in capsys.readouterr().err
