"""The wheel and the sdist: all that raftload needs is in them, and an installation from them works."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.support.cache import cached
from tests.support.command import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
IN_SDIST = [each.lstrip("/") for each in PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]]
SCRIPTS: dict[str, str] = PROJECT["project"]["scripts"]
NAME = f"raftload-{PROJECT['project']['version']}"


def call(*words: str | Path, cwd: Path = ROOT, **env: str) -> str:
    done = subprocess.run(
        [str(each) for each in words], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def backend() -> Path:
    """Return a folder with the build backend, as pip gets it for each build from the network."""
    needed = PROJECT["build-system"]["requires"]

    def make(folder: Path) -> Path:
        call(sys.executable, "-m", "pip", "install", "--quiet", "--target", folder / "backend", *needed)
        return folder / "backend"

    return cached(f"build-backend-{''.join(filter(str.isalnum, ''.join(needed)))}", make)


def build(project: Path, folder: Path, kind: str) -> Path:
    """Build a distribution of a kind into a folder; return its file."""
    call(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", folder, cwd=project, PYTHONPATH=str(backend()))
    (made,) = folder.iterdir()
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("sdist"), "sdist")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel that is made of the sdist, as a release makes it."""
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as tar:
        tar.extractall(unpacked, filter="data")
    return build(unpacked / NAME, tmp_path_factory.mktemp("wheel"), "wheel")


def files_of(folders: Iterable[str]) -> set[str]:
    """Return the files below folders of the checkout that are no leftovers of Python's."""
    below = (ROOT / each for each in folders)
    found = (file for each in below for file in ([each] if each.is_file() else each.rglob("*")) if file.is_file())
    return {str(file.relative_to(ROOT)) for file in found if file.suffix != ".pyc"}


def test_the_sdist_has_what_its_tests_and_pages_need(sdist: Path) -> None:
    with tarfile.open(sdist) as tar:
        entries = {entry.name.removeprefix(f"{NAME}/"): entry for entry in tar.getmembers()}
    assert files_of(IN_SDIST) <= set(entries)
    assert entries[".ci/packages"].mode & 0o111


def test_the_wheel_has_every_file_of_the_packages_and_no_others(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = archive.read(f"{NAME}.dist-info/entry_points.txt").decode()
    ours = files_of(PACKAGES)
    for needed in (
        "loadgen/schema/result.schema.json", "cluster/schema/cluster.schema.json", "loadgen/proto/etcd_pb2.py",
        "loadgen/webui/static/cluster.js", "loadgen/webui/templates/cluster.html", "locustfiles/kv.py",
    ):  # fmt: skip
        assert needed in ours
    assert {name for name in names if not name.startswith(f"{NAME}.dist-info/")} == ours
    assert f"{NAME}.dist-info/licenses/LICENSE" in names
    parsed = configparser.ConfigParser()
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read_string(entry_points)
    assert dict(parsed["console_scripts"]) == SCRIPTS


def test_an_installation_of_the_wheel_works(wheel: Path, tmp_path: Path) -> None:
    """With this Python's dependencies, from another folder, and without the checkout on the path."""
    there = tmp_path / "installed"
    call(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", there, wheel)
    env = {"PYTHONPATH": str(there), "PYTHONSAFEPATH": "1"}
    assert {path.name for path in (there / "bin").iterdir()} == set(SCRIPTS)
    for name in SCRIPTS:
        assert "usage: " in call(there / "bin" / name, "--help", cwd=tmp_path, **env)
    version = PROJECT["project"]["version"]
    assert call(there / "bin" / "raftload", "--version", cwd=tmp_path, **env) == f"raftload {version}\n"
    program = (
        "import loadgen, cluster, viz.cli.command, locustfiles.kv; from loadgen import schema; from cluster import"
        " schema as s; schema.load('result'), s.load('cluster'); print(loadgen.__file__)"
    )
    assert call(sys.executable, "-c", program, cwd=tmp_path, **env).startswith(str(there))
