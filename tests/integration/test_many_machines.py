"""Workers that somebody else starts: let in, turned away, lost, and on other hosts."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cluster.gateway.control import ControlClient
from cluster.local.cluster import LocalCluster
from loadgen import schema
from tests.support import command
from tests.support.missing import require
from tests.support.ports import take_ports
from tests.support.waiting import HANG_S, until

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `raftload` with arguments, in front of it whatever leads to another host; all end with the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, host: tuple[str, ...] = (), **env: str) -> subprocess.Popen[str]:
        process = command.start(*arguments, cwd=tmp_path, before=host, **env)
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def result_of(process: subprocess.Popen[str], timeout: float = 120) -> tuple[dict[str, Any], str]:
    out, err = process.communicate(timeout=timeout)
    assert out, err
    document: dict[str, Any] = json.loads(out)
    jsonschema.validate(document, schema.load("result"))
    return document, err


def wait_for_line(process: subprocess.Popen[str], words: str) -> None:
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if words in line:
            return
    raise AssertionError(f"no {words!r} in {seen}")


def bench(cluster: LocalCluster, port: int, *more: str) -> tuple[str, ...]:
    endpoints = ",".join(cluster.endpoints)
    return ("bench", "--endpoints", endpoints, "--bind", f"127.0.0.1:{port}", "--json", "--output", "run", *more)


@contextlib.contextmanager
def loaded(cluster: LocalCluster) -> Iterator[Callable[[subprocess.Popen[str]], None]]:
    """Give what waits, for as long as a master runs, until more has been written since the block began than the 10 keys
    that are there before a load.
    """
    with ControlClient(cluster.endpoints[0], timeout_s=HANG_S) as client:
        before = client.revision()

        def wait(master: subprocess.Popen[str]) -> None:
            until(lambda: is_running(master) and client.revision() > before + 40, "the load")

        yield wait


def is_running(master: subprocess.Popen[str]) -> bool:
    """Return True. Raises AssertionError with what a master has printed where it has ended."""
    assert master.poll() is None, master.communicate()
    return True


def test_workers_report_from_elsewhere_and_share_the_operations(etcd_single: LocalCluster, start: Start) -> None:
    port = take_ports(1)
    # The workers may come first: they wait for their master.
    workers = [start("worker", "--master-port", str(port)) for _ in range(2)]
    master = start(*bench(etcd_single, port, "--expect-workers", "2", "--workers", "1", "--operations", "601"))
    result, err = result_of(master)
    assert master.returncode in (0, 3), err
    assert result["results"]["total"]["operations"] == 601
    rows = result["generator"]["workers"]
    assert sorted(row["operations"] for row in rows) == [200, 200, 201]
    assert [row["host"] for row in rows] == [None, socket.gethostname(), socket.gethostname()]
    for row in rows[1:]:
        # One machine, one clock: what is measured is the error.
        assert abs(row["clock_offset_ms"]) <= row["clock_error_ms"] + 1
    assert result["generator"]["workers_started"] == 3
    for worker in workers:
        assert worker.wait(timeout=120) == 0


def test_those_that_do_not_fit_are_turned_away_and_named(
    etcd_single: LocalCluster, start: Start, tmp_path: Path
) -> None:
    port = take_ports(1)
    master = start(
        *bench(etcd_single, port, "--expect-workers", "1", "--duration", "10m", "--mix", "get", "--key-space", "10")
    )
    other = start("worker", "--master-port", str(port), "--scenario", "put")
    _, err = other.communicate(timeout=120)
    assert other.returncode == 4
    assert "refused this worker: its scenario is put, but the master's is kv" in err
    good = start("worker", "--master-port", str(port))
    wait_for_line(master, "1 of 1 workers")
    late = start("worker", "--master-port", str(port))
    _, err = late.communicate(timeout=120)
    assert late.returncode == 4
    assert "came after the run had begun" in err or "1 workers are here already" in err
    command.until_load(master, tmp_path / "run")
    master.send_signal(signal.SIGINT)
    result, err = result_of(master)
    assert master.returncode == 130, err
    assert result["results"]["get"]["succeeded"] > 0
    assert result["generator"]["workers_lost"] == 0
    assert sum("was refused" in note for note in result["notes"]) == 2
    assert good.wait(timeout=120) == 0


def test_too_few_is_an_error_that_says_what_to_start(etcd_single: LocalCluster, start: Start) -> None:
    port = take_ports(1)
    worker = start("worker", "--master-port", str(port))
    wait_for_line(worker, "waiting for a master")
    master = start(*bench(etcd_single, port, "--expect-workers", "2", "--worker-wait", "12s"))
    out, err = master.communicate(timeout=120)
    assert (master.returncode, out) == (4, "")
    assert "1 of 2 workers" in err.splitlines()[-1]
    assert f"raftload worker --master-host ADDRESS --master-port {port}" in err
    worker.wait(timeout=120)


def test_a_worker_without_a_master_says_what_it_waits_for(start: Start) -> None:
    port = take_ports(1)
    worker = start("worker", "--master-port", str(port))
    wait_for_line(worker, f"waiting for a master at 127.0.0.1:{port} for five minutes")
    worker.send_signal(signal.SIGINT)
    assert worker.wait(timeout=120) == 130


def test_a_worker_that_is_ended_by_ctrl_c_makes_the_run_unknown(etcd_single: LocalCluster, start: Start) -> None:
    port = take_ports(1)
    early, sound = (start("worker", "--master-port", str(port)) for _ in range(2))
    with loaded(etcd_single) as wait_for_load:
        master = start(*bench(etcd_single, port, "--expect-workers", "2", "--duration", "10s", "--concurrency", "4",
                              "--key-space", "10"))  # fmt: skip
        wait_for_line(master, "2 of 2 workers")
        wait_for_load(master)
    early.send_signal(signal.SIGINT)
    result, err = result_of(master)
    assert master.returncode == 3, err
    assert early.wait(timeout=120) == 130
    assert sound.wait(timeout=120) == 0
    assert any(f"pid {early.pid} " in reason for reason in result["verdict_reasons"]), result["verdict_reasons"]


def test_a_killed_worker_is_named_and_one_that_slept_counts(etcd_single: LocalCluster, start: Start) -> None:
    port = take_ports(1)
    doomed, sleepy, sound = (start("worker", "--master-port", str(port)) for _ in range(3))
    with loaded(etcd_single) as wait_for_load:
        master = start(*bench(etcd_single, port, "--expect-workers", "3", "--duration", "20s", "--mix", "get=9,put=1",
                              "--concurrency", "6", "--key-space", "10", "--rate", "300"))  # fmt: skip
        wait_for_line(master, "3 of 3 workers")
        wait_for_load(master)
    doomed.kill()
    sleepy.send_signal(signal.SIGSTOP)
    time.sleep(7)  # more than the silence after which a worker counts as lost, and there is time left to come back
    sleepy.send_signal(signal.SIGCONT)
    result, err = result_of(master)
    assert master.returncode == 3, err
    (lost,) = result["lost_workers"]
    assert f"pid {doomed.pid} " in lost["name"]
    assert "not heard of" in lost["reason"]
    assert any(f"pid {sleepy.pid} " in note and "came back" in note for note in result["notes"]), result["notes"]
    assert result["verdict"] == "unknown"
    assert sound.wait(timeout=120) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--expect-workers", "1", "--bind", "0.0.0.0:5557"), "give --endpoints that other machines can reach"),
        (
            ("--expect-workers", "1", "--bind", "0.0.0.0", "--endpoints", "127.0.0.1:2379"),
            "is another host on each machine",
        ),
        (("--bind", "127.0.0.1:5557"), "give --expect-workers, too"),
        (("--expect-workers", "1", "--bind", "a:b:c"), "is not ADDRESS[:PORT]"),
        (("--expect-workers", "-1"), "--expect-workers must be at least 0"),
        (("--expect-workers", "1", "--worker-wait", "soon"), "--worker-wait"),
    ],
)
def test_options_that_cannot_be(capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str) -> None:
    done = command.refusal(capsys, "bench", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_taken_port_is_said(etcd_single: LocalCluster, start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        master = start(*bench(etcd_single, port, "--expect-workers", "1"))
        out, err = master.communicate(timeout=120)
    assert (master.returncode, out) == (4, "")
    assert f"cannot listen for workers on 127.0.0.1:{port}" in err.splitlines()[-1]


# Hosts of their own: network namespaces joined by a bridge


class Hosts:
    """Four hosts, 10.213.77.1 (the master's and etcd's) to .4, in namespaces that end with the test."""

    def __init__(self) -> None:
        self._name = f"rl{os.getpid()}"
        self.names = [f"{self._name}h{n}" for n in range(1, 5)]
        self._switch = f"{self._name}sw"

    def __enter__(self) -> Hosts:
        self._ip("netns", "add", self._switch)
        self._ip("-n", self._switch, "link", "add", "br0", "type", "bridge")
        self._ip("-n", self._switch, "link", "set", "br0", "up")
        for number, name in enumerate(self.names, 1):
            self._ip("netns", "add", name)
            self._ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", f"p{number}",
                     "netns", self._switch)  # fmt: skip
            self._ip("-n", self._switch, "link", "set", f"p{number}", "master", "br0", "up")
            self._ip("-n", name, "address", "add", f"10.213.77.{number}/24", "dev", "eth0")
            self._ip("-n", name, "link", "set", "eth0", "up")
            self._ip("-n", name, "link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for name in [*self.names, self._switch]:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)

    def on(self, number: int) -> tuple[str, ...]:
        """Return what to put before a command for it to run on a host, which has a name of its own too."""
        named = f'hostname host-{number} && exec "$@"'
        return ("ip", "netns", "exec", self.names[number - 1], "unshare", "--uts", "sh", "-c", named, "sh")

    def cut_off(self, number: int) -> None:
        self._ip("-n", self._switch, "link", "set", f"p{number}", "down")

    @staticmethod
    def _ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if os.geteuid() or not shutil.which("ip") or not sys.platform.startswith("linux"):
        require("namespaces", "network namespaces need root and iproute2")
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(Hosts())
        except subprocess.CalledProcessError as error:
            require("namespaces", f"no network namespaces here: {error.stderr.decode().strip()}")
        yield made


# Ends when the etcd whose URL it is given has a revision: from a host that reaches it.
_UNTIL_WRITTEN = """
import json, sys, time, urllib.request
ask = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
while int(json.load(ask(sys.argv[1] + "/v3/maintenance/status", b"{}"))["header"]["revision"]) < int(sys.argv[2]):
    time.sleep(0.05)
