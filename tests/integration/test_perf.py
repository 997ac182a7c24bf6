"""`raftload perf` on a real etcd: its load, its prefix, each mark missed, and what it leaves behind.

etcdctl's check takes a minute; here the load is of some seconds, which no option says. `python -m tests.soak.perf`
holds the whole of it against etcdctl.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cluster.local.cluster import LocalCluster
from loadgen import schema
from loadgen.client.etcd import EtcdClient
from loadgen.client.kv import bytes_prefix_end
from loadgen.perf import loads
from tests.soak.perf import form, missed, refuse, stall
from tests.support import command
from tests.support.command import assert_refused, until_load
from tests.support.relay import relay
from tests.support.started import remembered

ClusterFactory = Callable[..., LocalCluster]
PERF, DATASCALE = b"/etcdctl-check-perf/", b"/etcdctl-check-datascale/"
# Endpoints, seconds, whether the keys stay, engine, workers.
PROGRAM = """
import dataclasses, sys
from pathlib import Path
from loadgen.perf import checking, etcdctl_form, loads
from loadgen.run import Hooks, TargetOptions, WorkerOptions

where, seconds, keep, engine, count = sys.argv[1:]
check, workers = dataclasses.replace(loads.perf("s"), seconds=float(seconds)), WorkerOptions(int(count))
plan = checking.plan_of(check, workers)
plan = dataclasses.replace(plan, keep=keep == "keep", settings=dataclasses.replace(plan.settings, engine=engine))
folder = Path("run")
(folder / "logs").mkdir(parents=True)
result = checking.run(folder, check, plan, TargetOptions.at(where), workers, Hooks())
print(*etcdctl_form.ended(result), sep="\\n")
"""


def start(
    folder: Path, endpoints: str, seconds: float, keep: str = "", engine: str = "auto", workers: int = 2
) -> subprocess.Popen[str]:
    """Start load `s` of other seconds, in the folder ``run``; it prints what etcdctl would."""
    return remembered(subprocess.Popen(
        [sys.executable, "-c", PROGRAM, endpoints, str(seconds), keep, engine, str(workers)], cwd=folder, text=True,
        env={**os.environ, "PYTHONPATH": str(command.ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ))  # fmt: skip


def ended(process: subprocess.Popen[str], folder: Path) -> tuple[list[str], dict[str, Any]]:
    """Return what it printed, and its result."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    result: dict[str, Any] = json.loads((folder / "run" / "result.json").read_text())
    jsonschema.validate(result, schema.load("result"))
    jsonschema.validate(json.loads((folder / "run" / "run.json").read_text()), schema.load("run"))
    return out.splitlines(), result


def under(cluster: LocalCluster, prefix: bytes) -> list[tuple[int, int]]:
    """Return the bytes of each key and value under a prefix."""
    client = EtcdClient(cluster.endpoints)
    try:
        found = client.range(prefix, bytes_prefix_end(prefix)).response.kvs
        return [(len(each.key), len(each.value)) for each in found]
    finally:
        client.close()


# ---- the load


@pytest.mark.parametrize("engine", ["python", pytest.param("compiled", marks=pytest.mark.core)])
def test_the_load_is_etcdctls(make_cluster: ClusterFactory, tmp_path: Path, engine: str) -> None:
    """The keys stay here, so that they can be counted: a new one for each put."""
    cluster = make_cluster(1)
    lines, result = ended(start(tmp_path, cluster.endpoints[0], 2, "keep", engine), tmp_path)
    assert result["generator"]["engine"] == engine
    put, run = result["results"]["put"], result["run"]
    assert put["operations"] + result["generator"]["dropped"] == 300
    assert result["generator"]["in_flight_max"] <= 50
    assert (run["rate"], run["users"], run["connections"], run["max_in_flight"]) == (150, 50, 25, 50)
    assert run["prefix"] == PERF.decode()
    assert under(cluster, PERF) == [(20 + 256, 1024)] * put["succeeded"]
    perf = result["perf"]
    assert [mark["name"] for mark in perf["marks"]] == ["errors", "throughput", "slowest", "stddev"]
    service = put["latency"]["service"]
    assert [mark["value"] for mark in perf["marks"]][2:] == [service["max_ms"], service["stddev_ms"]]
    assert 0 < service["stddev_ms"] < service["max_ms"]
    (member,) = perf["members"]
    assert member["role"] == "leader"
    assert member["rss_after"] > 0 and member["db_size_after"] > 0
    assert lines[-1] == {"pass": "PASS", "fail": "FAIL"}[result["verdict"]]


