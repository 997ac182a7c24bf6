"""`cluster test` as a command: what it prints and exits with."""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cluster import conformance, schema
from cluster.base import exits
from cluster.base.errors import NoAnswer
from cluster.cli import test as test_command
from cluster.local.cluster import LocalCluster
from cluster.observe import probe, running
from tests.conftest import ClusterFactory
from tests.support.command import assert_refused, run_at_terminal
from tests.support.ports import closed_port, take_ports
from tests.support.waiting import HANG_S, until


def command(*words: str) -> int:
    parser = argparse.ArgumentParser()
    test_command.add_arguments(parser)
    return test_command.main(parser.parse_args(words))


@pytest.fixture(autouse=True)
def no_surprises(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ETCDCTL_ENDPOINTS", "NODES", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def valid(text: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(text)
    jsonschema.Draft202012Validator(schema.load("conformance")).validate(document)
    return document


def test_json_is_one_valid_document(capsys: pytest.CaptureFixture[str]) -> None:
    """Two members: a majority to lose, and no leader to spare."""
    assert command("--backend", "embedded", "--nodes", "2", "--json", "--only", "kv", "failover", "quorum") == 0
    out, err = capsys.readouterr()
    document = valid(out)
    assert document["target"]["kind"] == "embedded"
    assert [member["name"] for member in document["target"]["members"]] == ["etcd-node1", "etcd-node2"]
    assert document["summary"] == {"pass": 6, "fail": 0, "unknown": 0, "skip": 1}
    verdicts = {test["name"]: test["verdict"] for test in document["tests"]}
    assert (verdicts["failover.leader-killed"], verdicts["quorum.lost"]) == ("SKIP", "PASS")
    assert document["verdict"] == "PASS"
    assert "2 members tolerate no more failures than 1" in err
    assert "for these tests" in err


def test_a_local_cluster_stays_until_it_is_cleaned_up(capsys: pytest.CaptureFixture[str]) -> None:
    port = take_ports(1)
    assert (
        command("--backend", "local", "--nodes", "1", "--base-port", str(port), "--json", "--only", "txn.branches") == 0
    )
    out, err = capsys.readouterr()
    assert valid(out)["target"]["kind"] == "local"
    assert f"the cluster keeps running; to use it: export ETCDCTL_ENDPOINTS=http://127.0.0.1:{port}" in err
    try:
        assert command("--json", "--only", "kv.own-member", "watch.compaction") == 0  # finds it
        out, err = capsys.readouterr()
        assert valid(out)["summary"]["pass"] == 2
        assert "found: 1 members, local" in err
    finally:
        assert command("--backend", "local", "--cleanup") == 0
    err = capsys.readouterr().err
    assert "removed process etcd-node1" in err
    assert err.startswith("raftload: --cleanup only removes the cluster, and no test is run\n")


def test_cleanup_says_that_it_only_removes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///none.sock")
    words = ("--nodes", "5", "--json", "--cleanup", "--only", "kv", "--base-port", "2379")
    assert command(*words) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"schema": "raftload.removed/1", "removed": []}
    assert err == (
        "raftload: --cleanup only removes the cluster, and no test is run; not used: --nodes, --base-port, --only\n"
        "raftload: nothing to remove\n"
    )


def test_down_removes_the_cluster_after_its_tests(capsys: pytest.CaptureFixture[str]) -> None:
    port = take_ports(1)
    words = ["--backend", "local", "--nodes", "1", "--base-port", str(port), "--down", "--only", "txn.compare"]
    assert command(*words) == 0
    err = capsys.readouterr().err
    assert "removed process etcd-node1" in err
    assert "stays" not in err


