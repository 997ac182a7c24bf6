"""The record of the calls of actors: JSON lines, for what the history of operations has no field for.

A history (``format``) keeps millions of operations as they went over the wire, and not who asked. Here are the few
hundred calls of a scenario: who asked whom for what, and what came of it. What members did stands between them. A line
is written when its call has ended, so that little is lost where the writer is killed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from cluster.base.files import writing
from loadgen.history.operation import Outcome
from loadgen.history.reader import HistoryError
from loadgen.history.writer import clock

SCHEMA = "raftload.calls/1"
FILE = "calls.jsonl"

# By these names etcd's messages have what lets somebody in.
_SECRETS = frozenset({"password", "hashedPassword", "token"})

Plain = Mapping[str, Any]
"""A message of etcd's API by the names of its fields: bytes are text of code points below 256 (Latin-1), enumerations
are names, numbers are numbers. A field that has its default value is absent."""


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """One call of one actor, or one answer of its watch.

    Attributes:
        number: counts the calls of a record from 1 on, in the order in which they were begun.
        user: who asked; empty for nobody.
        member: the name of the member that was asked.
        method: of etcd's API, such as ``Range``, ``LeaseGrant`` or ``Watch``.
        request, answer: as ``Plain``; there is no answer where the outcome is not OK. Of ``Watch`` the request is the
            one that created it, and each answer of it is a call of its own.
        invoked_ns, completed_ns: on the monotonic clock; of an answer of a watch, when that was created and when the
            answer was read.
        outcome: OK, FAIL (it did certainly not happen) or INFO (it may have).
        error: etcd's name of the error, as ``Operation.error`` has it; empty for none.
        detail: what came with the error, for people.
    """

    number: int
    user: str
    member: str
    method: str
    request: Plain
    answer: Plain | None
    invoked_ns: int
    completed_ns: int
    outcome: Outcome
    error: str = ""
    detail: str = ""

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.outcome is Outcome.OK


@dataclasses.dataclass(frozen=True, slots=True)
class MemberEvent:
    """What happened to a member.

    Attributes:
        member: its name.
        what: ``started``, ``killed`` and ``stopped`` (by order), or ``ended`` (by itself).
        at_ns: on the monotonic clock; of ``ended``, when that was noticed, or when it last wrote into its log.
        said: the last line of its log that says why, for ``ended``.
    """

    member: str
    what: str
    at_ns: int
    said: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Calls:
    """A record that was read.

    Attributes:
        calls: in the order in which they were invoked.
        events: of members, in the order of their times.
        cut: why the end is missing; empty where the record is whole.
    """

    calls: tuple[Call, ...] = ()
    events: tuple[MemberEvent, ...] = ()
    cut: str = ""


class CallWriter:
    """Writes a record into a run folder, which must not have one. For any number of threads. Close it.

    Raises OSError where the file cannot be made; the methods raise FileError where it cannot be written.
    """

    def __init__(self, run: Path) -> None:
        self.path = run / FILE
        self._lock = threading.Lock()
        self._number = self._records = 0
        self._file = self.path.open("x", encoding="utf-8")
        self._write(
            {"schema": SCHEMA, "clock": clock(), "monotonic_ns": time.perf_counter_ns(), "wall_ns": time.time_ns(),
             "pid": os.getpid()}
        )  # fmt: skip

    def begin(self) -> int:
        """Return the number of a call that begins now."""
        with self._lock:
            self._number += 1
            return self._number

    def call(self, call: Call) -> None:
        """Record a call that has ended, without its passwords and tokens; what ends after ``close`` is left out."""
        line = {"kind": "call", **dataclasses.asdict(call), "request": _told(call.request)}
        if call.answer is not None:
            line["answer"] = _told(call.answer)
        self._add(line)

    def member(self, event: MemberEvent) -> None:
        """Record what happened to a member."""
        self._add({"kind": "member", **dataclasses.asdict(event)})

    def close(self) -> None:
        """Write the end, without which the reader takes the record for cut. May be called again."""
        with self._lock:
            if not self._file.closed:
                self._write({"kind": "end", "records": self._records})
                self._file.close()

    def _add(self, line: Mapping[str, object]) -> None:
        with self._lock:
            if not self._file.closed:
                self._records += 1
                self._write(line)

    def _write(self, line: Mapping[str, object]) -> None:
        with writing(self.path):
            self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
            self._file.flush()


def _told(message: Plain) -> dict[str, Any]:
    """Return what may be read by whoever gets the record of a message."""
    return {name: value for name, value in message.items() if name not in _SECRETS}


def has_calls(run: Path) -> bool:
    """Return whether a run folder has a record of calls."""
    return (run / FILE).is_file()


def read_calls(run: Path) -> Calls:
    """Return the record of calls in a run folder.

    A last line without its end is left out, and the record is ``cut``. Raises HistoryError, with the line, where there
    is none or it is none of ours.
    """
    path = run / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise HistoryError(f"no record of calls at {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise HistoryError(f"{path} is no record of calls: it is not UTF-8 text") from error
    lines = text.split("\n")
    rest = lines.pop()
    calls: list[Call] = []
    events: list[MemberEvent] = []
    cut = "it has no end: its writer was killed, or is still writing"
    if not lines:
        raise HistoryError(f"{path} is no record of calls: it has no first line")
    for number, line in enumerate(lines, 1):
        found = _fields(path, number, line)
        kind = found.pop("kind", None)
        if number == 1:
            if found.get("schema") != SCHEMA:
                raise HistoryError(f"{path}, line 1: schema {found.get('schema')!r}, not {SCHEMA!r}")
        elif kind == "call":
            calls.append(_call(path, number, found))
        elif kind == "member":
            events.append(_event(path, number, found))
        elif kind == "end":
            whole = found.get("records") == len(calls) + len(events)
            cut = "" if whole and not rest and number == len(lines) else "records are missing"
        else:
            raise HistoryError(f"{path}, line {number}: kind {kind!r}, not call, member or end")
    calls.sort(key=lambda call: call.number)
    events.sort(key=lambda event: event.at_ns)
    return Calls(tuple(calls), tuple(events), cut)


def _fields(path: Path, number: int, line: str) -> dict[str, object]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise HistoryError(f"{path}, line {number}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise HistoryError(f"{path}, line {number}: not a JSON object")
    return found


_TEXT, _NUMBER, _OBJECT = (str,), (int,), (dict,)
_CALL: dict[str, tuple[type, ...]] = {
    "number": _NUMBER, "user": _TEXT, "member": _TEXT, "method": _TEXT, "request": _OBJECT,
    "answer": (dict, type(None)), "invoked_ns": _NUMBER, "completed_ns": _NUMBER, "outcome": _TEXT, "error": _TEXT,
    "detail": _TEXT,
}  # fmt: skip
_EVENT: dict[str, tuple[type, ...]] = {"member": _TEXT, "what": _TEXT, "at_ns": _NUMBER, "said": _TEXT}
_WHAT = ("started", "killed", "stopped", "ended")


def _call(path: Path, number: int, found: dict[str, object]) -> Call:
    _hold(path, number, found, _CALL)
    try:
        outcome = Outcome(cast("str", found["outcome"]))
    except ValueError as error:
        raise HistoryError(f"{path}, line {number}: outcome {found['outcome']!r}, not ok, fail or info") from error
    if (outcome is Outcome.OK) != (found["answer"] is not None):
        raise HistoryError(f"{path}, line {number}: outcome {outcome}, with answer {found['answer']!r:.40}")
    return Call(**{**found, "outcome": outcome})  # type: ignore[arg-type]


def _event(path: Path, number: int, found: dict[str, object]) -> MemberEvent:
    _hold(path, number, found, _EVENT)
    if found["what"] not in _WHAT:
        raise HistoryError(f"{path}, line {number}: what {found['what']!r}, not one of {', '.join(_WHAT)}")
    return MemberEvent(**found)  # type: ignore[arg-type]


def _hold(path: Path, number: int, found: dict[str, object], fields: Mapping[str, tuple[type, ...]]) -> None:
    for name, kinds in fields.items():
        if name not in found:
            raise HistoryError(f"{path}, line {number}: no {name}")
        if type(found[name]) not in kinds:
            raise HistoryError(f"{path}, line {number}: {name} is {found[name]!r:.40}, of the wrong type")
    for name in list(found):
        if name not in fields:
            del found[name]  # of a later version
