"""The members of a cluster and the command line of each."""

from __future__ import annotations

import dataclasses

import pytest

from cluster.base.binary import version_note
from cluster.base.etcd_values import prefix_end
from cluster.base.topology import ClusterSpec, Member, etcd_flag, local_members, member_env, member_names
from cluster.observe.probe import MemberStatus, agreed_leader


def spec(nodes: int = 3, **settings: int | str | tuple[str, ...]) -> ClusterSpec:
    members = local_members(range(2379, 2379 + nodes), range(3379, 3379 + nodes), "/data")
    return dataclasses.replace(ClusterSpec(members), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("quota-backend-bytes=1", "--quota-backend-bytes=1"), ("--v2-deprecation=gone", "--v2-deprecation=gone"),
        ("cors=", "--cors="), ("auth-token=jwt,a=b,c=d e", "--auth-token=jwt,a=b,c=d e"),
    ],
)  # fmt: skip
def test_an_option_of_etcd(text: str, flag: str) -> None:
    assert etcd_flag(text) == flag


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not an option of etcd"), ("x", "is not an option of etcd"), ("-x=1", "is not an option of etcd"),
        ("X=1", "is not an option of etcd"), ("=1", "is not an option of etcd"), ("a b=1", "is not an option of etcd"),
        ("name=x", "raftload sets etcd's --name itself"), ("--data-dir=x", "raftload sets etcd's --data-dir itself"),
    ],
)  # fmt: skip
def test_what_is_no_option_of_etcd_or_ours_to_decide(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        etcd_flag(text)


def test_members_are_named_and_addressed_in_order() -> None:
    first, second = local_members([2379, 2380], [3001, 3002], "/data/")
    assert first == Member("etcd-node1", "http://127.0.0.1:2379", "http://127.0.0.1:3001", "/data/etcd-node1")
    assert second.name == "etcd-node2"
    assert second.endpoint == "127.0.0.1:2380"


def test_argv_names_every_peer_and_logs_for_the_election_reader() -> None:
    argv = spec(3, token="t").argv("etcd-node2", "/bin/etcd")
    assert argv[0] == "/bin/etcd"
    assert "--name=etcd-node2" in argv
    assert "--listen-client-urls=http://127.0.0.1:2380" in argv
    assert "--initial-advertise-peer-urls=http://127.0.0.1:3380" in argv
    assert (
        "--initial-cluster=etcd-node1=http://127.0.0.1:3379,etcd-node2=http://127.0.0.1:3380,"
        "etcd-node3=http://127.0.0.1:3381" in argv
    )
    assert {"--logger=zap", "--log-level=info", "--log-outputs=stderr"} <= set(argv)


def test_settings_left_out_are_etcds_own() -> None:
    assert not [arg for arg in spec().argv("etcd-node1") if "heartbeat" in arg or "snapshot" in arg or "quota" in arg]


def test_settings_become_flags_and_extra_arguments_come_last() -> None:
    argv = spec(
        heartbeat_interval_ms=50, election_timeout_ms=500, snapshot_count=10, quota_backend_bytes=1 << 20,
        extra_args=("--max-txn-ops=7",),
    ).argv("etcd-node1")  # fmt: skip
    assert argv[-5:] == [
        "--heartbeat-interval=50",
        "--election-timeout=500",
        "--snapshot-count=10",
        "--quota-backend-bytes=1048576",
        "--max-txn-ops=7",
    ]


@pytest.mark.parametrize(("nodes", "quorum"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4)])
def test_quorum_is_a_majority(nodes: int, quorum: int) -> None:
    assert spec(nodes).quorum == quorum


def test_what_makes_no_cluster_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ClusterSpec(())
    with pytest.raises(ValueError, match="at least one member, not 0"):
        member_names(0)
    member = spec(1).members[0]
    with pytest.raises(ValueError, match="share a name"):
        ClusterSpec((member, member))
    with pytest.raises(ValueError, match="share a client_url"):
        ClusterSpec((member, dataclasses.replace(member, name="other", peer_url="http://127.0.0.1:1")))
    with pytest.raises(ValueError, match="less than five heartbeats"):
        spec(heartbeat_interval_ms=500)
    with pytest.raises(ValueError, match="must be positive"):
        spec(snapshot_count=0)
    with pytest.raises(KeyError):
        spec().argv("etcd-node9")


def test_etcd_reads_no_flags_from_the_environment() -> None:
    env = {"ETCD_DATA_DIR": "/precious", "ETCD_VERSION": "v3.5.10", "ETCDCTL_API": "3", "PATH": "/bin"}
    assert member_env(env, "x86_64") == {"ETCDCTL_API": "3", "PATH": "/bin"}
    assert member_env(env, "aarch64")["ETCD_UNSUPPORTED_ARCH"] == "arm64"


@pytest.mark.parametrize("version", ["3.5.0", "3.5.1", "3.5.2"])
def test_versions_with_the_inconsistency_bug_carry_a_note(version: str) -> None:
    assert "13766" in (version_note(version) or "")


@pytest.mark.parametrize("version", ["3.4.23", "3.5.3", "3.5.30", "3.6.0"])
def test_other_versions_carry_none(version: str) -> None:
    assert version_note(version) is None


@pytest.mark.parametrize(
    ("prefix", "end"), [(b"ab", b"ac"), (b"a\xff", b"b"), (b"a\xff\xff", b"b"), (b"\xff", b"\0"), (b"", b"\0")]
)
def test_prefix_end(prefix: bytes, end: bytes) -> None:
    assert prefix_end(prefix) == end


def status(member_id: int, leader_id: int) -> MemberStatus:
    answer = {"header": {"member_id": str(member_id), "revision": "7"}, "leader": str(leader_id), "raftTerm": "2"}
    return MemberStatus.from_gateway(answer, name=f"m{member_id}", endpoint="h:1")


def test_a_leader_counts_when_all_agree_on_it() -> None:
    assert agreed_leader([status(1, 2), status(2, 2), status(3, 2)]) == status(2, 2)
    assert agreed_leader([status(1, 2), status(2, 2), status(3, 3)]) is None
    assert agreed_leader([status(1, 2), status(3, 2)]) is None
    assert agreed_leader([status(1, 0), status(2, 0)]) is None


def test_what_the_gateway_leaves_out_is_zero() -> None:
    bare = MemberStatus.from_gateway({}, name="n", endpoint="h:1")
    assert (bare.member_id, bare.leader_id, bare.term, bare.revision, bare.errors) == (0, 0, 0, 0, ())
    assert not bare.is_leader
