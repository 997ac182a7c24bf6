"""Workers that their master forks: what they share with it, what they do not, and their end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.local.cluster import LocalCluster
from tests.support import command
from tests.support.processes import runs
from tests.support.waiting import HANG_S, until

# A master that forks two workers and never has them report for work; it ends with its stdin.
WAITING = """
import sys
from pathlib import Path

from loadgen.load import patching

patching.patch()
from cluster.base.security import Security
from loadgen.run.local_workers import fork_workers

workers = fork_workers(2, "kv", Path(sys.argv[1]), Security())
print(*(worker.pid for worker in workers), flush=True)
sys.stdin.read()
if sys.argv[2] == "end":
    for worker in workers:
        worker.end()
    print(*(worker.death() for worker in workers), sep=", ")
"""


# The first worker ends before its master watches it.
ENDS_FIRST = """
import os, signal
import gevent.os

watch = gevent.os._watch_child

def watch_late(pid, *rest):
    if watch_late.first:
        watch_late.first = False
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    watch(pid, *rest)

watch_late.first = True
gevent.os._watch_child = watch_late
"""


def bench_40(cluster: LocalCluster, folder: Path, scenario: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run 40 operations of a scenario of this text to their end."""
    return command.bench_with(scenario, "--endpoints", cluster.endpoints[0], "--operations", "40", *words, cwd=folder)


