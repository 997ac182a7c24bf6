"""`raftload diagnose`: what it prints, its exit codes, and that Ctrl-C leaves nothing behind.

What each cause is called, `tests/diagnose` shows.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import time
from pathlib import Path

import jsonschema
import pytest

from cluster.local.cluster import LocalCluster
from loadgen import schema
from loadgen.client.etcd import EtcdClient
from loadgen.diagnose.answer import LEAST_S, WORDS
from loadgen.diagnose.facts import PROBES
from tests.support import command
from tests.support.ports import take_ports

CODES: dict[str, int] = {word: {"healthy": 0, "unsure": 3}.get(word, 1) for word in WORDS}


def count_keys(cluster: LocalCluster) -> int:
    with contextlib.closing(EtcdClient(cluster.endpoints)) as client:
        return int(client.range(b"\0", b"\0", count_only=True).response.count)


def named(cluster: LocalCluster) -> tuple[str, str]:
    return "--endpoints", ",".join(cluster.endpoints)


def begun(process: subprocess.Popen[str]) -> str:
    """Wait until the probes have begun; return the line that says so."""
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "s of probes at" in line, line + process.stderr.read()
    return line


def test_the_document_and_the_exit_code(etcd_cluster: LocalCluster, tmp_path: Path) -> None:
    done = command.run("diagnose", *named(etcd_cluster), "--for", "6s", "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    jsonschema.validate(document, dict(schema.load("diagnosis")))
    assert done.returncode == CODES[document["cluster"]["word"]], done.stderr
    assert document["source"] == "probes"
    assert document["seconds"] >= 6
    assert [each["name"] for each in document["members"]] == [each.name for each in etcd_cluster.members]
    for member in document["evidence"]["members"]:
        assert set(member["probes"]) == set(PROBES)
    (said,) = done.stderr.splitlines()
    assert re.fullmatch(
        r"raftload: 6 s of probes at http://127\.0\.0\.1:.* \(--endpoints\): at most 20 requests a second, "
        r"with keys under [a-z0-9]{4}/, which are removed", said,
    )  # fmt: skip
    assert count_keys(etcd_cluster) == 0
    assert not list(tmp_path.iterdir())


def test_the_text_has_a_row_for_each_member(etcd_cluster: LocalCluster, tmp_path: Path) -> None:
    done = command.run("diagnose", *named(etcd_cluster), "--for", "5s", cwd=tmp_path, COLUMNS="80")
    said, _, table = done.stdout.partition("\n\n")
    head, *rows = table.splitlines()
    word = said.partition(":")[0]
    assert done.returncode == CODES[word], done.stderr
    assert head.split() == ["MEMBER", "ROLE", "ANSWER", "WHAT", "DECIDES"]
    starts = [row.split()[:3] for row in rows if row.startswith("etcd-node")]
    assert [name for name, _, _ in starts] == ["etcd-node1", "etcd-node2", "etcd-node3"]
    assert sorted(role for _, role, _ in starts) == ["follower", "follower", "leader"]
    assert {each for _, _, each in starts} <= set(WORDS)
    assert re.search(r"^evidence +\d+ s of probes at 3 members$", done.stdout, re.MULTILINE)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_some_seconds_has_them_judged(
    number: signal.Signals, etcd_cluster: LocalCluster, tmp_path: Path
) -> None:
    with command.start("diagnose", *named(etcd_cluster), "--json", cwd=tmp_path) as process:
        begun(process)
        time.sleep(LEAST_S + 0.5)
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number, err
    document = json.loads(out)
    jsonschema.validate(document, dict(schema.load("diagnosis")))
    assert LEAST_S <= document["seconds"] < 60
    assert err == ""
    assert count_keys(etcd_cluster) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_once_leaves_nothing_to_judge(
    number: signal.Signals, etcd_cluster: LocalCluster, tmp_path: Path
) -> None:
    with command.start("diagnose", *named(etcd_cluster), cwd=tmp_path) as process:
        begun(process)
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (128 + number, "")
    assert re.fullmatch(
        r"raftload: interrupted after [0-4]\.\d s: a diagnosis takes 5 s of probes at least\n", err
    ), err  # fmt: skip
    assert count_keys(etcd_cluster) == 0


def test_nobody_answers(tmp_path: Path) -> None:
    done = command.run("diagnose", "--endpoints", f"127.0.0.1:{take_ports(1)}", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (4, "")
    assert re.fullmatch(r"raftload: error: no endpoint answers: 127.*: connection refused: .*\n", done.stderr)


def test_a_dead_endpoint_among_live_ones_is_in_the_answer(etcd_single: LocalCluster, tmp_path: Path) -> None:
    dead = f"127.0.0.1:{take_ports(1)}"
    words = ("--endpoints", f"{etcd_single.endpoints[0]},{dead}", "--for", "5s", "--json")
    document = json.loads(command.run("diagnose", *words, cwd=tmp_path).stdout)
    assert [each["name"] for each in document["members"]] == ["etcd-node1", dead]
    assert any(note.startswith(f"{dead}: connection refused") for note in document["notes"])


def test_the_environment_names_the_endpoints(etcd_single: LocalCluster, tmp_path: Path) -> None:
    env = {"ETCDCTL_ENDPOINTS": ",".join(etcd_single.endpoints)}
    done = command.run("diagnose", "--for", "5s", "--json", cwd=tmp_path, **env)
    assert [each["name"] for each in json.loads(done.stdout)["members"]] == ["etcd-node1"], done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--for", "4s"), "--for: must be at least 5s"),
        (("--for", "much"), "--for"),
        (("--prefix", "ä"), "--prefix takes printable ASCII characters"),
        (("--prefix", ""), "--prefix takes printable ASCII characters"),
        (("--endpoints", "nowhere"), "--endpoints: "),
        (("--backend", "docker"), "unrecognized arguments: --backend"),
        (("runs/1", "--endpoints", "127.0.0.1:2379"), "RUN and --endpoints exclude each other"),
        (("runs/1", "--for", "10s"), "RUN and --for exclude each other"),
        (("runs/1", "--prefix", "mine/"), "RUN and --prefix exclude each other"),
        (("runs/1",), "runs/1"),
        (("latest",), "no run in "),
    ],
)
def test_what_makes_no_sense_is_refused(words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    done = command.run("diagnose", *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_run_is_judged_by_what_its_members_said(tmp_path: Path) -> None:
    loaded = command.run("bench", "--duration", "6s", "--rate", "100", "--output", "run", cwd=tmp_path)
    assert loaded.returncode == 0, loaded.stderr
    done = command.run("diagnose", "run", "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    jsonschema.validate(document, dict(schema.load("diagnosis")))
    assert done.returncode == CODES[document["cluster"]["word"]], done.stderr
    assert document["source"] == "run"
    assert document["evidence"]["load"]["rate"] > 0
    assert len(document["members"]) == 3
    text = command.run("diagnose", "latest", cwd=tmp_path)
    assert text.stdout.startswith(f"{document['cluster']['word']}: ")
    assert "latest is run" in text.stderr
    for each in (tmp_path / "run").glob("metrics.csv"):
        each.unlink()
    unknown = command.run("diagnose", "run", cwd=tmp_path)
    command.assert_refused(unknown, "run: nothing tells of the members during this run")
