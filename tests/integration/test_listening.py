"""Workers that report early, and listeners that raise: a run starts with all its workers, or ends with one line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cluster.local.cluster import LocalCluster
from tests.integration.test_web import Web, serving
from tests.support import command, floor

# In each process of a run the scenario is loaded before anything is registered. What PLANT names raises from its call
# number AT on, counted from 7 on only where operations were done; `raised` is made when it does first.
PLANTED = """
import os, sys
from importlib import import_module
from pathlib import Path

from locustfiles.put import *

AT_WORK = "worker" in sys.argv or "--worker" in sys.argv
side, module, owner, name = os.environ["PLANT"].split()
at, calls = int(os.environ["AT"]), []
kind = getattr(import_module(module), owner)
inner = getattr(kind, name)

def work(self):
    runner = vars(self).get("runner") or vars(self).get("_runner")
    if runner is not None:
        return runner.stats.total.num_requests
    load = vars(self).get("load") if owner == "Worker" else None
    return 1 if owner != "Worker" else load is not None and load._begun

def planted(self, *args, **kwargs):
    if at < 7 or work(self):
        calls.append(name)
    if len(calls) < at:
        return inner(self, *args, **kwargs)
    if not Path("raised").exists():
        Path("raised").touch()
    raise LookupError("planted here")

if (side == "worker") is AT_WORK:
    setattr(kind, name, planted)
"""
# The same by users that pause: what raises is counted in reports and messages, however many operations there are.
PAUSING = PLANTED.replace(
    "from locustfiles.put import *",
    """from locust import constant

from locustfiles.put import PutUser as _PutUser

class Pausing(_PutUser):
    wait_time = constant(0.02)
""",
)
assert PAUSING != PLANTED
LINE = re.compile(r"raftload: internal error: (.*)LookupError: planted here at (?:mine|planted)\.py:\d+; please report"
                  r" it, with the traceback in (\S+)\n")  # fmt: skip


def on(cluster: LocalCluster) -> tuple[str, ...]:
    return "--endpoints", ",".join(cluster.endpoints)


def check(error: str, folder: Path) -> Path:
    """Hold what a command said against what it must say; return the log that it names."""
    found = LINE.findall(error)
    assert len(found) == 1, error
    assert "Traceback" not in error
    log = folder / found[0][1]
    text = log.read_text()
    assert "Traceback (most recent call last)" in text
    assert "in planted" in text
    return log


def check_ended(done: subprocess.CompletedProcess[str], folder: Path, plant: str, at: int) -> None:
    """Hold how a run in which something raised ended against how it must."""
    assert done.returncode == 70, done.stderr
    assert done.stdout == ""
    log = check(done.stderr, folder)
    blamed = LINE.findall(done.stderr)[0][0]
    if plant.startswith("worker"):
        assert re.fullmatch(r"worker [12] \(pid \d+\): ", blamed)
        assert log.name == f"worker-{blamed[7]}.log"
    else:
        assert (blamed, log.name) == ("", "master.log")
    if at > 1:
        result = json.loads((folder / "run" / "result.json").read_text())
        assert result["problems"][0].startswith("the run was ended: ")
        assert result["verdict"] in ("unknown", "fail")
    if at >= 7:
        assert result["results"]["total"]["operations"] > 0


# A worker says hello while the master still starts the others: however long that takes, it is counted. Each start of a
# worker here lasts until the master has heard that worker's hello.
EARLY = """
from pathlib import Path

import gevent
from locust import runners

from loadgen.run.local_workers import WorkerProcess
from locustfiles.put import *

heard, started = [], []
handle, begin = runners.MasterRunner.handle_message, WorkerProcess.start

def handle_message(self, client_id, msg):
    handle(self, client_id, msg)
    heard.append(msg.type)

def slow(self, host, port):
    begin(self, host, port)
    started.append(self.number)
    while heard.count("raftload_hello") < len(started):
        gevent.sleep(0.01)
    Path("slow").write_text(str(started))

