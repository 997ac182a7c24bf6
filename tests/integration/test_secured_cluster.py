"""`raftload cluster up --tls --auth` on processes: what it makes, who is served, and what finds it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import ssl
import stat
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.base.access import Access
from cluster.base.certificates import Authority
from cluster.base.errors import ClusterError, EtcdError, NoAnswer
from cluster.base.security import Security
from cluster.base.topology import Member
from cluster.gateway import users
from cluster.local.cluster import LocalCluster
from cluster.observe import running
from cluster.observe.calls import json_call
from cluster.observe.probe import member_status
from loadgen.run.target import security_of
from tests.support import fronts
from tests.support.command import ClusterCommands, called, run, run_at_terminal, start
from tests.support.ports import take_ports
from tests.support.processes import arguments
from tests.support.waiting import HANG_S


class Secured(ClusterCommands):
    """`raftload …` with a state folder of its own and the cluster that is up, if it is.

    Attributes: ``said``, what `up` printed on stderr.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, DOCKER_HOST=f"unix://{folder}/no-docker.sock")
        self.port = take_ports(3)
        self.said = ""

    def up(self, *words: str) -> subprocess.CompletedProcess[str]:
        done = self.run("up", "--backend", "local", "--base-port", str(self.port), *words)
        self.said = done.stderr
        return done

    @property
    def running(self) -> running.Running:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_STATE_HOME", str(self.folder))
            found = running.find_running()
        assert found is not None
        return found

    @property
    def access(self) -> Access:
        return self.running.access

    def raftload(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Return what another command than those of `cluster` prints, from the folder of this object."""
        return run(*words, cwd=self.folder, **{**self.env, **env})

    def exported(self) -> dict[str, str]:
        """Return the environment that `up` told its reader to set."""
        return environment_after(next(line for line in self.said.splitlines() if "export ETCDCTL_ENDPOINTS=" in line))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Three members with TLS and authentication, behind relays."""
    made = Secured(tmp_path_factory.mktemp("secured"))
    try:
        made.up("--tls", "--auth")
        yield made
    finally:
        made.run("down", code=None)


@pytest.fixture
def inside(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> Secured:
    """The same, also for commands that are called in this process."""
    for name, value in secured.env.items():
        monkeypatch.setenv(name, value)
    return secured


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Secured]:
    """A state folder for a cluster of its own."""
    made = Secured(tmp_path)
    yield made
    made.run("down", code=None)


def environment_after(line: str) -> dict[str, str]:
    """Return etcdctl's variables after a shell has run the command that a line ends with."""
    command = f"export{line.partition('export')[2]}; env -0"
    done = subprocess.run(["sh", "-c", command], env={"PATH": os.defpath}, capture_output=True, text=True, check=True)
    pairs = (each.split("=", 1) for each in done.stdout.rstrip("\0").split("\0"))
    return {name: value for name, value in pairs if name.startswith("ETCDCTL_")}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def holders(folder: Path, *secrets: str) -> list[str]:
    """Return the files under a folder that have one of these texts."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and any(
        secret.encode() in path.read_bytes() for secret in secrets)]  # fmt: skip


def test_secrets_are_for_their_owner_alone(secured: Secured) -> None:
    folder = Path(secured.access.folder)
    assert mode(folder) == 0o700
    private = {path.name for path in folder.iterdir() if mode(path) == 0o600}
    assert private == {"server-key.pem", "peer-key.pem", "client-key.pem", "root.password", "client.password"}
    assert {path.name for path in folder.iterdir()} - private == {"ca.pem", "server.pem", "peer.pem", "client.pem"}
    passwords = [secured.access.password(user) for user in ("root", "client")]
    assert len(set(passwords)) == 2 and all(len(each) == 32 for each in passwords)
    assert holders(secured.folder, *passwords) == []  # the state folder
    shown = [word for words in arguments().values() for word in words]
    assert not [word for word in shown for each in passwords if each.encode() in word]


def test_certificates_name_the_members_and_loopback(secured: Secured) -> None:
    decoded: Any = ssl._ssl._test_decode_cert(f"{secured.access.folder}/server.pem")  # type: ignore[attr-defined]
    assert {value for _, value in decoded["subjectAltName"]} == {
        "localhost", "127.0.0.1", "0:0:0:0:0:0:0:1", "etcd-node1", "etcd-node2", "etcd-node3"
    }  # fmt: skip


def test_nobody_is_served_without_certificate_and_user(secured: Secured) -> None:
    member, whole = secured.running.members[0], secured.access.security()
    assert member_status(member, HANG_S, whole).version
    with pytest.raises(NoAnswer, match="client certificate"):
        member_status(member, HANG_S, Security(cacert=whole.cacert))
    with pytest.raises(NoAnswer, match="not trusted"):
        member_status(member, HANG_S, Security())
    question = (member.client_url, "/v3/kv/range", b'{"key":"YQ=="}', HANG_S)
    with pytest.raises(EtcdError, match=r"UserEmpty|PermissionDenied"):
        json_call(*question, secured.access.security(login=False))
    assert json_call(*question, whole)
    peer = Member("", member.peer_listen_url, "", "")
    with pytest.raises(NoAnswer, match="client certificate"):
        member_status(peer, HANG_S, Security(cacert=whole.cacert))


def test_users_are_made_also_where_each_answer_is_lost_once(
    make_cluster: Callable[..., LocalCluster], tmp_path: Path
) -> None:
    cluster = make_cluster(1)
    access = Access.make(tmp_path / "access", (), tls=False, auth=True)
    steps = ("UserAdd", "RoleAdd", "UserGrantRole", "RoleGrantPermission", "AuthEnable")
    asked: list[str] = []
    lost = [f"Auth/{each}" for each in steps]
    with fronts.denying(cluster.members[0].endpoint, asked=asked, lost=lost) as front:
        users.enable_auth([front], access, HANG_S)
    assert [asked.count(each) for each in lost] == [3, 3, 3, 2, 2]  # of two users, and once more
    with pytest.raises(EtcdError, match=r"UserEmpty|PermissionDenied"):
        json_call(cluster.endpoints[0], "/v3/kv/range", b'{"key":"YQ=="}')
    assert member_status(cluster.members[0], security=access.security()).is_leader


def test_up_says_how_to_reach_it_and_says_it_again(secured: Secured) -> None:
    whole = secured.access.security()
    assert secured.exported() == {
        "ETCDCTL_ENDPOINTS": ",".join(secured.running.endpoints), "ETCDCTL_CACERT": whole.cacert,
        "ETCDCTL_CERT": whole.cert, "ETCDCTL_KEY": whole.key, "ETCDCTL_USER": "root",
        "ETCDCTL_PASSWORD": whole.password,
    }  # fmt: skip
    assert "raftload: raftload" not in secured.said
    first = secured.exported()
    client = environment_after(next(line for line in secured.said.splitlines() if "export ETCDCTL_USER=" in line))
    assert client == {"ETCDCTL_USER": "client", "ETCDCTL_PASSWORD": secured.access.password("client")}
    assert not [user for user in ("root", "client") if secured.access.password(user) in secured.said]
    assert "found in" in secured.up().stderr  # without the options: it is as it is
    assert secured.exported() == first
    document = secured.json("up", "--backend", "local", "--tls", "--auth")
    assert document["access"] == {
        "cacert": whole.cacert, "cert": whole.cert, "key": whole.key, "user": "root",
        "password_file": f"{secured.access.folder}/root.password",
    }  # fmt: skip
    assert str(whole.password) not in json.dumps(document)


def test_status_and_faults_find_it(secured: Secured) -> None:
    assert secured.json("status")["quorum"]
    for words in (("kill", "leader"), ("partition", "follower")):
        assert secured.json(*words)["members"], words
    assert secured.json("heal")["quorum"]
    assert secured.json("partition", "leader")["quorum"]  # the relay reads who calls through TLS
    assert secured.json("heal")["quorum"]
    assert secured.json("transfer-leader", "follower")["quorum"]
    assert secured.json("defrag", "all")["quorum"]


def test_a_load_finds_it_and_keeps_its_secrets(secured: Secured) -> None:
    done = secured.raftload("bench", "--operations", "60", "--output", "load", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["target"]["kind"], document["results"]["total"]["failed"]) == ("local", 0)
    assert len(document["target"]["members"]) == 3
    rows = (secured.folder / "load" / "metrics.csv").read_text().splitlines()
    assert {row.split(",")[2] for row in rows[1:]} == {"etcd-node1", "etcd-node2", "etcd-node3"}
    assert holders(secured.folder / "load", secured.access.password("root")) == []


def test_chaos_finds_it(secured: Secured) -> None:
    done = secured.raftload(
        "chaos", "--backend", "local", "--faults", "partition-leader", "--rounds", "1", "--every", "1s",
        "--concurrency", "6", "--output", "chaos", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == "pass"
    assert holders(secured.folder / "chaos", secured.access.password("root")) == []


def test_the_tests_and_the_pictures_find_it(inside: Secured, capsys: pytest.CaptureFixture[str]) -> None:
    done = called(capsys, "cluster", "test", "--only", "kv", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["summary"]["fail"] == 0
    picture = called(capsys, "viz", "--type", "cluster-status", "--format", "json")
    assert picture.returncode == 0, picture.stderr
    assert {each["role"] for each in json.loads(picture.stdout)["members"]} == {"leader", "follower"}


def test_a_password_is_asked_for_once(secured: Secured) -> None:
    words = ("cluster", "test", "--only", "kv.own-member", "--user", "client")
    done = run_at_terminal(
        *words, cwd=secured.folder, question="Password of client: ", answer=secured.access.password("client"),
        **secured.env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Password of") == 1


def test_the_tests_look_for_the_cluster_once(
    inside: Secured, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cacert = str(inside.access.security().cacert)
    asked: list[object] = []
    find = running.find_running

    def counted(*given: Any, **named: Any) -> running.Running | None:
        asked.append((given, named))
        return find(*given, **named)

    monkeypatch.setattr(running, "find_running", counted)
    assert called(capsys, "cluster", "test", "--only", "kv.own-member", "--cacert", cacert).returncode == 0
    assert len(asked) == 1


def test_how_to_use_somebody_elses_cluster(inside: Secured, capsys: pytest.CaptureFixture[str]) -> None:
    """What was given, but for the password; `cluster up` does not know that cluster."""
    whole = inside.access.security()
    files = [f"--{name}={getattr(whole, name)}" for name in ("cacert", "cert", "key")]
    endpoints = ",".join(inside.running.endpoints)
    login = f"client:{inside.access.password('client')}"
    done = called(
        capsys, "cluster", "test", "--only", "kv.own-member", "--endpoints", endpoints, *files, "--user", login
    )
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stderr.splitlines() if "the cluster keeps running" in line)
    assert environment_after(line) == {
        "ETCDCTL_ENDPOINTS": endpoints, "ETCDCTL_CACERT": whole.cacert, "ETCDCTL_CERT": whole.cert,
        "ETCDCTL_KEY": whole.key, "ETCDCTL_USER": "client", "ETCDCTL_PASSWORD": "…",
    }  # fmt: skip
    assert inside.access.password("client") not in done.stderr


def test_options_by_hand_win(inside: Secured, tmp_path: Path) -> None:
    other = Authority(tmp_path).cert
    refused = inside.run("status", "--cacert", other, code=4)
    assert "certificate not trusted" in refused.stderr
    allowed = inside.run("status", "--user", "client", ETCDCTL_PASSWORD=inside.access.password("client"))
    assert "3 of 3 members answer" in allowed.stderr
    wrong = inside.run("status", "--user", "root", code=4, ETCDCTL_PASSWORD="guessed")
    assert "login of root" in wrong.stderr
    assert inside.run("status", code=0, ETCDCTL_CACERT=other).returncode == 0  # which is about other endpoints


def test_its_endpoints_are_reached_as_it_is_also_where_they_are_named(
    inside: Secured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    urls = inside.running.endpoints
    bare = [url.removeprefix("https://") for url in urls]
    for named in (",".join(urls), bare[0]):
        done = inside.run("status", "--endpoints", named)
        assert f"{named.count(',') + 1} of {named.count(',') + 1} members answer" in done.stderr
    picture = called(capsys, "viz", "--type", "cluster-status", "--format", "json", "--endpoints", ",".join(bare))
    assert picture.returncode == 0, picture.stderr
    assert len(json.loads(picture.stdout)["members"]) == 3
    load = inside.raftload("bench", "--operations", "20", "--workers", "1", "--endpoints", bare[0], "--json")
    assert load.returncode == 0, load.stderr
    assert json.loads(load.stdout)["target"]["kind"] == "external"
    tested = called(capsys, "cluster", "test", "--only", "kv.own-member", "--json", "--endpoints", ",".join(urls))
    assert tested.returncode == 0, tested.stderr
    # What is said by hand wins, and other endpoints get nothing of it.
    refused = inside.run("status", "--endpoints", bare[0], "--cacert", Authority(tmp_path).cert, code=4)
    assert "certificate not trusted" in refused.stderr
    assert "speaks TLS" in inside.run("status", "--endpoints", f"http://{bare[0]}", code=4).stderr
    whole = inside.access.security()
    client = running.security_at(bare[0], argparse.Namespace(user="client:secret"))
    assert client == dataclasses.replace(whole, user="client", password="secret")
    for others in ("127.0.0.1:1", f"{bare[0]},127.0.0.1:1", "127.0.0.1", ""):
        assert running.security_at(others, argparse.Namespace()) == Security()


def test_how_to_reach_it_is_known_also_while_no_member_answers(inside: Secured) -> None:
    reached = inside.access.security()
    try:
        inside.run("pause", "all", code=None)
        assert running.find_running() is None
        assert security_of("local", argparse.Namespace()) == reached
    finally:
        inside.run("heal")


def test_either_alone_and_kept_where_the_cluster_grows(
    one: Secured, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one.up("--nodes", "1", "--tls")
    assert (one.access.tls, one.access.auth) == (True, False)
    assert "ETCDCTL_USER" not in one.said
    first = Path(one.access.folder)
    assert one.json("status")["quorum"]
    one.up("--auth")
    assert "replacing the cluster that is there" in one.said
    assert (one.access.tls, one.access.auth, len(one.running.members)) == (True, True, 3)
    assert not first.exists()
    one.up("--no-tls", "--nodes", "1")
    assert (one.access.tls, one.access.auth) == (False, True)
    assert one.running.endpoints == (f"http://127.0.0.1:{one.port}",)
    assert {"ETCDCTL_USER", "ETCDCTL_PASSWORD", "ETCDCTL_ENDPOINTS"} == one.exported().keys()
    assert one.json("status")["quorum"]
    folder = Path(one.access.folder)
    one.run("down")
    assert not folder.exists()


def test_what_is_for_its_owner_goes_also_from_a_given_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with LocalCluster(1, data_dir=folder, with_tls=True, with_auth=True) as cluster:
        assert Path(cluster.access.folder).parent == folder
    assert [path.name for path in folder.iterdir() if path.name not in ("etcd-node1", "logs")] == []


def test_half_made_certificates_go(tmp_path: Path) -> None:
    """A certificate takes no such host name, which is found out after the first files were written."""
    folder = tmp_path / "of a cluster" / "access"
    with pytest.raises(ValueError, match=r"."):
        Access.make(folder, ("é",), tls=True, auth=True)
    assert not folder.exists()
    folder.mkdir()
    (folder / "kept").touch()
    with pytest.raises(ClusterError, match=r"cannot write certificates and passwords to .*: File exists"):
        Access.make(folder, (), tls=True, auth=True)
    assert (folder / "kept").exists()


@pytest.mark.parametrize("words", [("status",), ("test", "--backend", "local"), ("test", "--backend", "embedded")])
def test_without_a_secured_cluster_the_options_are_refused(
    one: Secured, words: tuple[str, ...], tmp_path: Path
) -> None:
    done = one.run(*words, "--cacert", Authority(tmp_path).cert, code=2)
    assert "--cacert is only for a cluster given with --endpoints" in done.stderr


def test_the_web_page_finds_it_and_breaks_it(secured: Secured) -> None:
    with start("web", "--web-port", "0", "--workers", "1", cwd=secured.folder, **secured.env) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "open http" in line)
            page = line.split()[2] + "/cluster"
            with urllib.request.urlopen(f"{page}/events", timeout=HANG_S) as events:
                seen: Any = {}
                while not seen.get("members"):
                    text = events.readline().decode()
                    seen = json.loads(text.removeprefix("data: ")) if text.startswith("data: ") else seen
            assert seen["ours"] and {each["role"] for each in seen["members"]} == {"leader", "follower"}
            with urllib.request.urlopen(page, timeout=HANG_S) as html:
                token = html.read().decode().partition('name="raftload-token" content="')[2].partition('"')[0]
            order = urllib.request.Request(
                f"{page}/act", json.dumps({"fault": "kill", "member": "etcd-node1"}).encode(),
                {"Content-Type": "application/json", "X-Raftload-Token": token},
            )  # fmt: skip
            with urllib.request.urlopen(order, timeout=HANG_S) as answer:
                assert json.load(answer)["quorum"]
            assert secured.json("heal")["quorum"]
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=HANG_S)
