"""Exceptions of listeners: what is registered, and what becomes of what it raises."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import gevent
import pytest

from cluster.base import exits
from loadgen.load import listening
from loadgen.load.settings import SettingsError
from loadgen.run.run_folder import FolderError

ROOT = Path(__file__).resolve().parents[2]


def test_everything_is_registered_through_one_module() -> None:
    """Locust would log what the others raise, and go on."""
    found = {
        f"{path.relative_to(ROOT)}: {node.attr}"
        for folder in ("loadgen", "locustfiles")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("add_listener", "register_message")
    }
    assert found == {"loadgen/load/listening.py: add_listener", "loadgen/load/listening.py: register_message"}


class Event:
    def __init__(self) -> None:
        self.listeners: list[Any] = []

    def add_listener(self, function: Any) -> None:
        self.listeners.append(function)


def raises() -> None:
    raise LookupError("planted")


@pytest.fixture
def alarm() -> Any:
    made = listening.Alarm("the.log")
    made.install()
    yield made
    made.close()


def test_in_the_main_greenlet_it_is_raised_at_once(alarm: listening.Alarm) -> None:
    event = Event()
    listening.listen(event, raises)
    with pytest.raises(listening.ListenerError) as caught:
        event.listeners[0]()
    failure = caught.value.failure
    assert (caught.value.exit_code, failure.log) == (70, "the.log")
    assert failure.line.startswith("raftload: internal error: LookupError: planted at test_listening.py:")
    assert "in raises" in failure.trace


@pytest.mark.parametrize("spawned", ["greenlet", "callback"])
def test_elsewhere_it_reaches_the_main_greenlet_where_that_waits(alarm: listening.Alarm, spawned: str) -> None:
    guarded = listening.guard(raises)
    gevent.spawn(guarded) if spawned == "greenlet" else gevent.get_hub().loop.run_callback(guarded)
    with pytest.raises(listening.ListenerError, match="planted"), gevent.Timeout(60):
        gevent.sleep(120)


def test_while_it_is_held_nothing_is_disturbed_and_nothing_lost(alarm: listening.Alarm) -> None:
    with alarm.held():
        listening.guard(raises)()
        gevent.sleep(0)
        assert alarm.failure is not None
    with pytest.raises(listening.ListenerError):
        alarm.check()


def test_before_there_is_a_run_it_ends_the_process() -> None:
    with pytest.raises(SystemExit, match="70"):
        listening.guard(raises)()


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (SettingsError("--rate: no", option="--rate"), 2, "raftload: error: --rate: no"),
        (FolderError("full"), 4, "raftload: error: full"),
        (OSError("gone"), 4, "raftload: error: gone"),
        (KeyError("k"), 70, "raftload: internal error: KeyError: 'k' at ?; please report it, with the traceback in x"),
    ],
)
def test_a_kind_of_error_has_its_code_and_line(error: Exception, code: int, line: str) -> None:
    assert exits.code_of(error) == code
    assert exits.line(code, exits.describe(error), "x") == line
