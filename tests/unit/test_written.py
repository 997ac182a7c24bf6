"""Writes and their deliveries: how many are due, which are missing, and what is not counted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loadgen.history.operation import Operation, Outcome
from loadgen.load import written as module
from loadgen.load.written import Written
from loadgen.proto import etcd_pb2 as pb

ROOT = Path(__file__).resolve().parents[2]
OK, FAIL, INFO = Outcome.OK, Outcome.FAIL, Outcome.INFO


class Scene:
    """A worker's writes, without etcd: what it answers, a test says."""

    def __init__(self, watchers: int = 2) -> None:
        self.load: Any = SimpleNamespace(warming_up=False)
        self.written = Written(self.load)
        self.firsts = [self.written.join() for _ in range(watchers)]
        self.revision = 1

    def write(self, value: bytes, outcome: Outcome = OK, *, response: Any = None, seen: int = 0) -> Operation:
        """Write a value, which so many watchers see before the answer."""

        def do() -> Operation:
            self.deliver(value, seen)
            self.revision += outcome is OK
            return Operation(1, "put", b"k-" + value, value, 1, 1, 2, outcome, self.revision, None, response)

        return self.written.write(b"k-" + value, value, do)

    def deliver(self, value: bytes, times: int = 1) -> int:
        """Deliver a value so often; return how often it was counted."""
        before = self.written.delivered
        for _ in range(times):
            if (write := self.written.find(value)) is not None:
                self.written.deliver(write, value)
        return self.written.delivered - before


def test_nothing_is_missing_where_all_came_before_the_answer_or_after_it() -> None:
    scene = Scene()
    for seen in (0, 1, 2):
        value = b"%d" % seen
        scene.write(value, seen=seen)
        assert (scene.written.problems() == []) == (seen == 2)
        assert scene.deliver(value, 2 - seen) == 2 - seen
        assert scene.written.problems() == []
    assert scene.written.delivered == 6
    assert not scene.written._writes, "nothing is kept of what all have seen"


def test_what_is_missing_is_named() -> None:
    scene = Scene(3)
    for number in range(5):
        scene.write(b"%d" % number)
        scene.deliver(b"%d" % number, 2 if number else 3)
    (problem,) = scene.written.problems()
    assert problem == (
        "4 of 15 deliveries are missing: k-1 (revision 3) reached 2 of 3, k-2 (revision 4) reached 2 of 3, "
        "k-3 (revision 5) reached 2 of 3, …"
    )


@pytest.mark.parametrize(
    ("outcome", "response", "seen", "missing"),
    [
        (OK, None, 0, 2),
        (OK, pb.TxnResponse(succeeded=True), 0, 2),
        (OK, pb.TxnResponse(succeeded=False), 0, 0),
        (FAIL, None, 0, 0),
        (INFO, None, 0, 0),  # nobody knows that it happened
        (INFO, None, 1, 1),  # one watcher does
    ],
)
def test_only_a_write_that_happened_is_due(outcome: Outcome, response: Any, seen: int, missing: int) -> None:
    scene = Scene()
    scene.write(b"v", outcome, response=response, seen=seen)
    problems = scene.written.problems()
    assert [each.split(" deliveries")[0] for each in problems] == ([f"{missing} of 2"] if missing else [])


def test_a_late_watch_owes_nothing_of_what_was_written_before() -> None:
    scene = Scene(1)
    scene.write(b"early")
    late = scene.written.join()
    assert scene.firsts == [0]
    assert late == 1
    early = scene.written.find(b"early")
    assert early is not None
    assert early.number < late, "the late watch does not count it"
    assert scene.deliver(b"early") == 1
    assert scene.deliver(b"early") == 0
    scene.write(b"both")
    assert scene.deliver(b"both", 3) == 2
    assert scene.written.problems() == []


def test_one_that_left_owes_what_was_under_way() -> None:
    scene = Scene(2)
    written = scene.written
    left = []

    def leave() -> Operation:
        left.append(written.leave())
        assert not written.are_answered(left[0])
        return Operation(1, "put", b"k", b"v", 1, 1, 2, OK, 2)

    written.write(b"k", b"v", leave)
    assert written.are_answered(left[0])
    scene.write(b"later")
    assert scene.deliver(b"later", 2) == 1
    assert written.problems() == ["2 of 3 deliveries are missing: k (revision 2) reached 0 of 2"]


# Users that read what they are given, in a process of their own: to import Locust patches the standard library.
READERS = """
import json
from types import SimpleNamespace

from loadgen.load.watching_user import FollowingUser
from loadgen.proto import etcd_pb2 as pb
from loadgen.proto.kv_pb2 import Event, KeyValue
from tests.unit.test_written import Scene

class Reader(FollowingUser):
    def __init__(self, scene, joins=True):
        super().__init__(SimpleNamespace())
        self.load = SimpleNamespace(
            record=lambda *_: None, is_ending=False, settings=SimpleNamespace(timeout_s=0.1), warming_up=False
        )
        self.process, self.written = 1, scene.written
        self.watch_of_all = SimpleNamespace(error="ended", next_revision=1 << 60)
        if joins:
            self._first = self.written.join()

    def reads(self, *values):
        events = [Event(kv=KeyValue(key=b"k", value=value)) for value in values]
        self._follow([SimpleNamespace(read_ns=1, response=pb.WatchResponse(events=events))])

scene = Scene(0)
stays, leaves, never = Reader(scene), Reader(scene), Reader(scene, joins=False)
scene.write(b"both")
leaves._see_the_last(scene.written)
scene.write(b"later")
never.reads(b"both", b"later")
none = scene.written.delivered
leaves.reads(b"both", b"later")
owed = scene.written.problems()
stays.reads(b"both", b"later")
print(json.dumps([none, owed, scene.written.problems(), scene.written.delivered]))
"""


def test_a_user_counts_what_was_written_between_its_coming_and_its_leaving() -> None:
    done = subprocess.run([sys.executable, "-c", READERS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    none, owed, missing, delivered = json.loads(done.stdout)
    assert owed == [
        "2 of 3 deliveries are missing: k-both (revision 2) reached 1 of 2, k-later (revision 3) reached 0 of 1"
    ]
    assert (none, missing, delivered) == (0, [], 3)


def test_a_killed_write_is_answered() -> None:
    scene = Scene()

    def die() -> Operation:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scene.written.write(b"k", b"v", die)
    assert scene.written.are_answered(1)
    assert scene.written.problems() == []


def test_the_warm_up_is_not_counted() -> None:
    scene = Scene()
    scene.load.warming_up = True
    scene.write(b"warm")
    assert scene.written.problems() == []
    assert scene.deliver(b"warm") == 0


def test_what_is_given_up_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 2)
    scene = Scene(2)
    for number in range(4):
        scene.write(b"%d" % number)
    for number in range(4):
        scene.deliver(b"%d" % number, 2)
    assert scene.written.problems() == ["4 of 8 deliveries are missing, of writes that 2 others followed"]


def test_watches_that_are_not_there_are_counted_by_cause() -> None:
    scene = Scene()
    for cause in ("no free stream", "no free stream", "DEADLINE_EXCEEDED"):
        scene.written.unconfirmed(cause)
    assert scene.written.problems() == [
        "2 watches were not confirmed before the load: no free stream",
        "1 watch was not confirmed before the load: DEADLINE_EXCEEDED",
    ]
