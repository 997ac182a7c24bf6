"""One Docker cluster at a time: the names are fixed, and somebody's own cluster is not for tests to remove."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.docker.engine import connect
from tests.support.command import ClusterCommands
from tests.support.engine import engine_alone, everything
from tests.support.missing import ENGINE


@pytest.fixture(scope="module", autouse=True)
def the_engine(nobody_elses_cluster: None) -> Iterator[None]:
    """Lets the tests of this folder reach the Engine, as no others do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DOCKER_HOST")
        for name, value in ENGINE.items():
            patch.setenv(name, value)
        yield


class Docker(ClusterCommands):
    """`raftload cluster …` against the Engine.

    Attributes: ``client``, the Docker SDK's, to look at the Engine without starting a command for it.
    """

    def __init__(self, folder: Path, client: Any) -> None:
        super().__init__(folder)
        self.client = client

    def docker(self, *args: str) -> str:
        done = subprocess.run(["docker", *args], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def containers(self) -> list[str]:
        """Return the names of all containers, also of those that have ended."""
        return sorted(each["Names"][0].lstrip("/") for each in self.client.api.containers(all=True))

    def networks(self) -> list[str]:
        return sorted(each["Name"] for each in self.client.api.networks())

    def everything(self) -> dict[str, list[str]]:
        """Return what there is on the Engine, and in /dev/shm of ours."""
        return everything(self.client)


@contextlib.contextmanager
def using_the_engine(folder: Path) -> Iterator[Docker]:
    """Commands against the Engine, with a state folder; fails where something is left on it after the block."""
    with engine_alone(), contextlib.closing(connect()) as client:
        docker = Docker(folder, client)
        before = docker.everything()
        if any("etcd-node" in name for name in before["containers"]):
            pytest.fail("containers named etcd-node… are there: `raftload cluster down` first", pytrace=False)
        try:
            yield docker
        finally:
            if docker.everything() != before:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    docker.run("down", code=None)
            assert docker.everything() == before


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Docker]:
    """Commands against the Engine; fails where the test leaves something on it."""
    with using_the_engine(tmp_path) as docker:
        yield docker
