"""The locustfiles under Locust's own command, without an engine of ours."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.local.cluster import LocalCluster
from loadgen.client.etcd import EtcdClient
from loadgen.load.scenarios import names
from tests.support.ports import serves, take_ports
from tests.support.started import remembered
from tests.support.waiting import HANG_S, until

ROOT = Path(__file__).resolve().parents[2]


def start(scenario: str | Path, *arguments: str, cluster: LocalCluster, cwd: Path) -> subprocess.Popen[str]:
    """Start Locust with a locustfile, of ours where only its name is given, without its UI."""
    path = scenario if isinstance(scenario, Path) else ROOT / "locustfiles" / f"{scenario}.py"
    return remembered(subprocess.Popen(
        [sys.executable, "-m", "locust", "-f", str(path), "--headless",
         "--host", cluster.members[0].endpoint, "-u", "6", "-r", "6", "--json", *arguments],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ))  # fmt: skip


def rows_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the rows of its statistics by name, once it has ended."""
    out, err = process.communicate(timeout=HANG_S)
    assert process.returncode == 0, out + err
    # Each of Locust's processes prints a document, the master's among them. Where Python does not buffer, a document
    # and its end of line are two writes, so two documents may stand in one line.
    rows: dict[str, Any] = {}
    decoder, rest = json.JSONDecoder(), out.strip()
    while rest:
        document, end = decoder.raw_decode(rest)
        rows.update({row["name"]: row for row in document})
        rest = rest[end:].lstrip()
    return rows


@pytest.mark.parametrize("scenario", names())
def test_each_locustfile_runs_alone(etcd_single: LocalCluster, tmp_path: Path, scenario: str) -> None:
    compacted = EtcdClient(etcd_single.endpoints)
    compacted.compact(compacted.put(b"x", b"").revision)  # as on any cluster that has been in use
    compacted.close()
    expected = {
        "kv": {"put", "get", "txn"},
        "steps": {"put", "get", "txn"},
        "watch": {"put", "watch"},
        "lease": {"lease_grant", "lease_keepalive", "lease_revoke"},
        "kubernetes": {"create", "update", "delete", "get", "list", "lease_grant", "watch"},
        "consistency": {"put", "get", "range", "delete", "txn", "lease_grant"},
    }.get(scenario, {scenario})
    # So many that each type of a mix is among them.
    operations = "300" if scenario == "steps" or len(expected) == 1 else "1500"
    # Its four steps are a minute long where nothing says how long the run is.
    time = ("-t", "12s") if scenario == "steps" else ()
    words = ("--operations", operations, "--key-size", "20", *time)
    rows = rows_of(start(scenario, *words, cluster=etcd_single, cwd=tmp_path))
    rare = {"lease_revoke", "lease_keepalive", "refusal"} if scenario == "consistency" else set()
    assert set(rows) - rare == expected
    for row in rows.values():
        assert row["num_requests"] > 0
        assert row["num_failures"] == 0
        assert 0 < row["min_response_time"] <= row["max_response_time"]
        assert any(float(key) != int(float(key)) for key in row["response_times"]), "not rounded to milliseconds"
    if len(expected) == 1:
        assert rows[scenario]["num_requests"] == 300


def test_without_a_number_it_runs_until_locust_is_ended(etcd_single: LocalCluster, tmp_path: Path) -> None:
    with contextlib.closing(EtcdClient(etcd_single.endpoints)) as client:
        before, keys = client.get(b"x").revision, client.range(b"\0", b"\0", count_only=True).response.count
        process = start("kv", "--key-space", "10", cluster=etcd_single, cwd=tmp_path)
        until(lambda: client.get(b"x").revision > before + 500, "the load")
        process.send_signal(signal.SIGTERM)
        assert set(rows_of(process)) == {"put", "get", "txn"}
        assert client.range(b"\0", b"\0", count_only=True).response.count == keys


