"""Which actors a chaos run has, and what one turn of each asks for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from cluster.base.errors import ClusterError, UsageError
from loadgen.chaos import actors_beside
from loadgen.chaos.actor_kinds import KINDS
from loadgen.chaos.actor_process import _act
from loadgen.chaos.actor_turns import TURNS, Acting
from loadgen.history.format import FOLDER
from tests.support.waiting import HANG_S


def test_each_kind_has_a_turn() -> None:
    assert list(TURNS) == list(KINDS)


def test_names_are_read_in_order_and_once() -> None:
    assert actors_beside.parse("", ours=True) == ()
    assert actors_beside.parse("users, limits,limits", ours=True) == ("limits", "users")
    assert actors_beside.parse("all", ours=True) == tuple(KINDS)


def test_on_somebody_elses_cluster_there_are_few() -> None:
    few = actors_beside.parse("all", ours=False)
    assert few
    assert not {"users", "members", "alarms", "limits", "leaders", "maintenance"} & set(few)


@pytest.mark.parametrize(("text", "ours"), [("nobody", True), ("users", False)])
def test_what_makes_no_sense_is_refused(text: str, ours: bool) -> None:
    with pytest.raises(UsageError, match=text):
        actors_beside.parse(text, ours=ours)


def test_an_error_of_ours_that_ends_the_actors_is_told_as_one(tmp_path: Path) -> None:
    for name in ("logs", FOLDER):
        (tmp_path / name).mkdir()
    done = actors_beside.Actors(tmp_path, {}, b"p/", 1, ["nobody"]).end(HANG_S)
    assert done == {"turns": {}, "problems": [], "bugs": ["their process ended with 1"]}


def test_an_actor_that_an_error_of_ours_ends_is_told_from_one_that_cannot_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problems: list[str] = []
    bugs: list[str] = []
    for error in (ClusterError("no cluster"), NameError("no name")):

        def turn(acting: Acting, error: Exception = error) -> None:
            raise error

        monkeypatch.setitem(TURNS, "limits", turn)
        kind = dataclasses.replace(KINDS["limits"], pause_s=0.0)
        with pytest.raises(type(error)):
            _act(kind, Acting("limits", [], b"", 1, lambda *_: pytest.fail("no client")), problems, bugs)
    assert problems == ["limits: no cluster"]
    assert bugs[0].startswith("limits: NameError: no name at test_actors_beside.py:")
