"""The line that repeats a run."""

from __future__ import annotations

import pytest

from cluster.schema import repeat


@pytest.mark.parametrize(
    ("command", "seed", "expected"),
    [
        (["/opt/bin/raftload", "chaos"], 1, "raftload chaos --seed 1"),
        (["raftload", "chaos", "--seed", "7", "--output", "runs/mine"], 7, "raftload chaos --seed 7"),
        (["raftload", "bench", "--output=x", "--seed=3", "--json"], 3, "raftload bench --seed=3 --json"),
        (["raftload", "web"], 3, "raftload web"),
        (["raftload", "bench", "--threshold", "put.p99_ms < 50"], None, "raftload bench --threshold 'put.p99_ms < 50'"),
        ([], 1, ""),
    ],
)
def test_the_seed_is_explicit_and_the_folder_that_exists_is_left_out(
    command: list[str], seed: int | None, expected: str
) -> None:
    assert repeat.line(repeat.words(command, seed), {}) == expected


def test_the_etcd_that_ran_is_named_wherever_it_was_found() -> None:
    variables = repeat.environment("embedded", "/opt/my etcd", {"RAFTLOAD_ETCD": "./my etcd", "ETCDCTL_USER": "me"})
    assert variables == {"RAFTLOAD_ETCD": "/opt/my etcd"}
    assert repeat.line(["raftload", "chaos"], variables) == "RAFTLOAD_ETCD='/opt/my etcd' raftload chaos"
    for given in (["--etcd", "3.6.16"], ["--etcd=3.6.16"]):
        assert repeat.line(["raftload", "chaos", *given], variables) == " ".join(["raftload chaos", *given])


def test_of_a_cluster_of_others_the_variables_of_etcdctl_matter_and_no_secret_is_kept() -> None:
    env = {
        "ETCDCTL_API": "3", "ETCDCTL_CACERT": "/ca.pem", "ETCDCTL_ENDPOINTS": "a:2379", "ETCDCTL_USER": "root:secret",
        "RAFTLOAD_ETCD": "3.6.16", "ETCDCTL_CERT": "",
    }  # fmt: skip
    variables = repeat.environment("external", None, env)
    assert variables == {
        "ETCDCTL_CACERT": "/ca.pem", "ETCDCTL_ENDPOINTS": "a:2379", "ETCDCTL_USER": "root", "ETCDCTL_PASSWORD": None,
    }  # fmt: skip
    assert repeat.line(["raftload", "bench", "--endpoints", "b:1"], variables) == (
        'ETCDCTL_CACERT=/ca.pem ETCDCTL_USER=root ETCDCTL_PASSWORD="$ETCDCTL_PASSWORD" raftload bench --endpoints b:1'
    )
    named = repeat.environment("external", None, {"ETCDCTL_USER": "system:master", "ETCDCTL_PASSWORD": "secret"})
    assert named == {"ETCDCTL_PASSWORD": None, "ETCDCTL_USER": "system:master"}
