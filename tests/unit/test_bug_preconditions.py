"""What a certain scenario needs before its bug can show: where it did not come about, nothing was tried."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loadgen.bugs.catalogue import catalogue
from loadgen.bugs.scenario import CannotTryError
from loadgen.bugs.scenarios import snapshots
from loadgen.history.operation import Outcome

NAME = "etcd-node2"


@pytest.mark.parametrize(
    ("log", "seen", "reason"),
    [
        ('{"msg":"starting defragment"}', 0, ""),  # it waits for the new database
        ("starting to defragment the storage backend...", 0, ""),
        ('{"msg":"starting defragment"}', 1, "did not defragment in"),  # it is slow
        ("", 0, "did not log"),  # it was not asked yet
    ],
)
def test_a_member_that_has_not_defragmented_is_slow_or_waits(
    log: str, seen: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_LOGGED_S", 0.0)
    (tmp_path / "log").write_text(log)
    cluster = SimpleNamespace(log=lambda name: tmp_path / "log", rules=lambda name: {7: SimpleNamespace(seen=seen)})
    stage: Any = SimpleNamespace(cluster=cluster)
    with pytest.raises(CannotTryError, match=reason) if reason else contextlib.nullcontext():
        snapshots._see_that_it_waits(stage, NAME, 7)


def test_a_member_that_did_not_fall_behind_is_sent_no_snapshot() -> None:
    left_s = iter((2.0, 1.0, 0.0))

    class Stage(SimpleNamespace):
        @property
        def left_s(self) -> float:
            return next(left_s)

    def nothing(*_: object, **__: object) -> None:
        return

    writer = SimpleNamespace(put=lambda key, value: SimpleNamespace(outcome=Outcome.OK))
    stage: Any = Stage(
        names=["etcd-node1", NAME], cluster=SimpleNamespace(pause=nothing), kill=nothing, start=nothing, leader=nothing,
        client=lambda *_: writer, work=lambda function: function(),
    )  # fmt: skip
    with pytest.raises(CannotTryError, match="only 2 of 150 keys were written"):
        snapshots._fall_behind(stage, NAME)


def test_no_commit_of_etcds_own_comes_between_however_slow_a_machine_is() -> None:
    args = [arg for each in catalogue().values() if each.cluster for arg in each.cluster.args]
    assert {arg for arg in args if arg.startswith("--backend-batch-interval=")} == {"--backend-batch-interval=1h"}