def test_without_docker_an_embedded_cluster_is_tested(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    none = f"no Docker Engine at unix://{tmp_path}/none.sock ($DOCKER_HOST): "
    assert command("--nodes", "1", "--json", "--only", "kv.own-member") == 0
    out, err = capsys.readouterr()
    document = valid(out)
    assert (document["target"]["kind"], document["summary"]["pass"]) == ("embedded", 1)
    assert f"{none}testing an embedded cluster instead; with --backend docker that is an error\n" in err
    assert "starting 1 members on 127.0.0.1 for these tests" in err and "keeps running" not in err


@pytest.mark.parametrize("asked", ["option", "image", "memory"])
def test_where_docker_was_asked_for_its_absence_is_an_error(
    asked: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    if asked == "image":
        monkeypatch.setenv("ETCD_IMAGE", "etcd:mine")
    if asked == "memory":
        running.save(
            running.Running(
                backend="docker", members=(), member_ids={}, version="", requested_version=None, image="", source="",
                created_at="2026-01-01T00:00:00+00:00",
            )
        )  # fmt: skip
    words = ("--backend", "docker") if asked == "option" else ()
    code = exits.run(lambda: command(*words, "--nodes", "1", "--only", "kv.own-member"))
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (4, "", 1)
    assert f"no Docker Engine at unix://{tmp_path}/none.sock ($DOCKER_HOST): install or start Docker, or " in err


def test_a_table_of_a_foreign_cluster(
    etcd_cluster: LocalCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETCDCTL_ENDPOINTS", ",".join(etcd_cluster.endpoints))
    assert command("--only", "txn", "watch.compaction", "quorum") == 0
    out, err = capsys.readouterr()
    assert "txn.branches             PASS" in out
    assert "watch.compaction         SKIP           -  would disturb others" in out
    assert out.splitlines()[-1].startswith("PASS: 5 PASS, 0 FAIL, 0 UNKNOWN, 2 SKIP in ")
    assert max(map(len, out.splitlines())) <= 100
    assert "export ETCDCTL_ENDPOINTS=http://127.0.0.1:" in err


def test_destructive_compacts_a_foreign_cluster_and_still_cannot_kill_it(
    etcd_single: LocalCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--endpoints", etcd_single.endpoints[0], "--destructive", "--json", "--only", "watch.compaction", "quorum"]
    assert command(*words) == 0
    verdicts = {test["name"]: test["verdict"] for test in valid(capsys.readouterr().out)["tests"]}
    assert verdicts == {"watch.compaction": "PASS", "quorum.lost": "SKIP"}


def test_a_dead_endpoint_is_named(etcd_single: LocalCluster, capsys: pytest.CaptureFixture[str]) -> None:
    dead = closed_port()
    endpoints = f"{dead},{etcd_single.endpoints[0]}"
    assert command("--endpoints", endpoints, "--json", "--only", "kv.own-member") == 3
    out, err = capsys.readouterr()
    assert [entry["endpoint"] for entry in valid(out)["target"]["unreachable"]] == [dead]
    assert f"warning: {dead} does not answer" in err
    with pytest.raises(NoAnswer, match="no cluster to test"):
        command("--endpoints", dead)


def test_a_member_under_two_names_counts_once_where_there_is_no_quorum(
    make_cluster: ClusterFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = make_cluster(2)
    left, gone = cluster.members
    cluster.kill(gone.name)
    until(lambda: probe.member_status(left, HANG_S).leader_id == 0, "the leader to step down")
    port = left.endpoint.rpartition(":")[2]
    words = ("--endpoints", f"{left.endpoint},localhost:{port},{gone.endpoint}", "--json", "--only", "kv.own-member")
    assert command(*words) == 3
    (only,) = valid(capsys.readouterr().out)["tests"]
    assert only["reason"] == "there is no quorum: 1 of 2 members answer"


def test_the_etcd_that_is_asked_for_is_asked_for_its_version_once(
    etcd_binary: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, etcd = tmp_path / "asked", tmp_path / "etcd"
    etcd.write_text(f'#!/bin/sh\n[ "$1" != --version ] || echo >> {asked}\nexec {etcd_binary} "$@"\n')
    etcd.chmod(0o755)
    words = ("--backend", "embedded", "--nodes", "1", "--etcd", str(etcd), "--only", "kv.own-member")
    assert command(*words) == 0
    assert asked.read_text() == "\n"
    assert f"from {etcd}" in capsys.readouterr().err


def test_a_password_is_asked_for_once(tmp_path: Path) -> None:
    words = ("cluster", "test", "--endpoints", closed_port(), "--user", "somebody")
    done = run_at_terminal(*words, cwd=tmp_path, question="Password of somebody: ", answer="secret")
    assert done.returncode == 4, done.stderr
    assert done.stderr.count("Password of") == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--only", "kw"], "no test or group of tests 'kw'"),
        (["--endpoints", "nonsense"], "malformed endpoint 'nonsense'"),
        (["--endpoints", ","], "no endpoint is named"),
        (["--nodes", "0"], "--nodes must be a whole number from 1 to 99, not '0'"),
        (["--nodes", "many"], "--nodes must be"),
        (["--endpoints", "127.0.0.1:1", "--down"], "--endpoints is for an existing cluster"),
        (["--user", "root"], "--user needs a password"),
        (["--cert", __file__], "--cert and --key go together"),
    ],
)
def test_bad_input_is_one_line_and_exits_2(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = exits.run(lambda: command(*words))
    assert_refused(subprocess.CompletedProcess(words, code, *capsys.readouterr()), line)


def test_the_list_names_every_test_and_its_promise(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(conformance.TESTS)
    assert any(line.startswith("lease.expiry ") for line in lines)