"""


def test_three_hosts_of_which_one_is_cut_off(hosts: Hosts, start: Start, etcd_binary: str, tmp_path: Path) -> None:
    client = "http://10.213.77.1:2379"
    etcd = subprocess.Popen(
        [*hosts.on(1), etcd_binary, "--data-dir", str(tmp_path / "etcd"), "--listen-client-urls", client,
         "--advertise-client-urls", client, "--listen-peer-urls", "http://127.0.0.1:2380"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        workers = [
            start("worker", "--master-host", "10.213.77.1", host=hosts.on(host)) for host in (2, 3, 4) for _ in range(2)
        ]
        master = start(
            "bench", "--endpoints", client, "--bind", "10.213.77.1", "--expect-workers", "6", "--worker-wait", "90s",
            "--duration", "12s", "--mix", "get=9,put=1", "--concurrency", "12", "--rate", "600", "--json",
            "--output", "run",
            host=hosts.on(1),
        )  # fmt: skip
        wait_for_line(master, "6 of 6 workers (host-2 2, host-3 2, host-4 2)")
        with subprocess.Popen([*hosts.on(1), sys.executable, "-c", _UNTIL_WRITTEN, client, "100"]) as written:
            try:
                until(lambda: written.poll() is not None or not is_running(master), "the load")
            finally:
                written.kill()
        assert written.returncode == 0
        hosts.cut_off(4)
        result, err = result_of(master)
    finally:
        etcd.kill()
        etcd.wait()
    assert master.returncode == 3, err
    assert result["generator"]["workers_lost"] == 2
    assert all("on host-4)" in lost["name"] for lost in result["lost_workers"])
    rows = result["generator"]["workers"]
    assert [row["host"] for row in rows if row["lost"]] == ["host-4"] * 2
    # Nothing of those that stayed is lost: what they say they did is what Locust counted of them, and more.
    stayed = sum(row["operations"] for row in rows if not row["lost"])
    reported = sum(row["operations"] or 0 for row in rows)
    assert stayed > 0
    assert result["results"]["total"]["operations"] == reported
    assert result["problems"] == []
    for worker in workers[:4]:
        assert worker.wait(timeout=120) == 0
    for worker in workers[4:]:
        # Nobody has to end those that were cut off: they miss their master and go.
        assert worker.wait(timeout=120) is not None


def test_a_clock_that_is_off_is_measured_and_corrected(etcd_single: LocalCluster, start: Start) -> None:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        require("faketime", "no libfaketime (Debian: faketime), which sets a process's wall clock")
    port = take_ports(1)
    ahead = {"LD_PRELOAD": str(library), "FAKETIME": "+7s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    start("worker", "--master-port", str(port), **ahead)
    master = start(
        *bench(etcd_single, port, "--expect-workers", "1", "--workers", "1", "--rate", "200", "--duration", "4s")
    )
    result, err = result_of(master)
    assert master.returncode in (0, 3), err
    here, there = result["generator"]["workers"]
    assert here["clock_offset_ms"] is None
    assert abs(there["clock_offset_ms"] - 7000) < there["clock_error_ms"] + 50
    assert any("ms off ours" in note for note in result["notes"])
    # Both began at one moment: had the clocks been taken as they are, the run would have taken 7 s longer.
    assert result["run"]["duration_s"] < 4 + 7
    assert here["operations"] == there["operations"] == 400
