"""The wheels and the sdist: all that raftload needs is in them, and an installation from them works."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from cluster.local.cluster import LocalCluster
from loadgen.engine import built
from tests.support.cache import cached
from tests.support.checkout import is_built
from tests.support.command import ROOT, assert_refused

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
IN_SDIST = [each.lstrip("/") for each in PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]]
SCRIPTS: dict[str, str] = PROJECT["project"]["scripts"]
NAME = f"raftload-{PROJECT['project']['version']}"
SAYS = f"raftload {PROJECT['project']['version']}, engine"
CORE = f"loadgen/engine/core{sysconfig.get_config_var('EXT_SUFFIX')}"
NOT_BUILT = r"raftload: the compiled core was not built, the Python engine will be used: \S*"
NO_COMPILER = "no-such-compiler"
# A core is compiled in a fraction of the time; whoever installs the checkout compiles it as a release does.
QUICKLY = "-O0"
NO_HEADERS = "core.c:28:10: fatal error: Python.h: No such file or directory"


def call(*words: str | Path, cwd: Path = ROOT, **env: str) -> str:
    done = subprocess.run(
        [str(each) for each in words], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def backend() -> Path:
    """Return a folder with the build backend, as pip gets it for each build from the network."""
    needed = [
        *PROJECT["build-system"]["requires"],
        "editables",
    ]  # the last is what hatchling asks for where it needs it

    def make(folder: Path) -> Path:
        call(sys.executable, "-m", "pip", "install", "--quiet", "--target", folder / "backend", *needed)
        return folder / "backend"

    return cached(f"build-backend-{''.join(filter(str.isalnum, ''.join(needed)))}", make)


def build(project: Path, folder: Path, kind: str) -> Path:
    """Build a distribution of a kind into a folder; return its file."""
    call(
        sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", folder, cwd=project, PYTHONPATH=str(backend()),
        CFLAGS=QUICKLY,
    )  # fmt: skip
    (made,) = folder.iterdir()
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("sdist"), "sdist")


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the sdist's folder, from which a release makes the wheels."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as tar:
        # Python 3.11.4 is the first that has filters; 3.12 warns where none is named.
        tar.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return folder / NAME


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel as this machine makes it, with the core where there is a compiler."""
    return build(unpacked, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def with_small_core(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same with a core that is compiled, or is not, in no time."""
    folder = tmp_path_factory.mktemp("small") / NAME
    shutil.copytree(unpacked, folder)
    (folder / "loadgen" / "engine" / "core.pyx").write_text("small = True\n")
    return folder


def build_without_core(project: Path, folder: Path, compiler: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Build a wheel into a folder with a compiler that cannot compile the core."""
    return subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        env={**os.environ, "PYTHONPATH": str(backend()), "RAFTLOAD_REQUIRE_CORE": "0", "CC": compiler, **env},
        cwd=project, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pure(with_small_core: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel of a machine without Python's headers, made beside the cores of earlier builds."""
    folder = tmp_path_factory.mktemp("pure")
    compiler = folder / "cc"
    compiler.write_text(f"#!/bin/sh\necho '{NO_HEADERS}' >&2\nexit 1\n")
    compiler.chmod(0o755)
    for leftover in (CORE, "loadgen/engine/core.other.so", "loadgen/engine/core.c"):
        (with_small_core / leftover).touch()
    (with_small_core / ".gitignore").unlink()  # as in the context of an image
    done = build_without_core(with_small_core, folder / "dist", str(compiler))
    assert done.returncode == 0
    said, made = done.stderr.splitlines()  # hatchling names what it made
    assert re.fullmatch(NOT_BUILT + NO_HEADERS, said)
    return Path(made)


def install(wheel: Path, there: Path) -> dict[str, str]:
    """Install a wheel into a folder; return the environment in which it is found, beside this Python's dependencies."""
    call(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", there, wheel)
    return {"PYTHONPATH": str(there), "PYTHONSAFEPATH": "1"}


def files_of(folders: Iterable[str]) -> set[str]:
    """Return the files below folders of the checkout that are no leftovers of Python's or of a build of the core."""
    below = (ROOT / each for each in folders)
    found = (file for each in below for file in ([each] if each.is_file() else each.rglob("*")) if file.is_file())
    return {str(file.relative_to(ROOT)) for file in found if not is_built(file)}


def test_the_sdist_has_what_its_tests_and_pages_need(sdist: Path) -> None:
    with tarfile.open(sdist) as tar:
        entries = {entry.name.removeprefix(f"{NAME}/"): entry for entry in tar.getmembers()}
    assert files_of(IN_SDIST) <= set(entries)
    assert entries[".ci/packages"].mode & 0o111
    assert not [name for name in entries if is_built(Path(name))]


@pytest.mark.parametrize("kind", ["wheel", "pure"])
def test_a_wheel_has_every_file_of_the_packages_and_no_others(kind: str, request: pytest.FixtureRequest) -> None:
    wheel: Path = request.getfixturevalue(kind)
    with_core = kind == "wheel" and not built.missing()
    assert wheel.name.endswith("-py3-none-any.whl") != with_core
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = archive.read(f"{NAME}.dist-info/entry_points.txt").decode()
    ours = files_of(PACKAGES)
    for needed in (
        "loadgen/schema/result.schema.json", "cluster/schema/cluster.schema.json", "loadgen/proto/etcd_pb2.py",
        "loadgen/webui/static/cluster.js", "loadgen/webui/templates/cluster.html", "locustfiles/kv.py",
    ):  # fmt: skip
        assert needed in ours
    core = {CORE} if with_core else set()
    assert {name for name in names if not name.startswith(f"{NAME}.dist-info/")} == ours | core
    assert f"{NAME}.dist-info/licenses/LICENSE" in names
    parsed = configparser.ConfigParser()
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read_string(entry_points)
    assert dict(parsed["console_scripts"]) == SCRIPTS


def test_an_installation_of_the_wheel_works(wheel: Path, tmp_path: Path) -> None:
    """With this Python's dependencies, from another folder, and without the checkout on the path."""
    there = tmp_path / "installed"
    env = install(wheel, there)
    assert {path.name for path in (there / "bin").iterdir()} == set(SCRIPTS)
    for name in SCRIPTS:
        assert "usage: " in call(there / "bin" / name, "--help", cwd=tmp_path, **env)
    assert call(there / "bin" / "raftload", "--version", cwd=tmp_path, **env) == f"{SAYS} {built.described()}\n"
    program = (
        "import loadgen, cluster, viz.cli.command, locustfiles.kv; from loadgen import schema; from cluster import"
        " schema as s; schema.load('result'), s.load('cluster'); print(loadgen.__file__)"
    )
    assert call(sys.executable, "-c", program, cwd=tmp_path, **env).startswith(str(there))


@pytest.mark.core
def test_the_core_is_found_in_an_installation(wheel: Path, tmp_path: Path) -> None:
    env = install(wheel, tmp_path / "installed")
    program = "from loadgen.engine import core; print(core.__file__)"
    assert call(sys.executable, "-c", program, cwd=tmp_path, **env) == f"{tmp_path}/installed/{CORE}\n"


def test_an_installation_without_the_core_runs_on_python(pure: Path, tmp_path: Path, etcd_single: LocalCluster) -> None:
    raftload = tmp_path / "installed" / "bin" / "raftload"
    env = install(pure, tmp_path / "installed")
    assert call(raftload, "--version", cwd=tmp_path, **env) == f"{SAYS} python ({built.NOT_BUILT})\n"
    words = [raftload, "bench", "--endpoints", etcd_single.endpoints[0], "--operations", "100"]
    call(*words, "--output", "run", cwd=tmp_path, **env)
    generator = json.loads((tmp_path / "run" / "result.json").read_text())["generator"]
    assert (generator["engine"], generator["engine_reason"]) == ("python", built.NOT_BUILT)
    done = subprocess.run(
        [*words, "--engine", "compiled"], cwd=tmp_path, env={**os.environ, **env}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert_refused(done, built.NOT_BUILT)


def test_a_core_that_must_be_built_fails_the_build(with_small_core: Path, tmp_path: Path) -> None:
    done = build_without_core(with_small_core, tmp_path, NO_COMPILER, RAFTLOAD_REQUIRE_CORE="1")
    assert done.returncode == 1
    assert re.fullmatch(
        f"{NOT_BUILT}.*{NO_COMPILER}.*; RAFTLOAD_REQUIRE_CORE=1 makes that a failure", done.stderr.splitlines()[-1]
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.core
def test_an_editable_installation_has_the_core_in_the_checkout_or_none(with_small_core: Path, tmp_path: Path) -> None:
    """One of an older source, which an installation without a compiler would leave, would answer for the new one."""
    program = f"import hatchling.build as build; print(build.build_editable({str(tmp_path)!r}))"
    env = {"PYTHONPATH": str(backend()), "RAFTLOAD_REQUIRE_CORE": "0"}
    made = with_small_core / CORE
    made.unlink(missing_ok=True)
    call(sys.executable, "-c", program, cwd=with_small_core, **env)
    assert made.stat().st_size > 0
    call(sys.executable, "-c", program, cwd=with_small_core, **env, CC=NO_COMPILER)
    assert not made.exists()