def waiting(folder: Path, how: str, first: str = "") -> tuple[subprocess.Popen[str], list[int]]:
    before, fork = WAITING.split("workers = ", 1)
    process = subprocess.Popen(
        [sys.executable, "-c", f"{before}{first}\nworkers = {fork}", str(folder), how], cwd=command.ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    return process, [int(pid) for pid in process.stdout.readline().split()]


@pytest.mark.parametrize("how", ["killed", "ends without a word", "end"])
def test_workers_that_wait_end_with_their_master(tmp_path: Path, how: str) -> None:
    process, pids = waiting(tmp_path, how)
    with process:
        until(lambda: command.workers(process.pid) == pids, "the workers to have their name")
        if how == "killed":
            process.kill()
        out, err = process.communicate()
    until(lambda: not any(runs(pid) for pid in pids), "the workers to end")
    assert err == ""
    if how == "end":
        assert out == "exited with status 0, exited with status 0\n"


def test_a_signal_for_one_that_waits_is_its_end_and_not_the_masters(tmp_path: Path) -> None:
    process, pids = waiting(tmp_path, "end")
    with process:
        os.kill(pids[0], signal.SIGTERM)
        until(lambda: not runs(pids[0]), "the worker to end")
        out, err = process.communicate()
    assert (out, err) == ("killed by SIGTERM, exited with status 0\n", "")


def test_the_end_of_one_that_ends_before_it_is_watched_is_heard_of(tmp_path: Path) -> None:
    """Its SIGCHLD comes to a process that has no handler for it yet, unless somebody has set one."""
    process, _ = waiting(tmp_path, "end", ENDS_FIRST)
    with process:
        try:
            out, err = process.communicate(timeout=HANG_S)
        finally:
            process.kill()
    assert (out, err) == ("killed by SIGKILL, exited with status 0\n", "")


def test_a_worker_has_no_file_of_the_shell_and_no_environment_of_another_locust(
    etcd_single: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe that it held would keep whoever reads from it waiting for as long as it lives."""
    scenario = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from locustfiles.put import *\n"
        "Path(f'seen-{os.getpid()}').write_text(repr((sys.argv[1], sorted(n for n in os.environ if 'LOCUST' in n))))\n"
    )
    monkeypatch.setenv("LOCUST_HOST", "http://elsewhere")
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    words = ("bench", *command.own_scenario(tmp_path, scenario), "--endpoints", etcd_single.endpoints[0],
             "--duration", "60s", "--output", "run")  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "loadgen.cli", *words], cwd=tmp_path, pass_fds=[writer], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(command.ROOT)},
    ) as process:  # fmt: skip
        command.until_load(process, tmp_path / "run")
        pipe = os.fstat(reader).st_ino
        workers = command.workers(process.pid)
        assert len(workers) == 2
        for pid in workers:
            files = {path.readlink() for path in Path(f"/proc/{pid}/fd").iterdir()}
            assert Path(f"pipe:[{pipe}]") not in files
            assert (tmp_path / f"seen-{pid}").read_text() == "('worker', [])"
            assert os.getsid(pid) == pid
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    os.close(reader)
    os.close(writer)
    assert process.returncode == 130, err


def test_what_a_scenario_registers_for_the_end_of_its_process_is_done_there(
    etcd_single: LocalCluster, tmp_path: Path
) -> None:
    done = bench_40(
        etcd_single, tmp_path,
        "import atexit, os\n"
        "from pathlib import Path\n"
        "from locustfiles.put import *\n"
        "atexit.register(lambda: Path(f'ended-{os.getpid()}').touch())\n",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("ended-*"))) == 3, "the master and its two workers"


def test_the_log_to_which_an_error_sends_the_reader_is_there(etcd_single: LocalCluster, tmp_path: Path) -> None:
    """The run folder stays, although the load did not begin. The workers hang, and their master waits no time."""
    done = bench_40(
        etcd_single, tmp_path,
        "import sys, time\n"
        "from locustfiles.put import *\n"
        "from loadgen.run import session\n"
        "session.WORKERS_READY_S = session.WORKER_READY_S = 0.0\n"
        "if sys.argv[1] == 'worker': time.sleep(3600)\n",
        "--output", "run",
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert "the workers were not ready within 0 s; see run/logs/worker-1.log\n" in done.stderr
    assert (tmp_path / "run" / "logs" / "worker-1.log").is_file()


# One worker waits before it begins: in the file `waiting` is its process id.
WAITS = """
import os, sys, time
from pathlib import Path
import gevent
from locust import events
from locustfiles.{scenario} import *

def wait(**_):
    try:
        with Path("waiting").open("x") as file: file.write(str(os.getpid()))
    except FileExistsError:
        return
    gevent.sleep(3600)

if sys.argv[1] == "worker":
    {when}
"""


@contextlib.contextmanager
def one_waits(
    cluster: LocalCluster, folder: Path, *words: str, scenario: str = "put", when: str
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a bench with two workers of which one waits before it begins; yield the bench, and the pid of that one."""
    text = WAITS.format(scenario=scenario, when=when)
    words = ("--endpoints", cluster.endpoints[0], "--workers", "2", "--output", "run", *words)
    with command.start("bench", *command.own_scenario(folder, text), *words, cwd=folder) as process:
        file = folder / "waiting"
        until(lambda: process.poll() is not None or (file.exists() and file.read_text()), "the worker")
        yield process, int(file.read_text())


@pytest.mark.parametrize("scenario", ["put", "watch"])
def test_a_worker_that_is_told_to_end_before_it_begins_is_not_lost(
    etcd_single: LocalCluster, tmp_path: Path, scenario: str
) -> None:
    """The other one does its share, also where it waits for all to be ready; nothing is unknown of what was done."""
    with one_waits(
        etcd_single, tmp_path, "--operations", "40", "--json", scenario=scenario,
        when="events.test_start.add_listener(wait)",
    ) as (process, waiting):  # fmt: skip
        os.kill(waiting, signal.SIGTERM)
        out, err = process.communicate(timeout=HANG_S)
    assert process.returncode == 3, err
    result = json.loads(out)
    assert result["lost_workers"] == []
    assert any(f"(pid {waiting}) stopped before the end" in each for each in result["verdict_reasons"]), result
    assert result["results"]["total"]["operations"] > 0


def test_a_worker_that_is_told_to_end_before_the_load(etcd_single: LocalCluster, tmp_path: Path) -> None:
    with one_waits(etcd_single, tmp_path, when="wait()") as (process, waiting):
        os.kill(waiting, signal.SIGTERM)
        _, err = process.communicate(timeout=HANG_S)
    assert process.returncode == 4, err
    assert re.search(rf"error: worker \d \(pid {waiting}\) was (ended|killed) by SIGTERM before the load\n", err)


def test_a_command_whose_workers_are_told_to_end_with_it_was_ended(etcd_single: LocalCluster, tmp_path: Path) -> None:
    """As all of a service is: what the command sees first, that a worker is gone, is not what it says."""
    with one_waits(etcd_single, tmp_path, when="wait()") as (process, waiting):
        process.send_signal(signal.SIGSTOP)
        os.kill(waiting, signal.SIGTERM)
        until(lambda: not runs(waiting), "the worker to end")
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=HANG_S)
    assert (process.returncode, err) == (143, "raftload: interrupted before there was a result\n")


def test_workers_draw_different_random_numbers(etcd_single: LocalCluster, tmp_path: Path) -> None:
    """A fork has its master's generators of random numbers too."""
    bench_40(
        etcd_single, tmp_path,
        "import random\n"
        "from pathlib import Path\n"
        "from locustfiles.put import *\n"
        "with Path('drawn').open('a') as file: file.write(f'{random.random()}\\n')\n",
        "--workers", "3",
    )  # fmt: skip
    assert len(set((tmp_path / "drawn").read_text().split())) == 4
