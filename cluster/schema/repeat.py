"""The line that runs something again: the variables that mattered, the command, its seed."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

# Names the etcd to run, a version or a path; `cluster.base.binary` reads it.
ETCD_VARIABLE = "RAFTLOAD_ETCD"
_PASSWORD, _USER = "ETCDCTL_PASSWORD", "ETCDCTL_USER"
_OF_ENDPOINTS = ("ETCDCTL_ENDPOINTS", "ETCDCTL_DISCOVERY_SRV", "ETCDCTL_DISCOVERY_SRV_NAME")
_OF_DOCKER = ("NODES", "ETCD_VERSION", "ETCD_IMAGE", "ETCD_BINARY")
# Options in whose presence variables say nothing, and one that names a folder which is there now.
_OVERRIDE = {"--etcd": (ETCD_VARIABLE,), "--endpoints": _OF_ENDPOINTS, "--discovery-srv": _OF_ENDPOINTS}
_OUTPUT = "--output"


def environment(kind: str, etcd: str | None = None, env: Mapping[str, str] | None = None) -> dict[str, str | None]:
    """Return the variables that a run depends on; None for one that is a secret.

    Takes the kind of its target, what names the etcd of an embedded cluster (a version or a path, wherever it was
    found), and the environment (default: this process's).
    """
    env = os.environ if env is None else env
    if kind == "embedded":
        return {ETCD_VARIABLE: etcd} if etcd else {}
    names = _OF_DOCKER if kind == "docker" else tuple(name for name in sorted(env) if name.startswith("ETCDCTL_"))
    if env.get("ETCDCTL_DISCOVERY_SRV"):
        names += ("RAFTLOAD_NAMESERVER",)
    found: dict[str, str | None] = {name: env[name] for name in names if env.get(name) and name != "ETCDCTL_API"}
    if _PASSWORD in found:
        found[_PASSWORD] = None
    elif _USER in found:  # name:password
        name, _, password = str(found[_USER]).partition(":")
        found |= {_USER: name, _PASSWORD: None} if password else {}
    return found


def words(command: Iterable[object], seed: int | None) -> list[str]:
    """Return a command that does the same as one that was given: its seed explicit, its program without the folder, and
    without the output folder, which exists now.
    """
    given = [str(word) for word in command]
    if not given:
        return []
    made = [Path(given[0]).name]
    skip = False
    for word in given[1:]:
        if not skip and word != _OUTPUT and not word.startswith(f"{_OUTPUT}="):
            made.append(word)
        skip = word == _OUTPUT
    if seed is not None and made[1:2] != ["web"] and not _has(made, "--seed"):
        made += ["--seed", str(seed)]
    return made


def line(command: Iterable[str], variables: Mapping[str, str | None]) -> str:
    """Return what to type into a shell: the variables, those that an option makes void left out, and the command."""
    given = list(command)
    void = {name for option, names in _OVERRIDE.items() if _has(given, option) for name in names}
    said = [
        f'{name}="${name}"' if value is None else f"{name}={shlex.quote(value)}"
        for name, value in variables.items() if name not in void
    ]  # fmt: skip
    return " ".join([*said, shlex.join(given)])


def _has(words_: Iterable[str], option: str) -> bool:
    return any(word == option or word.startswith(f"{option}=") for word in words_)
