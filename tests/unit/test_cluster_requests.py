"""Requests for a cluster: what `cluster up` is asked for, and the record of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from cluster.base.errors import ClusterError, EtcdNotFound, UsageError
from cluster.base.state import state_dir
from cluster.base.topology import Member, local_members
from cluster.base.versions import parse_version
from cluster.docker.address import EngineAddress
from cluster.docker.cluster import DockerSpec, unlike
from cluster.docker.engine import NoEngine
from cluster.lifecycle.up import ClusterRequest
from cluster.local.daemon import Answer
from cluster.local.daemon_client import DetachedCluster
from cluster.observe import running
from cluster.observe.health import Alarm
from cluster.observe.probe import MemberStatus
from cluster.observe.running import Running
from cluster.observe.status import ClusterView, MemberView
from tests.support.command import assert_refused, refusal

SPEC = DockerSpec(
    token="t", nodes=3, base_port=2379, data="container", image="i:1", source="given", detail="i:1",
    requested_version="3.6.14", peers=("10.0.0.11", "10.0.0.12", "10.0.0.13"), shm="", created_at="2026-01-01T00:00:00",
)  # fmt: skip


def test_the_environment_gives_defaults_and_options_win() -> None:
    env = {"NODES": "7", "ETCD_VERSION": "v3.5.10", "ETCD_IMAGE": "my/etcd:1"}
    request = ClusterRequest.from_env(env)
    assert (request.nodes, request.version, request.image) == (7, "v3.5.10", "my/etcd:1")
    request = ClusterRequest.from_env(env, nodes=3, version="3.6.1")
    assert (request.nodes, request.version, request.image) == (3, "3.6.1", None)
    assert ClusterRequest.from_env({}).nodes is None


@pytest.mark.parametrize(
    ("env", "given", "reason"),
    [
        ({"NODES": "many"}, {}, "$NODES: 'many' is not a whole number"),
        ({"NODES": "٣"}, {}, "$NODES: '٣' is not a whole number"),
        ({"NODES": "1_0"}, {}, "$NODES: '1_0' is not a whole number"),
        ({"NODES": "0"}, {}, "1 to 99 members, not 0"),
        ({}, {"nodes": 100}, "1 to 99"),
        ({"ETCD_VERSION": "latest"}, {}, "ETCD_VERSION: 'latest' is not an etcd version"),
        ({"ETCD_VERSION": "٣.٦.٤"}, {}, "ETCD_VERSION: '٣.٦.٤' is not an etcd version"),
        ({}, {"version": "latest"}, "--etcd-version: 'latest' is not an etcd version"),
        ({}, {"backend": "local", "image": "x"}, "--image is for --backend docker"),
        ({}, {"backend": "local", "data": "volume"}, "--data volume is not for --backend local"),
    ],
)
def test_senseless_wishes(env: dict[str, str], given: dict[str, object], reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        ClusterRequest.from_env(env, **given)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("env", "given", "who"),
    [
        ({"ETCD_BINARY": "/none"}, {}, "ETCD_BINARY"), ({}, {"etcd": "/none"}, "--etcd"),
        ({}, {"binary": "/none"}, "--binary"), ({"ETCD_BINARY": "/other"}, {"etcd": "/none"}, "--etcd"),
    ],
)  # fmt: skip
def test_an_etcd_that_is_not_there_is_laid_to_who_named_it(
    env: dict[str, str], given: dict[str, str], who: str
) -> None:
    request = ClusterRequest.from_env(env, backend="local", **given)  # type: ignore[arg-type]
    with pytest.raises(EtcdNotFound, match=rf"^no etcd binary at /none \(from {who}\): "):
        request.find_binary()


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("max-txn-ops", "argument --etcd-arg: 'max-txn-ops' is not an option of etcd; write KEY=VALUE"),
        ("name=x", "argument --etcd-arg: raftload sets etcd's --name itself"),
    ],
)
def test_options_of_etcd_that_are_refused(option: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert_refused(refusal(capsys, "cluster", "up", "--etcd-arg", option), why)


@pytest.mark.parametrize(("text", "version"), [("v3.5.10", "3.5.10"), ("3.6.0-rc.1", "3.6.0-rc.1")])
def test_versions(text: str, version: str) -> None:
    assert parse_version(text) == version


def test_the_label_reads_back() -> None:
    assert DockerSpec.from_label(SPEC.to_label()) == SPEC
    for text in ("", "{}", "[]", '{"peers": []}'):
        with pytest.raises(ClusterError, match="cannot read"):
            DockerSpec.from_label(text)


def test_a_label_of_before_there_were_options_of_etcd_reads_back() -> None:
    old = {name: value for name, value in json.loads(SPEC.to_label()).items() if name != "etcd_args"}
    assert DockerSpec.from_label(json.dumps(old)) == SPEC
    more = dataclasses.replace(SPEC, etcd_args=("--a=1", "--b=2"))
    assert DockerSpec.from_label(more.to_label()) == more
    assert unlike(more, nodes=None, version=None, image=None, etcd_args=("--b=2", "--a=1")) == ""
    assert unlike(more, nodes=None, version=None, image=None, etcd_args=("--a=1",)) == "etcd with --a=1 --b=2"


def test_members_of_containers() -> None:
    second = SPEC.members[1]
    assert (second.endpoint, second.peer_url) == ("127.0.0.1:2380", "http://10.0.0.12:2380")


@pytest.mark.parametrize(
    ("asked", "differs"),
    [
        ({}, ""), ({"nodes": 3}, ""), ({"nodes": 5}, "3 members"), ({"version": "3.6.14"}, ""),
        ({"version": "3.5.1"}, "etcd 3.6.14"), ({"image": "i:1", "version": "3.5.1"}, ""),
        ({"image": "i:2"}, "image i:1"),
        ({"base_port": 3000}, "ports from 2379"), ({"data": "shm"}, "data in container"),
        ({"etcd_args": ()}, ""), ({"etcd_args": ("--a=1",)}, "etcd with no --etcd-arg"),
    ],
)  # fmt: skip
def test_unlike(asked: dict[str, object], differs: str) -> None:
    values = {"nodes": None, "version": None, "image": None, **asked}
    assert unlike(SPEC, **values) == differs  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cause", "advice"),
    [
        (PermissionError(13, "denied"), "join the group docker"),
        (FileNotFoundError(2, "no such file"), "install or start Docker"),
        (ConnectionRefusedError(111, "refused"), "is not running: start it"),
        (ValueError("odd"), "no Docker Engine answers"),
    ],
)
def test_why_there_is_no_engine(cause: Exception, advice: str) -> None:
    wrapped = RuntimeError("Error while fetching server API version", RuntimeError("Connection aborted.", cause))
    error = NoEngine(wrapped, EngineAddress("unix:///run/x.sock", "the Docker context mine"))
    text = str(error)
    assert advice in text
    assert text.startswith(f"{error.reason}: ") and "--backend" not in error.reason
    assert "unix:///run/x.sock (the Docker context mine)" in text
    assert "--backend local" in text
    assert "\n" not in text


def _running() -> Running:
    members = local_members([2379, 2380], [3379, 3380], "/d")
    return Running(
        backend="local", members=members, member_ids={"etcd-node1": 1}, version="3.5.1", requested_version=None,
        image="", source="here", created_at="2026-01-01T00:00:00+00:00", control="/s",
    )  # fmt: skip


def test_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert running.load("local") is None
    running.save(_running())
    assert running.load("local") == _running()
    more = dataclasses.replace(_running(), etcd_args=("--a=1",))
    running.save(more)
    assert running.load("local") == more
    assert running.find_running(0.2) is None  # remembered, but nobody answers
    (tmp_path / "raftload" / "cluster-local.json").write_text("{", encoding="utf-8")
    assert running.load("local") is None
    running.forget("local")
    running.forget("local")
    assert list((tmp_path / "raftload").iterdir()) == []


def test_state_dir() -> None:
    assert state_dir({"XDG_STATE_HOME": "/x"}) == Path("/x/raftload")
    assert state_dir({"XDG_STATE_HOME": "relative"}) == Path.home() / ".local/state/raftload"


def _view(quorum: bool | None, *answering: bool) -> ClusterView:
    members = local_members(range(1, 1 + len(answering)), range(11, 11 + len(answering)), "/d")
    views = []
    for number, (member, answers) in enumerate(zip(members, answering, strict=True), 1):
        status = MemberStatus(member.name, member.endpoint, number, 1, 4, 9, 9, 5, 100, "3.5.1") if answers else None
        views.append(MemberView(member, "running" if answers else "down", False, status))
    return ClusterView(tuple(views), quorum)


def test_exit_codes_of_status() -> None:
    assert _view(True, True, True, False).exit_code == 0
    assert _view(False, True, False, False).exit_code == 1
    assert _view(None, True, False, False).exit_code == 3
    assert _view(False, False, False, False).exit_code == 4


def test_what_an_operator_should_know() -> None:
    view = _view(True, True, True)
    assert view.warnings == [] and view.to_json()["alarms"] == []
    (first, second), (one, two) = view.members, view.to_json()["members"]
    assert first.status is not None
    more = dataclasses.replace(first.status, storage_version="3.6.0", db_quota=2 * 10**9, downgrade_to="3.5.0")
    never = MemberView(
        Member("beef", "", "http://p:1", ""), "never started", False, None, "member of http://p:1 was added"
    )
    view = ClusterView(
        (dataclasses.replace(first, status=more), second, never), True, (Alarm(2, "NOSPACE"), Alarm(0xABC, "CORRUPT"))
    )  # fmt: skip
    assert [line.partition(": ")[0] for line in view.warnings] == [
        "alarm NOSPACE of etcd-node2", "alarm CORRUPT of member abc", "beef", "a downgrade to etcd 3.5.0 is under way",
    ]  # fmt: skip
    assert (one["db_quota"], two["storage_version"], one["downgrade_to"]) == (None, None, None)
    found = view.to_json()
    assert found["alarms"][0] == {"member_id": "2", "alarm": "NOSPACE"}
    assert found["endpoints"] == ["127.0.0.1:1", "127.0.0.1:2"]
    assert [each["db_quota"] for each in found["members"]] == [2 * 10**9, None, None]
    head, *rows = view.table().splitlines()
    assert head.split()[-3:] == ["STORAGE", "DB", "QUOTA"]
    assert rows[0].endswith("3.5.1    3.6.0    0.0 MB  2000.0 MB")
    assert rows[2].split() == ["beef", "never", "started"]


def test_status_as_json_and_as_a_table() -> None:
    view = _view(True, True, True, False)
    answer = view.to_json()
    assert (answer["leader"], answer["term"], answer["quorum"]) == ("etcd-node1", 4, True)
    assert [member["role"] for member in answer["members"]] == ["leader", "follower", None]
    assert _view(False, True, False, False).to_json()["leader"] is None
    lines = view.table().splitlines()
    assert lines[1].split()[:4] == ["etcd-node1", "127.0.0.1:1", "running", "leader"]
    assert lines[3].split()[2:] == ["down", "no", "answer"]


def test_a_cluster_of_an_older_raftload_tells_of_no_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    older: Answer = {"states": {"etcd-node1": "running"}, "isolated": [], "disturbed": []}
    monkeypatch.setattr(DetachedCluster, "_order", lambda self, order: older)
    known = Running("local", (), {}, "3.5.21", None, "", "", "")
    assert DetachedCluster(known).disks() == {}
