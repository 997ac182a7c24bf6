"""The members' weight beside their measurer, and their wait for a CPU, from what Linux says of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster.base.errors import ClusterError
from cluster.local import cpu_times, keeper
from cluster.local.cpu_times import CpuMeter, CpuTimes
from loadgen.run import member_cpu
from loadgen.run.member_cpu import MemberCpu
from loadgen.run.target import Target

FIRST_NAMESPACE, OTHER_NAMESPACE = "cgroup:[4026531835]", "cgroup:[4026532561]"
V1 = "9:name=systemd:/\n8:cpu,cpuacct:{}\n0::/unified/elsewhere\n"
V2 = "0::{}\n"


def kernel(
    folder: Path, cgroup: str, *, enabled: str | None = "1", namespace: str = FIRST_NAMESPACE, weighted: tuple[str, ...]
) -> bool:
    """Return what `by_sessions` says of a machine of that kind. ``weighted``: its cgroups that have a weight."""
    proc, cgroups = folder / "proc", folder / "cgroup"
    (proc / "self/ns").mkdir(parents=True)
    (proc / "sys/kernel").mkdir(parents=True)
    (proc / "self/ns/cgroup").symlink_to(namespace)
    (proc / "self/cgroup").write_text(cgroup)
    if enabled is not None:
        (proc / "sys/kernel/sched_autogroup_enabled").write_text(f"{enabled}\n")
    (cgroups / "a.slice/b.service").mkdir(parents=True)
    for each in weighted:
        (cgroups / each / "cpu.weight").touch()
    return keeper.by_sessions(proc, cgroups)


@pytest.mark.parametrize(
    ("cgroup", "weighted", "expected"),
    [
        pytest.param(V1.format("/"), (), True, id="v1, root"),
        pytest.param(V1.format("/docker/4711"), (), False, id="v1, a container's"),
        pytest.param(V2.format("/"), (), True, id="v2, root"),
        pytest.param(V2.format("/a.slice/b.service"), ("a.slice", "a.slice/b.service"), False, id="v2, below"),
        pytest.param(V2.format("/a.slice/b.service"), ("a.slice",), False, id="v2, its parent has a weight"),
        pytest.param(V2.format("/a.slice/b.service"), (), True, id="v2, nothing there has a weight"),
        pytest.param(V2.format("/gone.slice"), (), False, id="v2, not to be seen"),
        pytest.param("7:memory:/\n", (), False, id="neither"),
        pytest.param("", (), False, id="nothing"),
    ],
)
def test_whether_the_kernel_shares_the_cpu_out_among_sessions(
    cgroup: str, weighted: tuple[str, ...], expected: bool, tmp_path: Path
) -> None:
    assert kernel(tmp_path / "a", cgroup, weighted=weighted) is expected
    for number, enabled in enumerate(("0", None)):
        assert not kernel(tmp_path / str(number), cgroup, enabled=enabled, weighted=weighted)
    assert not kernel(tmp_path / "b", cgroup, namespace=OTHER_NAMESPACE, weighted=weighted)


def test_no_weight_of_no_process() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert keeper.weight(child) is None
    assert cpu_times.of_threads(child) == {}


def threads(proc: Path, pid: int, **schedstats: str) -> None:
    """Write what the kernel says of a process's threads."""
    for thread, text in schedstats.items():
        (proc / str(pid) / "task" / thread[1:]).mkdir(parents=True)
        (proc / str(pid) / "task" / thread[1:] / "schedstat").write_text(text)


def test_all_threads_count(tmp_path: Path) -> None:
    threads(tmp_path, 7, _7="1000 20 3\n", _8="5 400 1\n", _9="")  # the last one has just ended
    assert cpu_times.of_threads(7, tmp_path) == {7: CpuTimes(1000, 20), 8: CpuTimes(5, 400)}
    threads(tmp_path, 70, _70="0 0 0\n", _71="0 0 0\n")
    assert cpu_times.of_threads(70, tmp_path) == {}, "this kernel does not count"


