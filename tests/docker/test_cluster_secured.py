"""`raftload cluster up --tls --auth` in Docker: who is served, what finds it, and that its secrets go with it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from cluster.base.access import Access
from cluster.base.errors import NoAnswer
from cluster.base.security import Security
from cluster.base.topology import Member
from cluster.observe.probe import member_status
from tests.docker.conftest import Docker

pytestmark = pytest.mark.docker


def test_certificates_and_users(engine: Docker, tmp_path: Path) -> None:
    made = engine.json("up", "--tls", "--auth")
    folder = Path(made["access"]["cacert"]).parent
    access = Access(str(folder), tls=True, auth=True)
    whole, password = access.security(), access.password("root")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    member = Member("", f"https://{made['endpoints'][0]}", "", "")
    assert member_status(member, security=whole).version
    with pytest.raises(NoAnswer, match="client certificate"):
        member_status(member, security=Security(cacert=whole.cacert))

    again = engine.json("up")
    assert (again["done"], again["access"]) == ("found", made["access"])
    for words in (("partition", "leader"), ("heal",), ("kill", "follower"), ("heal",), ("defrag", "all")):
        assert engine.json(*words)["quorum"], words
    assert engine.json("kill", "majority")["quorum"] is False
    assert engine.json("status", code=1)["quorum"] is False
    assert engine.json("heal")["quorum"]
    container = "docker exec -e ETCDCTL_USER -e ETCDCTL_PASSWORD etcd-node1 etcdctl"
    assert f"in the containers: {container}" in engine.run("up").stderr
    written = engine.docker("exec", "-e", f"ETCDCTL_USER=root:{password}", "etcd-node1", "etcdctl", "put", "a", "b")
    assert "OK" in written
    assert password not in engine.docker("inspect", "etcd-node1", "etcd-node2", "etcd-node3")

    elsewhere = engine.run("status", code=4, XDG_STATE_HOME=str(tmp_path / "another-user"))
    assert "by which the cluster is reached: it is missing, or belongs to another user" in elsewhere.stderr
    one = engine.json("up", "--nodes", "1")
    assert (one["done"], one["access"]["user"], one["quorum"]) == ("replaced", "root", True)
    assert not folder.exists()
    assert f"removed folder {Path(one['access']['cacert']).parent}" in engine.run("down").stdout
    assert not list((tmp_path / "raftload").glob("docker-*"))


def test_secrets_of_a_cluster_that_somebody_else_removed_go(engine: Docker, tmp_path: Path) -> None:
    def up(*words: str, done: str = "created") -> Path:
        made = engine.json("up", "--nodes", "1", "--auth", *words)
        assert made["done"] == done
        return Path(made["access"]["password_file"]).parent

    first = up("--data", "volume")
    engine.docker("rm", "-f", "etcd-node1")
    (tmp_path / "raftload" / "cluster-docker.json").unlink()  # now only the volume and the networks tell of it
    second = up("--replace", done="replaced")
    assert not first.exists()
    engine.docker("rm", "-f", "etcd-node1")
    engine.docker("network", "rm", "raftload-peers")
    refused = engine.run("up", "--nodes", "1", code=4).stderr
    assert "the network raftload-clients of another cluster is there" in refused and "did not make" not in refused
    assert second.exists()
    engine.docker("network", "rm", "raftload-clients")  # now only the record in the state folder tells of it
    third = up()
    assert not second.exists()
    engine.docker("rm", "-f", "etcd-node1")
    engine.docker("network", "rm", "raftload-peers", "raftload-clients")
    assert engine.run("down").stdout == f"removed folder {third}\n"
    assert not third.exists()


def test_an_image_whose_user_has_a_name(engine: Docker, tmp_path: Path) -> None:
    """It can read the keys, also where a link leads to the file with its number."""
    image = engine.json("up", "--nodes", "1")["image"]
    engine.run("down")
    (tmp_path / "users").write_text("root:x:0:0:root:/:/none\netcd:x:1234:1234:etcd:/:/none\n")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").symlink_to("../store/users")
    (tmp_path / "data").mkdir()
    (tmp_path / "Dockerfile").write_text(
        f"FROM {image}\nCOPY users /store/users\nCOPY etc /etc\nCOPY --chown=1234 data /var/lib/etcd\nUSER etcd\n"
    )
    named = "raftload-test-named-user:1"
    engine.docker("build", "-q", "-t", named, str(tmp_path))
    try:
        assert engine.json("up", "--nodes", "1", "--tls", "--image", named)["quorum"]
        engine.run("down")
    finally:
        engine.docker("rmi", named)
