"""Control over whatever is spoken: gRPC where etcd has no JSON, JSON where a proxy has no gRPC, and who is denied."""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cluster import schema
from cluster.base.errors import EtcdError, NoAnswer
from cluster.base.security import Security
from cluster.base.topology import Member, ServerTls
from cluster.cli import test as test_command
from cluster.cli.test import TRANSPORTS
from cluster.gateway.admin import AdminClient
from cluster.local.cluster import LocalCluster
from cluster.observe import calls, probe
from cluster.observe.calls import DENIED
from cluster.observe.health import Alarm
from cluster.observe.messages import encode
from loadgen.client.blocking import BlockingClient
from loadgen.wire import Code
from tests.conftest import ClusterFactory
from tests.support import command, fronts
from tests.support.certificates import Authority
from tests.support.etcds import default_and_others, newest_of, version_of
from tests.support.ports import take_ports
from tests.support.waiting import HANG_S, until

NO_GATEWAY = ("--enable-grpc-gateway=false",)
# Passwords are hashed at the least cost: at the usual one each login takes a tenth of a second of a processor.
LOGINS = ("--bcrypt-cost=4",)
STATUS = "Maintenance/Status"
NOBODY = "HTTP 502: a proxy answers, and nobody behind it"


@pytest.fixture(autouse=True)
def no_surprises(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ETCDCTL_ENDPOINTS", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


Capsys = pytest.CaptureFixture[str]


def document(capsys: Capsys, *words: object, code: int = 0) -> tuple[Any, str]:
    """Return what a command prints with --json, as its schema says, and its stderr."""
    done = command.called(capsys, *words, "--json")
    assert done.returncode == code, done.stderr
    found = json.loads(done.stdout)
    jsonschema.validate(found, schema.load(found["schema"].removeprefix("raftload.").partition("/")[0]))
    return found, done.stderr


def state(capsys: Capsys, *endpoints: str, code: int = 0, user: str = "") -> tuple[Any, str]:
    """Return what `cluster status` says."""
    named = ("--user", user) if user else ()
    return document(capsys, "cluster", "status", "--endpoints", ",".join(endpoints), *named, code=code)


def drawn(capsys: Capsys, *endpoints: str, user: str = "") -> str:
    """Return what `viz` draws of a cluster that lives."""
    named = ("--user", user) if user else ()
    done = command.called(capsys, "viz", "--type", "cluster-status", "--endpoints", ",".join(endpoints), *named)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Writes, deletes, both kinds of read and a transaction; no test that makes a load.
CALLS = ("kv.delete", "kv.serializable", "txn.branches")


def verdicts(capsys: Capsys, *endpoints: str, only: tuple[str, ...] = CALLS, code: int = 0) -> tuple[Any, str]:
    """Return what `cluster test` says of some tests."""
    return document(capsys, "cluster", "test", "--endpoints", ",".join(endpoints), "--only", *only, code=code)


def benched(tmp_path: Path, *words: str) -> tuple[subprocess.CompletedProcess[str], list[dict[str, str]]]:
    """Run a small load; return how it ended and its members.csv."""
    folder = tmp_path / f"run-{len(list(tmp_path.glob('run-*')))}"
    done = command.run("bench", "--operations", "60", "--output", str(folder), "--workers", "1", *words, cwd=tmp_path)
    rows = []
    if (folder / "members.csv").exists():
        with (folder / "members.csv").open() as file:
            rows = list(csv.DictReader(file))
    return done, rows


# ---- JSON is off, or elsewhere


@pytest.mark.parametrize("binary", default_and_others(), ids=version_of)
def test_without_the_gateway(make_cluster: ClusterFactory, capsys: Capsys, tmp_path: Path, binary: str) -> None:
    cluster = make_cluster(3, binary=binary, extra_args=NO_GATEWAY)
    endpoints = [member.endpoint for member in cluster.members]
    with pytest.raises((NoAnswer, EtcdError)):
        AdminClient(endpoints[0]).status()  # JSON is off
    leader = cluster.leader(HANG_S)
    assert leader is not None
    found, _ = state(capsys, *endpoints)
    assert (found["quorum"], found["leader"], found["alarms"]) == (True, leader.endpoint, [])
    assert sorted(each["role"] for each in found["members"]) == ["follower", "follower", "leader"]
    assert {each["version"] for each in found["members"]} == {version_of(binary)}
    picture = drawn(capsys, endpoints[0])
    assert f"leader {leader.name} in term" in picture and "quorum (3 of 3 answer)" in picture
    report, _ = verdicts(capsys, *endpoints)
    assert (report["target"]["transport"], report["summary"]["fail"], report["summary"]["unknown"]) == ("grpc", 0, 0)
    assert {each["name"] for each in report["target"]["members"]} == {each.name for each in cluster.members}
    if binary != default_and_others()[-1]:
        return  # a run asks the members in the ways above, so one etcd tells of all
    done, rows = benched(tmp_path, "--endpoints", ",".join(endpoints))
    assert done.returncode == 0, done.stderr
    assert {row["member"] for row in rows} == {each.name for each in cluster.members}
    assert {row["answers"] for row in rows} == {"1"}
    assert {row["leader"] for row in rows} == {leader.name}


@pytest.mark.parametrize("binary", default_and_others(), ids=version_of)
def test_http_on_another_port(make_cluster: ClusterFactory, capsys: Capsys, binary: str) -> None:
    if probe.version_key(version_of(binary)) < (3, 5, 10):
        pytest.skip("--listen-client-http-urls came with 3.5.10")
    port = take_ports(1)
    cluster = make_cluster(1, binary=binary, extra_args=(f"--listen-client-http-urls=http://127.0.0.1:{port}",))
    for endpoint, transport in ((cluster.members[0].endpoint, "grpc"), (f"127.0.0.1:{port}", "gateway")):
        found, _ = state(capsys, endpoint)
        assert (found["quorum"], found["leader"]) == (True, endpoint)
        assert "leader etcd-node1 in term" in drawn(capsys, endpoint)
        report, _ = verdicts(capsys, endpoint)
        assert (report["target"]["transport"], report["verdict"]) == (transport, "PASS")
    both, _ = verdicts(capsys, f"127.0.0.1:{port}", cluster.members[0].endpoint)
    assert both["target"]["transport"] == "grpc and gateway"
    how = ("--transport", "gateway", "--only", "kv.own-member")
    asked, _ = document(capsys, "cluster", "test", "--endpoints", f"127.0.0.1:{port}", *how)
    assert asked["target"]["transport"] == "gateway"


def test_json_alone(etcd_cluster: LocalCluster, capsys: Capsys, tmp_path: Path) -> None:
    """A proxy for HTTP/1 in front of one member: control works, and a load over the gateway."""
    with fronts.json_only(etcd_cluster.members[1].endpoint) as front:
        found, _ = state(capsys, front)
        assert (found["quorum"], found["members"][0]["answers"]) == (True, True)
        assert "quorum (3 of 3 answer)" in drawn(capsys, front)
        report, _ = verdicts(capsys, front)
        assert (report["target"]["transport"], report["verdict"]) == ("gateway", "PASS")
        status = probe.member_status(Member("m", f"http://{front}", "", ""), HANG_S)
        assert status.member_id == probe.member_status(etcd_cluster.members[1], HANG_S).member_id
        listed = probe.member_list(front, HANG_S)
        assert listed == probe.member_list(etcd_cluster.members[1].client_url, HANG_S)
        assert {each.name for each in listed} == {each.name for each in etcd_cluster.members}


@pytest.mark.parametrize("binary", default_and_others(), ids=version_of)
def test_both_ways_say_the_same(make_cluster: ClusterFactory, binary: str) -> None:
    """Status, the list and a read over gRPC and over JSON, of one member at rest."""
    (member,) = make_cluster(1, binary=binary).members
    with fronts.json_only(member.endpoint) as front:
        by_grpc = probe.member_status(member, HANG_S)
        by_json = probe.member_status(Member(member.name, f"http://{front}", "", ""), HANG_S)
        assert by_grpc.version == version_of(binary) and by_grpc.is_leader and by_grpc.db_size > 0
        for field in ("name", "member_id", "leader_id", "term", "version", "is_learner", "errors", "storage_version"):
            assert getattr(by_grpc, field) == getattr(by_json, field)
        assert by_json.applied_index >= by_grpc.applied_index > 0
        has_quota = probe.version_key(by_grpc.version) >= (3, 6)
        assert (by_grpc.db_quota, by_json.db_quota) == ((2 * 1024**3,) * 2 if has_quota else (0, 0))
        assert (by_grpc.storage_version != "") == has_quota
        assert probe.member_list(front, HANG_S) == probe.member_list(member.client_url, HANG_S) != []
        assert probe.serves_reads(front, HANG_S) and probe.serves_reads(member.client_url, HANG_S)


# ---- proxies


def test_an_etcd_proxy(etcd_cluster: LocalCluster, capsys: Capsys, tmp_path: Path) -> None:
    cluster = etcd_cluster
    names = {member.name for member in cluster.members}
    endpoints = [member.endpoint for member in cluster.members]
    with fronts.etcd_proxy(cluster.binary.path, *endpoints) as front:
        found, _ = state(capsys, front)
        assert (found["quorum"], found["members"][0]["answers"]) == (True, True)
        assert [each["endpoint"] for each in found["members"]] == [front]  # it lists itself: no member, never started
        picture = drawn(capsys, front)
        assert "NO QUORUM" not in picture and "no answer" not in picture
        among = drawn(capsys, front, *endpoints)
        assert "quorum (3 of 3 answer)" in among and all(name in among for name in names)
        report, _ = verdicts(capsys, front, only=("kv.own-member", "txn.compare"))
        assert (report["target"]["transport"], report["verdict"]) == ("grpc", "PASS")
        done, rows = benched(tmp_path, "--endpoints", front)
        assert done.returncode == 0, done.stderr
        assert {row["answers"] for row in rows} == {"1"}


def test_nginx_for_grpc(etcd_cluster: LocalCluster, capsys: Capsys, tmp_path: Path) -> None:
    with fronts.nginx(tmp_path, f"location / {{ grpc_pass grpc://{etcd_cluster.members[0].endpoint}; }}") as front:
        found, _ = state(capsys, front)
        assert (found["quorum"], found["members"][0]["answers"]) == (True, True)
        assert "quorum (3 of 3 answer)" in drawn(capsys, front)
        report, _ = verdicts(capsys, front)
        assert (report["target"]["transport"], report["verdict"]) == ("grpc", "PASS")


@pytest.mark.parametrize(
    ("what", "cause", "words"),
    [
        ("return 404;", "not etcd", "HTTP 404, not gRPC"),
        ("location / { grpc_pass grpc://127.0.0.1:9; }", "unavailable", NOBODY),
        ("location / { proxy_pass http://127.0.0.1:9; }", "unavailable", NOBODY),
    ],
    ids=["no-etcd", "nobody-grpc", "nobody-json"],
)  # fmt: skip
def test_nginx_with_nobody_behind(capsys: Capsys, tmp_path: Path, what: str, cause: str, words: str) -> None:
    with fronts.nginx(tmp_path, what) as front:
        with pytest.raises(NoAnswer, match=words) as caught:
            probe.member_status(Member("m", f"http://{front}", "", ""), HANG_S)
        assert caught.value.cause == cause
        assert not probe.serves_reads(front, HANG_S)
        _, err = state(capsys, front, code=4)
        assert words in err and "Traceback" not in err


# ---- who may not ask


@contextlib.contextmanager
def with_auth(cluster: LocalCluster, security: Security | None = None) -> Iterator[None]:
    """Turn auth on for a block: a user root, and a user guest who may read and write all keys and has no role root."""
    admin = BlockingClient(cluster.members[0].client_url, timeout_s=HANG_S, security=security)
    for user, role in (("root", "root"), ("guest", "guest")):
        with contextlib.suppress(EtcdError):  # some releases have the role root, others have not
            admin.auth("role/add", name=role)
        admin.auth("user/add", name=user, password=f"{user}-pw")
        admin.auth("user/grant", user=user, role=role)
    everything = {"permType": "READWRITE", "key": "AA==", "range_end": "AA=="}
    admin.auth("role/grant", name="guest", perm=everything)
    admin.auth("enable")
    try:
        yield
    finally:
        admin.login("root", "root-pw")
        admin.auth("disable")
        admin.close()


ROOT, GUEST = "root:root-pw", "guest:guest-pw"


def test_a_user_without_root(make_cluster: ClusterFactory, capsys: Capsys, tmp_path: Path) -> None:
    """Of an etcd that shows its status to the role root alone."""
    port = take_ports(1)
    cluster = make_cluster(1, extra_args=(f"--advertise-client-urls=http://127.0.0.1:{port}", *LOGINS))
    with with_auth(cluster), fronts.denying(cluster.members[0].endpoint, STATUS, port=port) as front:
        guest = Security(user="guest", password="guest-pw")
        with pytest.raises(NoAnswer, match="permission denied: etcd does not show its status to the user guest") as why:
            probe.member_status(Member("m", f"http://{front}", "", ""), HANG_S, guest)
        assert why.value.cause == DENIED
        found, err = state(capsys, front, user=GUEST)
        assert (found["quorum"], found["leader"]) == (True, None)
        (member,) = found["members"]
        assert (member["answers"], member["state"], member["role"]) == (True, "running", None)
        assert "permission denied" in member["reason"] and "not etcd" not in err
        assert "there is a quorum; 1 of 1 members answer" in err
        picture = drawn(capsys, front, user=GUEST)
        assert "leader not shown, quorum (1 of 1 answer)" in picture and "permission denied" in picture
        done = command.called(capsys, "cluster", "test", "--endpoints", front, "--user", GUEST)
        assert (done.returncode, done.stdout) == (4, "")
        assert "permission denied" in done.stderr and done.stderr.count("\n") == 1
        done, rows = benched(tmp_path, "--endpoints", front, "--user", GUEST)
        assert done.returncode == 0, done.stderr
        assert {(row["answers"], row["reason"]) for row in rows} == {("0", DENIED)}
        done, rows = benched(tmp_path, "--endpoints", front, "--user", GUEST, "--balance", "leader")
        assert (done.returncode, rows) == (4, [])
        assert "--balance leader: permission denied: etcd does not tell this user the leader" in done.stderr


@pytest.mark.parametrize("binary", default_and_others(), ids=version_of)
def test_users_of_every_etcd(make_cluster: ClusterFactory, capsys: Capsys, binary: str) -> None:
    """What is denied is said as denied, whatever this release shows to whom; the quorum is known all the same."""
    gateway = NO_GATEWAY if binary == default_and_others()[-1] else ()
    cluster = make_cluster(1, binary=binary, extra_args=(*LOGINS, *gateway))
    endpoint = cluster.members[0].endpoint
    with with_auth(cluster):
        root = Security(user="root", password="root-pw")
        code, metrics = calls.http(endpoint, "GET", "/metrics", timeout_s=HANG_S, security=root)
        assert code == 200 and b"etcd_server_has_leader 1" in metrics  # for that nobody logs in
        found, _ = state(capsys, endpoint, user=ROOT)
        assert (found["quorum"], found["leader"]) == (True, endpoint)
        found, err = state(capsys, endpoint, user=GUEST)
        assert found["quorum"] is True and found["members"][0]["answers"] is True
        assert found["members"][0]["role"] == "leader" or "permission denied" in err
        found, err = state(capsys, endpoint)
        assert found["quorum"] is True and found["members"][0]["answers"] is True
        assert found["members"][0]["role"] == "leader" or "user required: auth is enabled; give --user" in err
        done = command.called(capsys, "cluster", "status", "--endpoints", endpoint, "--user", "guest:wrong")
        assert done.returncode == 4 and "login of guest: etcdserver: authentication failed" in done.stderr


@pytest.mark.parametrize("binary", default_and_others(), ids=version_of)
def test_a_denial_behind_the_grpc_proxy_is_no_loss_of_the_quorum(
    make_cluster: ClusterFactory, capsys: Capsys, binary: str
) -> None:
    """The proxy sends etcd's text with the code UNKNOWN."""
    cluster = make_cluster(1, binary=binary, storage="memory")
    with with_auth(cluster):
        root = Security(user="root", password="root-pw")
        admin = BlockingClient(cluster.members[0].client_url, timeout_s=HANG_S, security=root)
        admin.auth("user/add", name="idle", password="idle-pw")
        admin.close()
        with fronts.etcd_proxy(binary, *cluster.endpoints) as front:
            idle = Security(user="idle", password="idle-pw")
            with pytest.raises(EtcdError, match="PermissionDenied") as denied:
                calls.grpc(front, "/etcdserverpb.KV/Range", encode({1: b"k"}), HANG_S, idle)
            assert denied.value.code == Code.UNKNOWN
            assert calls.refused(front, denied.value, idle).cause == DENIED
            assert probe.serves_reads(front, HANG_S, idle)
            found, err = state(capsys, front, user="idle:idle-pw")
            assert found["quorum"] is True and "no quorum" not in err


def test_a_token_that_the_member_has_forgotten(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(1, extra_args=LOGINS)
    (member,) = cluster.members
    root = Security(user="root", password="root-pw")
    with with_auth(cluster), fronts.json_only(member.endpoint) as front:
        behind = Member("m", f"http://{front}", "", "")
        assert (
            probe.member_list(front, HANG_S, security=root)
            == probe.member_list(member.client_url, HANG_S, security=root)
            != []
        )
        cluster.kill(member.name)
        cluster.start(member.name)  # simple tokens live in the memory of members
        until(lambda: probe.serves_reads(member.client_url, HANG_S), "the member")
        assert probe.member_status(member, HANG_S, security=root).is_leader
        assert probe.member_status(behind, HANG_S, security=root).is_leader
        assert probe.serves_reads(front, HANG_S, security=root)


def logins(cluster: LocalCluster) -> int:
    """Return how often the members of a cluster were asked to check a password, as they count it."""
    found = 0
    for member in cluster.members:
        _, page = calls.http(member.endpoint, "GET", "/metrics", timeout_s=HANG_S)
        for line in page.decode().splitlines():
            if line.startswith("grpc_server_started_total{") and 'grpc_method="Authenticate"' in line:
                found += int(float(line.rpartition(" ")[2]))
    return found


def test_a_user_logs_in_once_however_the_endpoint_is_written(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(1)
    (member,) = cluster.members
    root = Security(user="root", password="root-pw")
    with with_auth(cluster), fronts.json_only(member.endpoint) as front:
        before = logins(cluster)
        for number, endpoint in enumerate((member.endpoint, front), 1):
            for written in (endpoint, f"http://{endpoint}", f"http://{endpoint}/"):
                assert probe.member_list(written, HANG_S, security=root) != []
                assert logins(cluster) - before == number
        # And by the other protocol.
        assert calls.json_call(member.endpoint, "/v3/maintenance/status", b"{}", HANG_S, root)
        assert logins(cluster) - before == 2


# ---- alarms, learners, members that were never started


@pytest.fixture(scope="module", params=default_and_others(), ids=version_of)
def alarmed(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """Three members, whose alarms each test takes back."""
    with LocalCluster(3, binary=request.param) as cluster:
        yield cluster


@pytest.mark.parametrize("kind", ["NOSPACE", "CORRUPT"])
def test_an_alarm_is_not_the_end_of_the_quorum(alarmed: LocalCluster, capsys: Capsys, kind: str) -> None:
    cluster = alarmed
    endpoints = [member.endpoint for member in cluster.members]
    raised = probe.member_status(cluster.members[1], HANG_S).member_id
    admin = AdminClient(endpoints[0], timeout_s=HANG_S)
    assert state(capsys, *endpoints)[0]["alarms"] == []
    admin.alarm_set(raised, kind, raised=True)
    assert admin.alarms() == (Alarm(raised, kind),)
    found, err = state(capsys, *endpoints)
    assert (found["quorum"], found["alarms"]) == (True, [{"member_id": str(raised), "alarm": kind}])
    assert f"alarm {kind} of {endpoints[1]}: " in err and "no quorum" not in err
    picture = drawn(capsys, *endpoints)
    assert f", quorum (3 of 3 answer), alarm {kind}" in picture.splitlines()[0]
    assert not probe.why_unhealthy(cluster.members)
    report, err = verdicts(capsys, *endpoints, code=3)
    assert report["verdict"] == "UNKNOWN" and report["summary"]["fail"] == 0
    assert {each["reason"] for each in report["tests"] if each["verdict"] == "UNKNOWN"} == {
        f"alarm {kind}: the members refuse writes until it is disarmed"
    }
    admin.alarm_set(raised, kind, raised=False)
    assert state(capsys, *endpoints)[0]["alarms"] == []
    assert "alarm" not in drawn(capsys, *endpoints)
    admin.close()


@pytest.mark.parametrize("binary", default_and_others(), ids=version_of)
def test_a_member_that_was_never_started(make_cluster: ClusterFactory, capsys: Capsys, binary: str) -> None:
    cluster = make_cluster(1, binary=binary)
    endpoint = cluster.members[0].endpoint
    peer = f"http://127.0.0.1:{take_ports(1)}"
    admin = AdminClient(endpoint, timeout_s=HANG_S)
    number = admin.member_add(peer, learner=True)
    found, err = state(capsys, endpoint)
    assert found["quorum"] is True
    assert [(each["name"], each["state"], each["answers"]) for each in found["members"]] == [
        (endpoint, "running", True), (f"{number:x}", "never started", False),
    ]  # fmt: skip
    assert f"{number:x}: learner of {peer} was added, but never started" in err
    assert found["endpoints"] == [endpoint]
    assert "quorum (1 of 1 answer)" in drawn(capsys, endpoint)
    report, err = verdicts(capsys, endpoint, only=("kv.own-member",))
    assert report["verdict"] == "PASS" and f"warning: {number:x}: learner of {peer} was added" in err
    admin.member_remove(number)
    assert [each["name"] for each in state(capsys, endpoint)[0]["members"]] == [endpoint]

    # Another address: the id is made of that and of the second, and the id of a removed member never comes back.
    peer = f"http://127.0.0.1:{take_ports(1)}"
    number = admin.member_add(peer)  # one of two is no majority
    until(lambda: probe.member_status(cluster.members[0], HANG_S).leader_id == 0, "the leader to step down")
    found, err = state(capsys, endpoint, code=1)
    assert (found["quorum"], found["members"][1]["state"]) == (False, "never started")
    assert f"{number:x}: member of {peer} was added, but never started" in err
    assert "no quorum: 1 of 2 members answer" in err
    picture = drawn(capsys, endpoint)
    assert "NO QUORUM (1 of 2 answer)" in picture and "was added but never started" in picture
    report, err = verdicts(capsys, endpoint, code=3, only=("kv", "txn", "watch", "lease"))
    unknown = {each["reason"] for each in report["tests"] if each["verdict"] == "UNKNOWN"}
    assert unknown == {f"there is no quorum: 1 of 2 members answer; member of {peer} was added, but never started"}
    assert report["summary"]["unknown"] > 10 and report["summary"]["fail"] == report["summary"]["pass"] == 0
    assert {each["duration_s"] for each in report["tests"]} == {0.0}  # none has waited
    admin.close()


@pytest.mark.parametrize("binary", default_and_others(), ids=version_of)
def test_a_learner_alone_and_in_front(
    make_cluster: ClusterFactory, capsys: Capsys, tmp_path: Path, binary: str
) -> None:
    cluster = make_cluster(1, binary=binary)
    endpoint = cluster.members[0].endpoint
    with learner_of(cluster, tmp_path) as learner:
        found, err = state(capsys, learner, code=3)
        assert (found["quorum"], found["members"][0]["role"]) == (None, "learner")
        assert "quorum not known: only learners answer" in err
        assert "leader and quorum not known, as only learners answer" in drawn(capsys, learner)
        done = command.called(capsys, "cluster", "test", "--endpoints", learner)
        assert done.returncode == 4 and "no endpoint of a voting member" in done.stderr
        found, _ = state(capsys, learner, endpoint)
        assert (found["quorum"], found["leader"]) == (True, endpoint)
        picture = drawn(capsys, learner, endpoint)
        assert "quorum (1 of 1 answer)" in picture and "etcd-learner" in picture
        report, _ = verdicts(capsys, learner, endpoint)
        assert [each["name"] for each in report["target"]["members"]] == ["etcd-node1"]
        assert report["verdict"] == "PASS"


@contextlib.contextmanager
def learner_of(cluster: LocalCluster, folder: Path) -> Iterator[str]:
    """Yield the endpoint of a learner that has joined a cluster of one."""
    (member,) = cluster.members
    client, peer = (f"http://127.0.0.1:{take_ports(1)}" for _ in range(2))
    admin = AdminClient(member.endpoint, timeout_s=HANG_S)
    admin.member_add(peer, learner=True)
    process = subprocess.Popen(
        [
            cluster.binary.path, "--name=etcd-learner", f"--data-dir={folder / 'learner'}",
            f"--listen-client-urls={client}", f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}", "--initial-cluster-state=existing",
            f"--initial-cluster={member.name}={member.peer_url},etcd-learner={peer}",
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def follows() -> bool:
        with contextlib.suppress(NoAnswer):
            return probe.member_status(Member("learner", client, "", "")).applied_index > 0
        return False

    try:
        until(follows, "the learner")
        yield client.removeprefix("http://")
    finally:
        process.kill()
        process.wait(HANG_S)
        admin.close()


def test_without_our_grpc_client_the_gateway_is_asked(
    etcd_single: LocalCluster, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cluster` alone, as for whoever uses it as a library: it has no other client."""
    state(capsys, etcd_single.members[0].endpoint)  # has brought the transports in
    monkeypatch.delitem(TRANSPORTS, "grpc", raising=False)
    parser = argparse.ArgumentParser()
    test_command.add_arguments(parser)
    words = ["--endpoints", etcd_single.endpoints[0], "--json", "--only", "kv.own-member"]
    assert test_command.main(parser.parse_args(words)) == 0
    assert json.loads(capsys.readouterr().out)["target"]["transport"] == "gateway"
    assert list(TRANSPORTS) == ["gateway"]


# ---- TLS


def test_tls_without_the_gateway(make_cluster: ClusterFactory, capsys: Capsys, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.sign("server", "127.0.0.1")
    trust = Security(cacert=authority.cert)
    cluster = make_cluster(1, tls=ServerTls(pair.cert, pair.key), security=trust, extra_args=NO_GATEWAY)
    (member,) = cluster.members
    assert probe.member_status(member, HANG_S, security=trust).is_leader
    assert probe.serves_reads(member.client_url, HANG_S, security=trust)
    named = ("--endpoints", member.client_url, "--cacert", authority.cert)
    found, _ = document(capsys, "cluster", "status", *named)
    assert (found["quorum"], found["members"][0]["role"]) == (True, "leader")
    report, _ = document(capsys, "cluster", "test", *named, "--only", "kv.own-member")
    assert (report["target"]["transport"], report["verdict"]) == ("grpc", "PASS")
    plain = Member("m", f"http://{member.endpoint}", "", "")
    with pytest.raises(NoAnswer, match=f"{member.endpoint} speaks TLS: use https://") as caught:
        probe.member_status(plain, HANG_S)
    assert caught.value.cause == "tls"
    with pytest.raises(NoAnswer, match="certificate not trusted"):
        probe.member_status(member, HANG_S)


def test_tls_asked_of_a_plain_one_without_http(make_cluster: ClusterFactory) -> None:
    port = take_ports(1)
    cluster = make_cluster(
        1, binary=newest_of("3.6"), extra_args=(f"--listen-client-http-urls=http://127.0.0.1:{port}",)
    )
    with pytest.raises(NoAnswer, match="TLS not spoken: it does not speak TLS; use http://"):
        probe.member_status(Member("m", f"https://{cluster.members[0].endpoint}", "", ""), HANG_S)


def test_a_user_by_certificate_is_known_over_grpc(make_cluster: ClusterFactory, capsys: Capsys, tmp_path: Path) -> None:
    """The gateway takes no client certificate with a common name while auth is on."""
    authority = Authority(tmp_path)
    server, client = authority.sign("server", "127.0.0.1"), authority.sign("root", "127.0.0.1")
    trust = Security(cacert=authority.cert, cert=client.cert, key=client.key)
    cluster = make_cluster(1, tls=ServerTls(server.cert, server.key, authority.cert), security=trust, extra_args=LOGINS)
    (member,) = cluster.members
    with with_auth(cluster, trust):
        named = ("--cacert", authority.cert, "--cert", client.cert, "--key", client.key)
        found, err = document(capsys, "cluster", "status", "--endpoints", member.client_url, *named)
        assert (found["quorum"], found["members"][0]["role"]) == (True, "leader"), err