def test_a_name_keeps_the_times_of_its_earlier_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {1: {1: CpuTimes(10, 1), 2: CpuTimes(20, 2)}, 5: {5: CpuTimes(100, 30)}}
    monkeypatch.setattr(cpu_times, "of_threads", lambda pid: told.get(pid, {}))
    meter = CpuMeter()
    assert meter.read({"a": 1, "b": 9}) == {"a": CpuTimes(30, 3)}
    told[1] = {2: CpuTimes(25, 4)}  # a thread has ended
    assert meter.read({"a": 1}) == {"a": CpuTimes(35, 5)}
    assert meter.read({"a": 5}) == {"a": CpuTimes(135, 35)}


MS = 1_000_000
BEFORE = {"n1": CpuTimes(50 * MS, 10 * MS), "n2": CpuTimes(0, 0)}


@pytest.mark.parametrize(
    ("waited_ms", "ran_ms", "latencies_s", "share", "contended"),
    [
        pytest.param(499, 70, 20.0, 0.499, False, id="many open at a time"),
        pytest.param(500, 70, 20.0, 0.5, True, id="many open at a time, a large part"),
        pytest.param(2400, 800, 20.0, 0.75, True, id="several threads at once"),
        pytest.param(2400, 2600, 20.0, 0.48, False, id="several threads at once, most of which have a CPU"),
        pytest.param(49, 20, 0.1, 0.49, False, id="seldom one open"),
        pytest.param(51, 20, 0.1, 0.51, True, id="seldom one open, a large part"),
        pytest.param(51, 20, 0.0, None, None, id="none succeeded"),
    ],
)
def test_the_share_is_of_the_time_with_an_operation_open(
    waited_ms: int, ran_ms: int, latencies_s: float, share: float | None, contended: bool | None
) -> None:
    after = {"n1": CpuTimes(80 * MS, 15 * MS), "n2": CpuTimes(ran_ms * MS, waited_ms * MS), "n3": CpuTimes(0, 1)}
    found = member_cpu.block(BEFORE, after, 1.0, latencies_s, keeper.Weight(10, None, None))
    assert found is not None
    assert found["members"] == [
        {"name": "n1", "ran_s": 0.03, "waited_s": 0.005},
        {"name": "n2", "ran_s": ran_ms / 1000, "waited_s": waited_ms / 1000},
        {"name": "n3", "ran_s": 0.0, "waited_s": 0.0},  # started meanwhile
    ]
    assert (found["share"], found["contended"]) == (share, contended)
    assert (found["nice"], found["session_nice"]) == (10, None)
    assert ("n2 was ready" in (found["contended_by"] or "")) is bool(contended)


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert member_cpu.block({}, {}, 1.0, 1.0) is None


def test_what_came_before_the_measured_time_and_after_it_does_not_count() -> None:
    told = iter([CpuTimes(0, 0), CpuTimes(0, 300 * MS), CpuTimes(0, 400 * MS)])
    cpu = MemberCpu(Target("local", {}, None, cpu_times=lambda: {"n1": next(told)}))
    cpu.begins()
    assert cpu.block(1.0, 1.0) is None, "it is not over"
    cpu.begins()  # the warm-up is over
    cpu.ends()
    cpu.ends()  # reads nothing any more
    found = cpu.block(1.0, 1.0)
    assert found is not None
    assert (found["share"], found["nice"]) == (0.1, None)


def test_a_cluster_that_is_gone_or_not_of_this_machine_is_no_error() -> None:
    def gone() -> dict[str, CpuTimes]:
        raise ClusterError("the local cluster is gone")

    for tell in (gone, None):
        cpu = MemberCpu(Target("local", {}, None, cpu_times=tell))
        cpu.begins()
        cpu.ends()
        assert cpu.block(1.0, 1.0) is None
