"""What takes a processor away from processes, for the length of a block: quotas, neighbours, stops (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.support.command import ROOT

_CGROUPS = Path("/sys/fs/cgroup")
_GROUP = "raftload-diagnose-"
_PERIOD_US = 100_000
_PR_SET_PDEATHSIG = 1
_ENDS_S = 10.0
_numbers = itertools.count(1)


# Processes that end with this one


def start(
    words: Sequence[str], *, cpus: frozenset[int] = frozenset(), nice: int = 0,
    ends_by: signal.Signals = signal.SIGKILL, **options: Any,
) -> subprocess.Popen[str]:  # fmt: skip
    """Start a process that the kernel ends by a signal when this one ends, however it does.

    Takes the processors that it may use, all if empty, and how much it weighs less.
    """
    libc = ctypes.CDLL(None)

    def in_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(ends_by), 0, 0, 0)
        if cpus:
            os.sched_setaffinity(0, cpus)
        with contextlib.suppress(PermissionError):
            os.nice(nice)

    options = {"stdin": subprocess.DEVNULL, "text": True, "process_group": 0, "cwd": ROOT, **options}
    options["env"] = {**os.environ, "PYTHONPATH": str(ROOT), **options.get("env", {})}
    return subprocess.Popen(words, preexec_fn=in_child, **options)  # noqa: PLW1509 (it takes no lock)


def end(process: subprocess.Popen[str], number: signal.Signals = signal.SIGKILL, within_s: float = _ENDS_S) -> None:
    """End a process by a signal, and its group by SIGKILL where it takes longer than so many seconds."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(within_s)
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(_ENDS_S)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


# Which processors


def two_processors() -> tuple[int, int]:
    """Return two processors that this process may use. Raises RuntimeError where it has one."""
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) < 2:
        raise RuntimeError("it needs two processors")
    return mine[0], mine[-1]


def pin(pid: int, cpus: frozenset[int]) -> None:
    """Have all threads of a process use these processors; new ones inherit that."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cpus)


@contextlib.contextmanager
def spinning(count: int, cpu: int, nice: int = 0) -> Iterator[None]:
    """Run so many processes that do nothing but use a processor, and weigh ``nice`` less than this one.

    More, if that is negative and this user may.
    """
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            process = start([sys.executable, "-S", "-c", "while True: pass"], cpus=frozenset([cpu]), nice=nice)
            stack.callback(end, process)
        yield


# Quotas


def _v1() -> Path | None:
    for name in ("cpu", "cpu,cpuacct"):
        if os.access(_CGROUPS / name / "cpu.cfs_quota_us", os.F_OK) or (_CGROUPS / name / "cgroup.procs").exists():
            return _CGROUPS / name
    return None


def why_no_quota() -> str:
    """Return why no quota can be set here; empty where one can."""
    try:
        with _group(1.0):
            return ""
    except OSError as exc:
        return f"no CPU quota can be set here: {exc}"


@contextlib.contextmanager
def _group(cores: float) -> Iterator[Path]:
    """Make a control group that may use so many processors, and remove it in the end."""
    first = _v1()
    root = first or _CGROUPS
    if first is None:
        if "cpu" not in (root / "cgroup.controllers").read_text().split():
            raise OSError("the group of all processes has no controller of CPU time")
        (root / "cgroup.subtree_control").write_text("+cpu")
    for old in root.glob(f"{_GROUP}*"):  # whoever made it was killed
        with contextlib.suppress(OSError):
            old.rmdir()
    group = root / f"{_GROUP}{os.getpid()}-{next(_numbers)}"
    group.mkdir()
    try:
        quota = round(cores * _PERIOD_US)
        if first is not None:
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (group / "cpu.max").write_text(f"{quota} {_PERIOD_US}")
        yield group
    finally:
        group.rmdir()


def _group_of(pid: int) -> Path:
    """Return the control group of a process that counts for its CPU time."""
    first = _v1()
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if (first is not None and "cpu" in controllers.split(",")) or (first is None and not controllers):
            return (first or _CGROUPS) / path.lstrip("/")
    return first or _CGROUPS


@contextlib.contextmanager
def quota(pid: int, cores: float) -> Iterator[None]:
    """Let a process use so many processors, such as 0.05, and no more. Raises OSError."""
    with _group(cores) as group:
        before = _group_of(pid)
        (group / "cgroup.procs").write_text(str(pid))
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                (before / "cgroup.procs").write_text(str(pid))


@contextlib.contextmanager
def quotas(cores: float) -> Iterator[Callable[[Sequence[int]], None]]:
    """Yield what takes pids, and lets each of these processes use so many processors from then on."""
    with contextlib.ExitStack() as stack:
        limited: set[int] = set()

        def limit(pids: Sequence[int]) -> None:
            for pid in {*pids} - limited:
                limited.add(pid)
                stack.enter_context(quota(pid, cores))

        yield limit


# Stops

_FREEZER = """
import os, select, signal, sys, time
on, off = float(sys.argv[1]), float(sys.argv[2])
pids, rest, stopped, at = [], b"", False, time.monotonic()
def tell(number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
try:
    while True:
        ready = select.select([0], [], [], max(0.0, at - time.monotonic()))[0]
        if ready:
            read = os.read(0, 65536)
            if not read:
                break
            *lines, rest = (rest + read).split(b"\\n")
            if lines:
                tell(signal.SIGCONT)
                pids = [int(each) for each in lines[-1].split()]
                stopped = False
            continue
        stopped = not stopped
        tell(signal.SIGSTOP if stopped else signal.SIGCONT)
        at = max(at, time.monotonic() - 1) + (on if stopped else off)
finally:
    tell(signal.SIGCONT)
"""


@contextlib.contextmanager
def freezing(stopped_s: float, running_s: float) -> Iterator[Callable[[Sequence[int]], None]]:
    """Stop processes for so long and let them run for so long, in turn; yield what takes their pids, and then others.

    They run on when this process ends, however it does: the one that stops them reads its pids from a pipe.
    """
    words = [sys.executable, "-S", "-c", _FREEZER, str(stopped_s), str(running_s)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, text=True, process_group=0)
    assert process.stdin is not None
    pipe = process.stdin

    def freeze(pids: Sequence[int]) -> None:
        pipe.write(" ".join(map(str, pids)) + "\n")
        pipe.flush()

    try:
        yield freeze
    finally:
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
        process.wait(_ENDS_S)