runners.MasterRunner.handle_message = handle_message
WorkerProcess.start = slow
"""


def test_a_worker_that_reports_before_the_others_are_started_is_counted(
    etcd_single: LocalCluster, tmp_path: Path
) -> None:
    done = command.bench_with(EARLY, "--operations", "90", "--workers", "3", "--json", *on(etcd_single), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (tmp_path / "slow").read_text() == "[1, 2, 3]"
    assert result["generator"]["workers_started"] == 3
    assert [row["operations"] for row in result["generator"]["workers"]] == [30, 30, 30]


@pytest.mark.parametrize(
    ("plant", "at", "options"),
    [
        # A message's handler, an event's listener and what hears every message; the first before there is load. What
        # raises in mid-run is below.
        ("master loadgen.run.session Session _on_hello", 1, ()),
        ("master loadgen.run.session Session _on_begun", 2, ()),
        ("master loadgen.run.remote_workers RemoteWorkers _on_message", 30, ()),
        ("worker loadgen.load.worker_run Worker _on_test_start", 1, ("--workers", "1")),
        # A callback of the event loop, which gevent would go on without.
        ("worker loadgen.load.open_loop OpenLoop _on_time", 100, ("--rate", "200", "--workers", "1")),
    ],
    ids=lambda value: value.split()[-1] if isinstance(value, str) else "",
)
def test_a_listener_that_raises_ends_the_run(
    etcd_single: LocalCluster, tmp_path: Path, plant: str, at: int, options: tuple[str, ...]
) -> None:
    done = command.bench_with(
        PAUSING, "--duration", "100s", "--output", "run", *options, *on(etcd_single),
        cwd=tmp_path, PLANT=plant, AT=str(at),
    )  # fmt: skip
    check_ended(done, tmp_path, plant, at)


@pytest.mark.timing
@pytest.mark.parametrize(
    "plant",
    ["master loadgen.run.session Session _on_report", "worker loadgen.load.worker_run Worker _on_report_to_master"],
)
def test_it_ends_within_a_second(etcd_single: LocalCluster, tmp_path: Path, plant: str) -> None:
    """From the exception to the end of the last worker; writing the results comes after it.

    A second, and what the machine itself adds: the end takes some five wake-ups, one after the other.
    """
    with floor.measured() as lateness:
        done = command.bench_with(
            PLANTED, "--duration", "100s", "--concurrency", "20", "--output", "run", *on(etcd_single),
            cwd=tmp_path, PLANT=plant, AT="7",
        )  # fmt: skip
    check_ended(done, tmp_path, plant, 7)
    log = (tmp_path / "run" / "logs" / "master.log").read_text()
    (line,) = [line for line in log.splitlines() if line.endswith("the load has ended")]
    ended = datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").timestamp()
    assert -0.001 <= ended - (tmp_path / "raised").stat().st_mtime <= 1 + 5 * lateness.worst_s


def test_the_traceback_is_on_stderr_for_who_asks(etcd_single: LocalCluster, tmp_path: Path) -> None:
    done = command.bench_with(
        PAUSING, "--duration", "100s", "--workers", "1", *on(etcd_single),
        cwd=tmp_path, PLANT="worker loadgen.load.worker_run Worker _on_test_start", AT="1", RAFTLOAD_DEBUG="1",
    )  # fmt: skip
    assert done.returncode == 70
    assert "Traceback (most recent call last)" in done.stderr
    assert "in planted" in done.stderr


def test_a_listener_that_raises_ends_a_chaos_run(etcd_single: LocalCluster, tmp_path: Path) -> None:
    done = planted_chaos(etcd_single, tmp_path, "--duration", "100s",
                         plant="worker loadgen.load.worker_run Worker _on_report_to_master", at=7)  # fmt: skip
    assert done.returncode == 70, done.stderr
    check(done.stderr, tmp_path)


def test_why_a_worker_of_a_chaos_run_could_not_close_its_history_is_said(
    etcd_single: LocalCluster, tmp_path: Path
) -> None:
    done = planted_chaos(etcd_single, tmp_path, "--operations", "100", "--workers", "1", "--json",
                         plant="worker loadgen.chaos.chaos_worker WorkerState close", at=1)  # fmt: skip
    assert done.returncode == 3, done.stderr
    result = json.loads(done.stdout)
    said = re.compile(r"worker 1 \(pid \d+\) could not close its history: LookupError: planted here at planted\.py:\d+")
    assert len([each for each in result["problems"] if said.fullmatch(each)]) == 1, result["problems"]
    assert result["verdict"] == "unknown"


def planted_chaos(
    cluster: LocalCluster, folder: Path, *words: str, plant: str, at: int
) -> subprocess.CompletedProcess[str]:
    # `chaos` has one scenario. What is planted is brought by the master's start, and its workers have it from there.
    planted = PLANTED.replace("from locustfiles.put import *", "").replace('(side == "worker") is AT_WORK', "True")
    (folder / "planted.py").write_text(planted)
    (folder / "sitecustomize.py").write_text(
        "import sys\nif 'chaos' in sys.argv: from gevent import monkey; monkey.patch_all(); import planted\n"
    )
    return command.run("chaos", *words, *on(cluster), cwd=folder, PLANT=plant, AT=str(at),
                       PYTHONPATH=f"{folder}{os.pathsep}{command.ROOT}")  # fmt: skip


@pytest.fixture
def planted_web(etcd_single: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "planted.py").write_text(PAUSING)
    monkeypatch.setenv("PLANT", "worker loadgen.load.worker_run Worker _on_report_to_master")
    monkeypatch.setenv("AT", "7")
    with serving(etcd_single, tmp_path, "--scenario", "planted.py") as running:
        yield running


def test_a_listener_that_raises_ends_the_web_ui(planted_web: Web) -> None:
    """What ran until then is in the run's folder, the session's logs too."""
    planted_web.post("/swarm", user_count="4", spawn_rate="4")
    _, error = planted_web.process.communicate(timeout=60)
    assert planted_web.process.returncode == 70
    log = check(error, planted_web.folder)
    result = json.loads((log.parents[1] / "result.json").read_text())
    assert result["problems"][0].startswith("the run was ended: ")


@pytest.mark.parametrize(
    ("plant", "options"),
    [
        ("master loadgen.load.worker_run Load _tell_locust", ()),
        # Forked after the locustfile was loaded; only workers report.
        ("master loadgen.load.worker_run Worker _on_report_to_master", ("--processes", "2")),
    ],
)
def test_a_listener_that_raises_ends_plain_locust(
    etcd_single: LocalCluster, tmp_path: Path, plant: str, options: tuple[str, ...]
) -> None:
    (tmp_path / "planted.py").write_text(PAUSING)
    done = subprocess.run(
        [sys.executable, "-m", "locust", "-f", "planted.py", "--headless", "--host", etcd_single.members[0].endpoint,
         "-u", "4", "-r", "4", "-t", "100s", *options],
        cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False,
        env={**os.environ, "PYTHONPATH": str(command.ROOT), "PLANT": plant, "AT": "2"},
    )  # fmt: skip
    assert done.returncode == 70, done.stderr
    assert "raftload: internal error: " in done.stderr
    assert "LookupError: planted here" in done.stderr


DYING = """
from locustfiles.put import PutUser as _PutUser

made = []

class DyingUser(_PutUser):
    def on_start(self):
        super().on_start()
        made.append(self)
        if len(made) == 2:
            raise LookupError("no second user today")
"""


def test_a_user_that_dies_at_its_start_does_not_keep_the_run_waiting(etcd_single: LocalCluster, tmp_path: Path) -> None:
    done = command.bench_with(
        DYING, "--operations", "200", "--workers", "1", "--concurrency", "4", "--output", "run", "--json",
        *on(etcd_single), cwd=tmp_path, timeout_s=60,
    )  # fmt: skip
    result = json.loads(done.stdout)
    assert result["results"]["total"]["operations"] == 200
    assert "no second user today" in (tmp_path / "run" / "locust_exceptions.csv").read_text()
    assert "no second user today" in (tmp_path / "run" / "logs" / "worker-1.log").read_text()
