"""The Engine found by a Docker context, made by the real `docker` command."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docker.conftest import Docker
from tests.support.missing import ENGINE

pytestmark = pytest.mark.docker


def test_a_cluster_on_the_engine_of_a_context(engine: Docker, tmp_path: Path) -> None:
    """Its socket lies elsewhere, as a rootless Engine's does, and nothing else names it."""
    real = ENGINE.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if shutil.which("docker") is None or not real.startswith("unix://"):
        pytest.skip("no docker command, or the Engine has no Unix socket")
    (tmp_path / "run").mkdir()
    there, gone = tmp_path / "run" / "docker.sock", tmp_path / "run" / "gone.sock"
    there.symlink_to(real.removeprefix("unix://"))
    env = {"DOCKER_CONFIG": str(tmp_path / "config"), "DOCKER_HOST": ""}

    def docker(*words: str) -> None:
        subprocess.run(
            ["docker", "--config", env["DOCKER_CONFIG"], *words], check=True, capture_output=True, timeout=60
        )

    for name, path in (("mine", there), ("dead", gone)):
        docker("context", "create", name, "--docker", f"host=unix://{path}")
    docker("context", "use", "mine")
    made = engine.json("up", "--nodes", "1", **env)
    assert (made["done"], made["quorum"]) == ("created", True)
    refused = engine.run("up", code=4, DOCKER_CONTEXT="dead", **env)
    assert f"error: no Docker Engine at unix://{gone} (the Docker context dead): " in refused.stderr
    assert "removed container etcd-node1" in engine.run("down", **env).stdout
    docker("context", "use", "dead")
    refused = engine.run("up", code=4, **env)
    assert f"no Docker Engine at unix://{gone} (the Docker context dead): " in refused.stderr
