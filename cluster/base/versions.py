"""Versions of etcd: how they are written, and where the user's cache has the official release of one."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path

from cluster.base.errors import ClusterError, UsageError

CURRENT = "3.6.14"
"""The release that is run, or advised, where nobody named one."""
_VERSION = re.compile(r"v?(\d+\.\d+\.\d+(?:-[0-9A-Za-z.]+)?)", re.ASCII)
_MEANT_AS_ONE = re.compile(r"v?\d+(\.[\w+-]+)*", re.ASCII)
_SYSTEMS = {"Linux": "linux", "Darwin": "darwin"}
_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def parse_version(text: str) -> str:
    """Take ``v3.5.10`` or ``3.5.10``, return ``3.5.10``. Raises UsageError."""
    match = _VERSION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not an etcd version: write it like v{CURRENT}")
    return match.group(1)


def version_or_path(text: str) -> str | Path:
    """Return what a text names that may be either: a version, without its ``v``, or the path of a binary.

    Raises UsageError for an unfinished version such as ``3.6``, unless a file of that name is there.
    """
    if _VERSION.fullmatch(text.strip()):
        return parse_version(text)
    if _MEANT_AS_ONE.fullmatch(text.strip()) and not Path(text).exists():
        raise UsageError(f"{text!r} is not an etcd version: write it like v{CURRENT}; or give the path of a binary")
    return Path(text)


def release_name(version: str, system: str | None = None, machine: str | None = None) -> str:
    """Return the name that etcd gives to a release for a platform, ``etcd-v3.6.14-linux-amd64``.

    Takes the version without ``v``, and the platform as Python's ``platform`` names it; default: this one. Raises
    ClusterError where etcd publishes nothing for it.
    """
    system, machine = system or platform.system(), machine or platform.machine()
    if system not in _SYSTEMS or machine not in _MACHINES:
        raise ClusterError(
            f"there is no official etcd for {system} on {machine}, only for Linux and macOS on amd64 and arm64: "
            "build it, and set RAFTLOAD_ETCD to its path"
        )
    return f"etcd-v{version}-{_SYSTEMS[system]}-{_MACHINES[machine]}"


def releases_dir(env: Mapping[str, str] | None = None) -> Path:
    """Return the folder of releases: ``$XDG_CACHE_HOME/raftload/releases``, else ``~/.cache/raftload/releases``."""
    env = os.environ if env is None else env
    root = env.get("XDG_CACHE_HOME", "")
    return (Path(root) if os.path.isabs(root) else Path("~/.cache").expanduser()) / "raftload" / "releases"  # noqa: PTH117


def cached_binary(version: str, env: Mapping[str, str] | None = None) -> Path | None:
    """Return the path of etcd in the cached release of a version; None where it is not there.

    Raises as ``release_name``.
    """
    path = releases_dir(env) / release_name(version) / "etcd"
    return path if path.is_file() else None
