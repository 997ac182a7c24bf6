"""One Docker cluster at a time: the names are fixed, and somebody's own cluster is not for tests to remove."""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import ClusterCommands


class Docker(ClusterCommands):
    """`raftload cluster …` against the Engine."""

    def docker(self, *args: str) -> str:
        done = subprocess.run(["docker", *args], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def everything(self) -> dict[str, list[str]]:
        """What there is on the Engine, and in /dev/shm of ours."""
        return {
            "containers": sorted(self.docker("ps", "-a", "--format", "{{.Names}}").split()),
            "networks": sorted(self.docker("network", "ls", "--format", "{{.Name}}").split()),
            "volumes": sorted(self.docker("volume", "ls", "-q").split()),
            "folders": sorted(str(path) for path in Path("/dev/shm").glob("raftload-docker-*")),
        }


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Docker]:
    """Commands against the Engine; fails where the test leaves something on it."""
    docker = Docker(tmp_path)
    with Path(tempfile.gettempdir(), "raftload-docker-tests.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = docker.everything()
        if any("etcd-node" in name for name in before["containers"]):
            pytest.fail("containers named etcd-node… are there: `raftload cluster down` first", pytrace=False)
        try:
            yield docker
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                docker.run("down", code=None)
            assert docker.everything() == before