def test_the_prefix_is_empty_before_and_after(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    cluster = make_cluster(3)
    _, result = ended(start(tmp_path, ",".join(reversed(cluster.endpoints)), 1), tmp_path)
    assert result["problems"] == []
    assert result["results"]["put"]["succeeded"] > 0
    assert under(cluster, PERF) == []
    # The mark of the memory is of the first endpoint's member.
    names = ["etcd-node3", "etcd-node2", "etcd-node1"]
    assert [each["name"] for each in result["target"]["members"]] == names
    assert [each["name"] for each in result["perf"]["members"]] == names
    # Of a folder the result is built anew.
    again = command.run("report", "run", "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["perf"] == result["perf"]


def test_keys_under_the_prefix_are_refused_and_kept(etcd_single: LocalCluster, tmp_path: Path) -> None:
    where = etcd_single.endpoints[0]
    client = EtcdClient([where])
    client.put(b"/mine/there", b"x")
    done = command.run("perf", "--prefix", "/mine/", "--endpoints", where, cwd=tmp_path)
    assert_refused(done, "--prefix /mine/ has keys: delete them with `etcdctl del --prefix /mine/` first")
    assert client.get(b"/mine/there").response.kvs[0].value == b"x"
    client.delete(b"/mine/there")
    client.close()


# ---- each mark


def test_a_stall_is_the_slowest_put(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    """Of 600 ms, by SIGSTOP: what a put that is open then takes."""
    cluster = make_cluster(1)
    process = start(tmp_path, cluster.endpoints[0], 8)
    until_load(process, tmp_path / "run")
    stall(cluster)
    lines, result = ended(process, tmp_path)
    assert "slowest" in missed(lines)
    assert form(lines)[-3].startswith("Slowest request took too long: Ns")
    (mark,) = [each for each in result["perf"]["marks"] if each["name"] == "slowest"]
    assert mark["value"] >= 550  # of the 600, what was left when it was sent
    assert mark["reason"].endswith(" ms over 500 ms")
    assert result["perf"]["members"][0]["round_trip_max_ms"] is not None


def test_errors_are_counted_as_etcd_words_them(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    cluster = make_cluster(1)
    process = start(tmp_path, cluster.endpoints[0], 8)
    until_load(process, tmp_path / "run")
    refuse(cluster)
    lines, result = ended(process, tmp_path)
    failed = result["results"]["put"]["failed"]
    assert failed > 0
    assert lines[:2] == [
        "FAIL: too many errors", f"FAIL: ERROR(etcdserver: mvcc: database space exceeded) -> {failed}"
    ]  # fmt: skip
    assert (lines[-1], result["verdict"]) == ("FAIL", "fail")


def test_answers_that_come_late_keep_50_clients_from_the_rate(etcd_single: LocalCluster, tmp_path: Path) -> None:
    """At 0.4 s each they reach 125 puts/s; what is due while all wait is not sent."""
    with relay(etcd_single.endpoints[0], 0.4) as address:
        lines, result = ended(start(tmp_path, address, 3, workers=3), tmp_path)
    assert "throughput" in missed(lines)
    assert result["generator"]["dropped"] > 0
    # Of all three workers together.
    assert result["generator"]["in_flight_max"] == 50


def test_answers_that_come_late_by_turns_are_a_spread(etcd_single: LocalCluster, tmp_path: Path) -> None:
    with relay(etcd_single.endpoints[0], lambda at_s: 0.4 * (int(at_s) % 2)) as address:
        lines, result = ended(start(tmp_path, address, 6), tmp_path)
    assert "stddev" in missed(lines)
    (mark,) = [each for each in result["perf"]["marks"] if each["name"] == "stddev"]
    assert mark["value"] > 100


# ---- the command


def test_an_interrupted_check_keeps_its_results_and_no_key(etcd_single: LocalCluster, tmp_path: Path) -> None:
    where = etcd_single.endpoints[0]
    process = command.start("perf", "--endpoints", where, "--output", "run", "--json", cwd=tmp_path)
    until_load(process, tmp_path / "run")
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    result = json.loads(out)
    assert (result["interrupted"], result["perf"]["check"]) == ("SIGINT", "perf")
    assert "the run was interrupted by SIGINT" in result["verdict_reasons"]
    assert result["results"]["put"]["succeeded"] > 0
    assert under(etcd_single, PERF) == []


# Endpoints. A check of a second whose tidying does not end.
TIDYING = """
import dataclasses, sys
import gevent
from loadgen.cli import main
from loadgen.perf import loads, tidy

def endless(*_, **__):
    print("tidying", file=sys.stderr, flush=True)
    gevent.sleep(600)

tidy.tidy, whole = endless, loads.perf
loads.perf = lambda size: dataclasses.replace(whole(size), seconds=1.0)
sys.argv[1:] = ["perf", "--endpoints", sys.argv[1], "--output", "run", "--auto-defrag"]
sys.exit(main.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_tidying_and_the_result_is_shown(
    etcd_single: LocalCluster, tmp_path: Path, number: signal.Signals
) -> None:
    process = remembered(subprocess.Popen(
        [sys.executable, "-c", TIDYING, etcd_single.endpoints[0]], cwd=tmp_path, text=True,
        env={**os.environ, "PYTHONPATH": str(command.ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ))  # fmt: skip
    assert process.stderr is not None
    while (line := process.stderr.readline()) != "tidying\n":
        assert line, process.communicate()
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number, err
    assert "marks " in out and "verdict " in out


def test_datascale_says_what_the_pairs_take_and_tidies_up(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    """10,000 pairs, as fast as it goes: a stated number of seconds is not part of it."""
    cluster = make_cluster(1)
    where = cluster.endpoints[0]
    words = ("--datascale", "s", "--destructive", "--endpoints", where, "--auto-compact", "--auto-defrag")
    done = command.run("perf", *words, "--like-etcdctl", "--output", "run", "--junit", "perf.xml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "perf --datascale s writes up to 10.5 MB to " in done.stderr
    first, *tidied, last = done.stdout.splitlines()
    assert first == (
        "Start data scale check for work load [10000 key-value pairs, 1024 bytes per key-value, 50 concurrent clients]."
    )
    assert form(tidied) == [
        "Compacting with revision N", "Compacted with revision N",
        f'Defragmenting "{form([where])[0]}"', f'Defragmented "{form([where])[0]}"',
    ]  # fmt: skip
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    jsonschema.validate(result, schema.load("result"))
    (member,) = result["perf"]["members"]
    used = (member["rss_after"] - member["rss_before"]) / (1 << 20)
    assert last == f"PASS: Approximate system memory used : {used:.2f} MB."
    assert member["db_size_after"] - member["db_size_before"] > 10_000 * 1024
    assert result["results"]["put"]["succeeded"] == 10_000
    assert result["verdict"] == "pass"
    assert under(cluster, DATASCALE) == []
    assert 'name="datascale s: pairs"' in (tmp_path / "perf.xml").read_text()
    table = command.run("report", "run", cwd=tmp_path).stdout
    assert "memory used" in table and "pairs written" in table


def test_every_size_can_be_named_as_etcdctl_has_it() -> None:
    assert set(loads.ALIASES) == {"s", "small", "m", "medium", "l", "large", "xl", "xLarge"}