@pytest.mark.parametrize("processes", [[], ["--processes", "2"]])
def test_a_number_of_operations_is_exact_and_ends_the_run(
    etcd_single: LocalCluster, tmp_path: Path, processes: list[str]
) -> None:
    client = EtcdClient(etcd_single.endpoints)
    before, keys = client.get(b"x").revision, client.range(b"\0", b"\0", count_only=True).response.count
    rows_of(start("put", "--operations", "501", *processes, cluster=etcd_single, cwd=tmp_path))
    # 501 puts, and one range delete at the end.
    assert client.get(b"x").revision - before == 502
    assert client.range(b"\0", b"\0", count_only=True).response.count == keys
    client.close()


# The last user is never ready, so the others wait for it.
LATE = """
from pathlib import Path

import gevent
import locustfiles.watch

ready = []

class LateUser(locustfiles.watch.WatchUser):
    def make_ready(self):
        super().make_ready()
        ready.append(self)
        if len(ready) == 6:
            Path("begun").touch()
            gevent.sleep(3600)
"""
# One user works, and the others wait for their step.
STEPS = """
from pathlib import Path

import locustfiles.steps

class SlowlyMoreUser(locustfiles.steps.StepsUser):
    def put(self, key, value):
        Path("begun").touch()
        return super().put(key, value)
"""


@pytest.mark.parametrize("locustfile", [LATE, STEPS], ids=["start line", "steps"])
def test_users_that_wait_for_their_start_end_without_a_traceback(
    etcd_single: LocalCluster, tmp_path: Path, locustfile: str
) -> None:
    (tmp_path / "waiting.py").write_text(locustfile)
    process = start(tmp_path / "waiting.py", cluster=etcd_single, cwd=tmp_path)
    until(lambda: process.poll() is not None or (tmp_path / "begun").exists(), "the load")
    process.send_signal(signal.SIGTERM)
    err = ended(process)
    assert "Traceback" not in err
    assert "StopUser" not in err


# A page's connection is closed by the finalizer of what read from it. Python drops, without a word, what is raised in
# there.
IN_A_FINALIZER = """
import os, signal, socket

from locustfiles.kv import *

close = socket.SocketIO.close

def closing(self):
    socket.SocketIO.close = close
    close(self)
    os.kill(os.getpid(), signal.SIGINT)

socket.SocketIO.close = closing
"""
OF_ITS_OWN = """
import os, signal
from pathlib import Path

from locustfiles.kv import *

def own(*_):
    Path("own").touch()
    os.kill(os.getpid(), signal.SIGTERM)

signal.signal(signal.SIGINT, own)
"""


def with_page(locustfile: str, cwd: Path) -> subprocess.Popen[str]:
    """Start Locust with its UI, return it once its page was answered."""
    (cwd / "planted.py").write_text(locustfile)
    port = take_ports(1)
    process = remembered(subprocess.Popen(
        [sys.executable, "-m", "locust", "-f", "planted.py", "--web-host", "127.0.0.1", "--web-port", str(port)],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    ))  # fmt: skip
    until(lambda: process.poll() is not None or serves(port), "the page")
    return process


def ended(process: subprocess.Popen[str]) -> str:
    """Return what it wrote to stderr, once it has ended well."""
    _, err = process.communicate(timeout=HANG_S)
    assert process.returncode == 0, err
    return err


def test_ctrl_c_while_a_connection_is_freed_ends_it(tmp_path: Path) -> None:
    process = with_page(IN_A_FINALIZER, tmp_path)
    assert "Shutting down (exit code 0)" in ended(process)


def test_ctrl_c_ends_it_and_a_handler_of_its_own_is_left_alone(tmp_path: Path) -> None:
    process = with_page("from locustfiles.kv import *", tmp_path)
    process.send_signal(signal.SIGINT)
    err = ended(process)
    assert "Shutting down (exit code 0)" in err
    assert "Got SIGTERM" not in err
    process = with_page(OF_ITS_OWN, tmp_path)
    process.send_signal(signal.SIGINT)
    assert "Got SIGTERM" in ended(process)
    assert (tmp_path / "own").exists()
