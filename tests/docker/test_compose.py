"""The image of docs/deploy and its compose file, on a real Engine, without any registry of images.

The base image is made from this machine's own Python and what it is linked with; the packages come from a folder of
wheels, as where no index can be reached; those of dependencies are made once, in the user's cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from loadgen import schema
from tests.docker.conftest import Docker
from tests.support.cache import cached

pytestmark = pytest.mark.docker
ROOT = Path(__file__).resolve().parents[2]
PROJECT = "raftload-compose-test"
BASE = "raftload-test-python:local"


def compose_command() -> list[str]:
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    done = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if done.returncode == 0:
        return ["docker", "compose"]
    if os.environ.get("RAFTLOAD_REQUIRE_DOCKER") == "1":
        pytest.fail("RAFTLOAD_REQUIRE_DOCKER=1, but there is no docker-compose", pytrace=False)
    pytest.skip("no docker-compose, and docker has no compose")


def linked_with(files: list[Path]) -> set[Path]:
    done = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=False)
    return {Path(path) for path in re.findall(r"(?:=> |^\s*)(/\S+) \(0x", done.stdout, re.MULTILINE)}


def write_root_file_system(archive: Path) -> None:
    """Write a tar of a shell, this Python with pip, and what they are linked with:

    what `docker import` makes an image of.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    standard = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix}))
    program = Path(sys.base_prefix, "bin", version).resolve()
    shell = Path("/bin/sh").resolve()
    with tarfile.open(archive, "w") as tar:

        def without_ballast(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
            parts = Path(info.name).parts
            ballast = {"site-packages", "dist-packages", "test", "idlelib", "ensurepip", "__pycache__"}
            return None if ballast & set(parts[-1:]) else info

        tar.add(standard, f"usr/local/lib/{version}", filter=without_ballast)
        import pip

        tar.add(Path(pip.__file__).parent, f"usr/local/lib/{version}/site-packages/pip")
        for name in ("python", "python3", version):
            tar.add(program, f"usr/local/bin/{name}")
        tar.add(shell, "bin/sh")
        libraries = linked_with([program, shell, *standard.glob("lib-dynload/*.so")])
        # What the wheels are linked with, and what names are looked up with.
        for name in ("stdc++", "gcc_s", "rt", "pthread", "dl", "util", "m", "resolv", "nss_dns", "nss_files"):
            libraries.update(Path("/usr/lib").glob(f"*-linux-gnu/lib{name}.so.*"))
        inside = {str(path).removeprefix("/usr").lstrip("/"): path.resolve() for path in libraries}
        for name, path in inside.items():
            tar.add(path, name)
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(folder)


def pip_wheel(project: Path, *words: str, **env: str) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "-w", "wheelhouse", "-c", "constraints.txt", *words]
    done = subprocess.run(command, cwd=project, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def wheels_of_dependencies() -> Path:
    """Return a folder of wheels of all that raftload needs."""
    needed = project()["dependencies"]
    constraints = (ROOT / "constraints.txt").read_text()

    def make(folder: Path) -> Path:
        (folder / "constraints.txt").write_text(constraints)
        pip_wheel(folder, *needed)
        return folder / "wheelhouse"

    about = json.dumps([needed, constraints, sys.version])
    return cached(f"wheels-{hashlib.sha256(about.encode()).hexdigest()[:12]}", make)


def project() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Return a copy of the project as a build needs it, with a folder of wheels."""
    context = tmp_path / "context"
    context.mkdir()
    for name in ("cluster", "loadgen", "locustfiles", "viz", "docs"):
        shutil.copytree(ROOT / name, context / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "hatch_build.py", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, context / name)
    shutil.copytree(wheels_of_dependencies(), context / "wheelhouse")
    pip_wheel(context, "--no-deps", ".", CFLAGS="-O0")  # in a fraction of the time
    return context


@pytest.fixture
def images(engine: Docker, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Environment that names the base image and an image of etcd; what was made is removed."""
    engine.run("up", "--nodes", "1")
    etcd = engine.docker("inspect", "--format", "{{.Config.Image}}", "etcd-node1").strip()
    engine.run("down")
    root = tmp_path / "root.tar"
    write_root_file_system(root)
    # Where Python was built for another prefix it looks for its library there.
    engine.docker("import", "--change", "ENV PYTHONHOME=/usr/local PATH=/usr/local/bin:/bin", str(root), BASE)
    yield {"BASE": BASE, "ETCD_IMAGE": etcd, "RAFTLOAD_IMAGE": "raftload-test:local", "DOCKER_BUILDKIT": "0"}
    engine.docker("rmi", "--force", "raftload-test:local", BASE)


def assert_the_image_works_alone(engine: Docker, version: str) -> None:
    """Assert that a container of it starts members of the etcd that is in the image, and loads them."""
    words = ("run", "--rm", "raftload-test:local")
    result = json.loads(engine.docker(*words, "bench", "--operations", "60", "--workers", "1", "--json"))
    assert (result["target"]["kind"], result["target"]["etcd_version"]) == ("embedded", version)
    assert result["results"]["total"]["succeeded"] == 60
    tested = json.loads(engine.docker(*words, "cluster", "test", "--nodes", "1", "--only", "kv.own-member", "--json"))
    assert (tested["target"]["kind"], tested["verdict"]) == ("embedded", "PASS")


def test_the_compose_file_runs_a_cluster_a_master_and_workers(
    engine: Docker, images: dict[str, str], context: Path
) -> None:
    before = engine.everything()
    file = str(context / "docs/deploy/compose.yaml")
    command = [*compose_command(), "--project-name", PROJECT, "-f", file]
    env = {**os.environ, **images, "WORKERS": "3", "OPERATIONS": "1500", "COMPOSE_DOCKER_CLI_BUILD": "0"}

    def compose(*arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments], env=env, capture_output=True, text=True, timeout=timeout, check=False
        )

    try:
        done = compose("up", "--build", "--no-color", "--scale", "worker=3", "--exit-code-from", "master")
        assert done.returncode in (0, 3), done.stdout[-3000:] + done.stderr[-3000:]
        assert "3 of 3 workers" in done.stdout
        labels = (f"label=com.docker.compose.project={PROJECT}", "label=com.docker.compose.service=master")
        filters = [word for label in labels for word in ("--filter", label)]
        master = engine.docker("ps", "-a", *filters, "--format", "{{.ID}}").strip()
        engine.docker("cp", f"{master}:/results/run", str(context / "run"))
        result = json.loads((context / "run" / "result.json").read_text())
        jsonschema.validate(result, schema.load("result"))
        assert result["results"]["total"]["operations"] == 1500
        assert result["results"]["total"]["failed"] == 0
        assert len({worker["host"] for worker in result["generator"]["workers"]}) == 3
        assert len(result["target"]["members"]) == 3
        assert_the_image_works_alone(engine, result["target"]["etcd_version"])
    finally:
        compose("down", "--volumes", "--timeout", "1")
    assert engine.everything() == before
