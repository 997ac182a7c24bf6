"""The newest etcd of each minor release, as `.ci/etcds` builds them, for tests that run on each."""

from __future__ import annotations

import functools
import os
from typing import Any

import pytest

from cluster.base.binary import find_etcd
from cluster.base.errors import RaftloadError
from cluster.observe.probe import version_key
from tests.support.missing import require

ENV = "RAFTLOAD_TEST_ETCDS"
MINORS = ("3.5", "3.6", "3.7")


def etcds_to_test() -> tuple[str, ...]:
    """Return the paths in ``$RAFTLOAD_TEST_ETCDS``, the etcds that tests run beside the default one."""
    return tuple(filter(None, os.environ.get(ENV, "").split(":")))


def default_and_others() -> list[str]:
    """Return the paths of the etcd that all tests run and of those to test beside it, each once."""
    return list(dict.fromkeys((find_etcd().path, *etcds_to_test())))


def each_etcd() -> list[Any]:
    """Return a parameter for each of them."""
    return [pytest.param(path, id=version_of(path)) for path in default_and_others()]


@functools.cache
def version_of(path: str) -> str:
    """Return the version that an etcd says of itself.

    A path that is no etcd ends the session, because somebody asked for it by name.
    """
    try:
        return find_etcd(path).version
    except RaftloadError as exc:
        raise pytest.UsageError(f"${ENV}: {exc}") from exc


def newest_of(minor: str) -> str:
    """Take ``3.6``, return the path of its newest etcd among those to test.

    Where there is none the test is skipped with the reason, or fails where ``$RAFTLOAD_REQUIRE_ETCDS`` is 1.
    """
    found = [path for path in etcds_to_test() if version_of(path).startswith(f"{minor}.")]
    if not found:
        require("etcds", f"no etcd {minor} in ${ENV}: `.ci/etcds` builds it and says how to set that")
    return max(found, key=lambda path: version_key(version_of(path)))


def missing_minors() -> str:
    """Return why tests on one minor or another will be skipped, nothing where none will."""
    there = {version_of(path).rpartition(".")[0] for path in etcds_to_test()}
    missing = [minor for minor in MINORS if minor not in there]
    return f"no etcd {' or '.join(missing)} in ${ENV}: `.ci/etcds` builds them" if missing else ""
