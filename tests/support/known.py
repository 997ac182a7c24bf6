"""Bugs of etcd that a test may really meet, since it kills members under load: then pytest begins it again."""

from __future__ import annotations

import pytest

from cluster.bugs import known_bug


def may_meet(issue: int) -> pytest.MarkDecorator:
    """Lets a test be begun again, at most twice, where its failure names the bug."""
    return pytest.mark.flaky(reruns=2, only_rerun=f"etcd#{issue}")


def named(issue: int, version: str) -> str:
    """What to say where an assertion breaks as by a bug: its name, or the version where that does not have it."""
    return f"etcd#{issue}" if known_bug(issue, version) else f"etcd {version}"
