"""Causes that are injected into real clusters for a few seconds: each is there in its block, and undone after it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from cluster.base.binary import find_etcd
from loadgen.diagnose.facts import Evidence
from tests.diagnose import far, injectors, machine, one_run, rows
from tests.diagnose.scene import Setup, in_a_namespace, scene
from tests.support.command import ROOT
from tests.support.processes import runs
from tests.support.waiting import HANG_S, until


def state(pid: int) -> str:
    """The state of a process, as /proc has it: `T` is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.strikes
def test_syncs_of_the_leader_are_slow_under_a_load_and_no_rule_is_left(fixed_etcd: str) -> None:
    injector = injectors.INJECTORS["A06"]
    with scene(injector.setup, find_etcd(fixed_etcd)) as made:
        assert made.bench is not None
        pids = made.bench.pids
        with injector.inject(made) as names:
            assert names == (made.leader(),)
            until(lambda: any(rule.struck > 2 for rule in made.local.rules(names[0]).values()))
            result = made.bench.end()
        assert made.local.rules(names[0]) == {}
        assert result["results"]["total"]["operations"] > 0
    assert not any(map(runs, pids))


@pytest.mark.strikes
@pytest.mark.skipif(find_spec("loadgen.diagnose.prober") is None, reason="there is no prober yet")
def test_a_run_gives_the_evidence_of_probes_and_of_the_load(fixed_etcd: str) -> None:
    done = subprocess.run(
        one_run.words("A06", fixed_etcd, "4"), capture_output=True, text=True, check=False, timeout=HANG_S, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    probes, load = (Evidence.from_json(rows.unpack(row[source])) for source in ("probes", "run"))
    assert (probes.source, load.source, row["of"]) == ("probes", "run", [row["leader"]])
    assert load.load is not None and load.load.asked == 150
    leader = next(member for member in probes.members if [member.name] == row["of"])
    assert leader.probes["put"].count > 0
    slowest = leader.histograms["wal_fsync"].p10_ms
    assert slowest is not None and slowest >= 32, "60 ms more, in etcd's bucket from 32 ms on"


@pytest.mark.skipif(bool(machine.why_no_quota()), reason="no CPU quota can be set here")
def test_a_member_has_a_quota_and_then_none(fixed_etcd: str) -> None:
    with scene(Setup(nodes=1, load=None), find_etcd(fixed_etcd)) as made:
        pid = made.pid(made.names[0])
        before = machine._group_of(pid)
        with machine.quota(pid, 0.05):
            group = machine._group_of(pid)
            assert group != before
            assert str(pid) in (group / "cgroup.procs").read_text().split()
            limit = group / "cpu.cfs_quota_us"
            assert (limit if limit.exists() else group / "cpu.max").read_text().split()[0] == "5000"
        assert machine._group_of(pid) == before
        assert not group.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked at in /proc")
def test_processes_are_frozen_and_run_on_whoever_ends() -> None:
    with subprocess.Popen(["sleep", "600"]) as frozen:
        try:
            with machine.freezing(0.05, 0.05) as freeze:
                freeze([frozen.pid])
                until(lambda: state(frozen.pid) == "T")
                until(lambda: state(frozen.pid) == "S")
            until(lambda: state(frozen.pid) == "S")
            code = (
                "import os, sys, signal; from tests.diagnose import machine\n"
                "with machine.freezing(600, 1) as freeze:\n"
                f"    freeze([{frozen.pid}]); print('frozen', flush=True); sys.stdin.read()"
            )
            with subprocess.Popen(
                [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as owner:
                until(lambda: state(frozen.pid) == "T")
                owner.kill()
            until(lambda: state(frozen.pid) == "S")
        finally:
            frozen.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc and processors of processes")
def test_spinning_processes_end_with_the_block_and_with_their_owner() -> None:
    code = (
        "import os, sys; from tests.diagnose import machine\n"
        "with machine.spinning(1, min(os.sched_getaffinity(0))):\n"
        "    from tests.support.processes import children\n"
        "    print(*children(os.getpid()), flush=True); sys.stdin.read()"
    )
    for kill in (False, True):
        with subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as owner:
            assert owner.stdout is not None and owner.stdin is not None
            (pid,) = map(int, owner.stdout.readline().split())
            assert runs(pid)
            if kill:
                owner.kill()
            else:
                owner.stdin.close()
        until(lambda pid=pid: not runs(pid))  # type: ignore[misc]


_CONNECTS = """
import socket, subprocess, sys, time
listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
ports = [each.getsockname()[1] for each in listening]
far = subprocess.Popen([sys.executable, "-m", "tests.diagnose.far", "0.2", "0", str(ports[0])], stdin=subprocess.PIPE,
                       stdout=subprocess.PIPE, text=True)
assert far.stdout.readline() == "ready\\n"
for port in ports:
    began = time.monotonic()
    socket.create_connection(("127.0.0.1", port), 30).close()
    print(time.monotonic() - began)
far.stdin.close()
far.wait()
"""


@pytest.mark.skipif(bool(far.why_not()), reason="packets cannot be made late here")
def test_a_connection_to_a_far_port_takes_its_round_trip_before_it_is_there() -> None:
    done = subprocess.run(
        in_a_namespace([sys.executable, "-c", _CONNECTS]), capture_output=True, text=True, check=True, timeout=60,
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    late, _ = map(float, done.stdout.split())
    assert late >= 0.4, "0.2 s each way"
    assert not Path("/sys/class/net/far0").exists(), "this process's own loopback is as ever"
