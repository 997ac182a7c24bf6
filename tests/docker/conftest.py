"""One Docker cluster at a time: the names are fixed, and somebody's own cluster is not for tests to remove."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cluster import schema

ROOT = Path(__file__).resolve().parents[2]


class Docker:
    """`raftload cluster …` against the Engine, with a state folder of its own."""

    def __init__(self, folder: Path) -> None:
        from cluster.binary import find_etcd

        self.folder = folder
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ETCD_", "ETCDCTL_")) and k != "NODES"}
        self.env = {
            **kept, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(folder), "ETCD_BINARY": find_etcd().path,
        }  # fmt: skip

    def start(self, *args: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "cluster.cli", *args], env={**self.env, **env},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def run(self, *args: str, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
        with self.start(*args, **env) as process:
            out, err = process.communicate(timeout=120)
        assert code is None or process.returncode == code, f"{args} exited with {process.returncode}: {err}{out}"
        assert "Traceback" not in err
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def json(self, *args: str, code: int = 0, **env: str) -> Any:
        """The document that a command prints, as its schema says."""
        document = json.loads(self.run(*args, "--json", code=code, **env).stdout)
        name = document["schema"].removeprefix("raftload.").partition("/")[0]
        jsonschema.validate(document, schema.load(name))
        return document

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
