"""The etcd and the tool that a conformance test takes for processes beside a cluster."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.base.binary import EtcdBinary
from cluster.conformance import Bounds, beside
from cluster.conformance.model import Env, NotApplicable, Target


def env(version: str) -> Env:
    """Of one member of that version."""
    client: Any = SimpleNamespace(status=lambda: SimpleNamespace(version=version), close=lambda: None)
    return Env(lambda _: client, [Target("one", "127.0.0.1:1", 1)], b"/", bounds=Bounds(), stop=threading.Event())


@pytest.mark.parametrize(
    ("ours", "theirs", "fits"),
    [
        ("3.7.3", "3.7.0", True), ("3.7.0", "3.7.3", True), ("3.7.3", "3.6.16", True), ("3.7.3", "3.5.35", False),
        ("3.5.1", "3.6.14", False), ("3.4.23", "3.5.1", False), ("3.6.0-rc.1", "3.5.35", True),
        ("4.0.0", "3.7.3", False),
    ],
)  # fmt: skip
def test_an_etcd_reads_the_data_of_its_own_minor_and_the_one_before(
    ours: str, theirs: str, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "find_etcd", lambda: EtcdBinary("/bin/etcd", ours, "PATH"))
    if fits:
        beside.Beside.of(env(theirs))
        return
    with pytest.raises(NotApplicable, match=f"the members are {theirs}; /bin/etcd is {ours}"):
        beside.Beside.of(env(theirs))


def test_from_3_6_on_only_etcdutl_restores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    (tmp_path / "path").mkdir()

    def restorer(version: str) -> str:
        return beside._restorer(EtcdBinary(str(tmp_path / "etcd"), version, "PATH"))[0]

    with pytest.raises(NotApplicable, match="needs etcdutl or etcdctl beside"):
        restorer("3.5.35")
    (tmp_path / "etcdctl").touch()
    assert restorer("3.5.35") == str(tmp_path / "etcdctl")
    with pytest.raises(NotApplicable, match="needs etcdutl beside"):
        restorer("3.6.16")
    on_path = tmp_path / "path" / "etcdutl"
    on_path.touch(mode=0o755)
    assert restorer("3.7.3") == str(on_path)
    (tmp_path / "etcdutl").touch()
    assert restorer("3.5.35") == restorer("3.6.16") == str(tmp_path / "etcdutl")
