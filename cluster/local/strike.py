"""The process that strikes a member: it answers the member's trapped system calls by rules, and times them.

The keeper runs one for each member, with the socket to itself as stdin and a second one as ``DOOR``, over which each
life of the member hands over the descriptor that its calls are answered at (``strike_keeper.py``). So rules stay while
the member is killed and started again. It ends with the keeper; and the keeper ends the member where this process ends,
whose calls would wait for ever.

A call stops in the kernel until it is answered here: at once where no rule strikes; later where it is held, without
waiting for it; with an error; or never, since the member is killed. What is answered "go on" is done by the kernel, and
nobody outside sees how long it takes. So where syncs are timed they are done here, on the same file, by threads.

Orders and answers are one JSON object a line. Times are of the monotonic clock, which all processes share.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fnmatch
import heapq
import json
import os
import queue
import re
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypedDict

from cluster.local import seccomp

_PR_SET_PDEATHSIG = 1
# Strikes that a rule tells one by one; those after them are counted.
_STRIKES_TOLD = 100
_MOST_SYNCS = 64
# poll takes no more than 24 days.
_LONGEST_WAIT_MS = 60_000.0
# Buckets for each doubling, so that a percentile is at most 2 % off.
_STEPS = 32
_NUMBERED = re.compile(r"[0-9a-f]{6,}|\d+")

Names = tuple[str, ...]


class Struck(TypedDict):
    """One strike: the call, its files, and when."""

    call: str
    paths: list[str]
    at_ns: int


class Rule(TypedDict):
    """A rule as it is ordered, see ``strike_rules.Rule``; None for what has no bound."""

    calls: list[str]
    file: str
    nth: int
    times: int | None
    for_s: float | None
    hold_s: float | None
    then: str


class RuleSeen(TypedDict):
    """What became of a rule."""

    id: int
    rule: Rule
    seen: int
    struck: int
    held: int
    strikes: list[Struck]


class Timed(TypedDict):
    """The calls of one name to files of one kind; times of those that were timed, in seconds, None where none was."""

    call: str
    file: str
    count: int
    timed: int
    p50_s: float | None
    p99_s: float | None
    max_s: float | None


class Answer(TypedDict, total=False):
    """What came of an order."""

    error: str
    id: int
    rules: list[RuleSeen]
    timings: list[Timed]


def kind_of_file(path: str) -> str:
    """Return which kind of file a path is, of which a member has few: ``.wal``, ``.snap``, ``db``, ``socket``.

    >>> [kind_of_file(each) for each in ("/d/wal/0-1.wal", "/d/snap/db", "/d/snap/db.tmp.2391", "socket:[77]")]
    ['.wal', 'db', 'db.tmp.*', 'socket']
    """
    if not path.startswith("/"):
        return path.partition(":")[0]
    name = path.removesuffix(" (deleted)").rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    if dot and suffix.isalpha():
        # `0000000000000004.snap.db` is another thing than `0000000000000002-0000000000000007.snap`.
        before = stem.rpartition(".")[2] if "." in stem else ""
        return f".{before}.{suffix}" if before.isalpha() else f".{suffix}"
    return _NUMBERED.sub("*", name)


def _in_ns(seconds: float | None) -> float:
    return float("inf") if seconds is None else seconds * 1e9


class _Rule:
    """A rule and what became of it."""

    def __init__(self, number: int, rule: Rule) -> None:
        self.number, self.rule = number, rule
        self.calls = frozenset(rule["calls"])
        file = rule["file"]
        self._matches = re.compile(fnmatch.translate(f"*{file}" if file.startswith(".") else file)).match
        self._whole = "/" in file
        self._from, self._times, self._for_ns = rule["nth"], rule["times"], _in_ns(rule["for_s"])
        self.hold_ns, self.then = _in_ns(rule["hold_s"]), rule["then"]
        self.seen, self.struck, self.held = 0, 0, 0
        self.strikes: list[Struck] = []

    def is_about(self, call: str, names: Names) -> bool:
        """Return whether it is about a call."""
        if call not in self.calls:
            return False
        return any(self._matches(name if self._whole else name.rpartition("/")[2]) for name in names)

    def counts(self, now: int) -> bool:
        """Take one more call that it is about; return whether it strikes this one."""
        self.seen += 1
        if self.seen < self._from or (self._times is not None and self.struck >= self._times):
            return False
        return not (self.strikes and now - self.strikes[0]["at_ns"] > self._for_ns)

    def note(self, call: str, names: Names, now: int) -> None:
        """Remember a strike."""
        self.struck += 1
        if len(self.strikes) < _STRIKES_TOLD:
            self.strikes.append({"call": call, "paths": list(names), "at_ns": now})

    def to_json(self) -> RuleSeen:
        return {
            "id": self.number, "rule": self.rule, "seen": self.seen, "struck": self.struck, "held": self.held,
            "strikes": self.strikes,
        }  # fmt: skip


class _Times:
    """The number of calls, and how long those took that were timed."""

    def __init__(self) -> None:
        self.count = self.timed = self.longest_ns = 0
        self._buckets: dict[int, int] = {}

    def add(self, took_ns: int) -> None:
        self.timed += 1
        self.longest_ns = max(self.longest_ns, took_ns)
        shift = max(0, took_ns.bit_length() - _STEPS.bit_length())
        bucket = shift * _STEPS + (took_ns >> shift)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def at(self, share: float) -> float | None:
        """Return the seconds within which this share of them was done."""
        left = share * self.timed
        for bucket, count in sorted(self._buckets.items()):
            left -= count
            if left <= 0:
                shift = max(0, bucket // _STEPS - 1)
                return min(self.longest_ns, ((bucket - shift * _STEPS << shift) + (1 << shift >> 1))) / 1e9
        return None


class _Waiting:
    """A call that is not answered yet, or whose answer did not arrive since a signal had interrupted it."""

    __slots__ = ("answer", "began", "call", "names", "rule", "trapped")

    def __init__(self, trapped: seccomp.Trapped, call: str, names: Names, began: int, rule: _Rule | None) -> None:
        self.trapped, self.call, self.names, self.began, self.rule = trapped, call, names, began, rule
        self.answer: int | None = None  # an error or 0; below 0: go on; None: not known yet

    def is_again(self, trapped: seccomp.Trapped) -> bool:
        """Return whether this is the same call of the same thread, notified anew."""
        return self.trapped.number == trapped.number and self.trapped.arguments == trapped.arguments


_GO_ON = -1


class Strike:
    """Takes the socket to the keeper, the door, the names of calls that are trapped, and whether syncs are timed."""

    def __init__(self, sock: socket.socket, door: socket.socket, *, timed: bool) -> None:
        self._sock, self._door, self._timed = sock, door, timed
        self._names = seccomp.names_by_number()
        self._rules: list[_Rule] = []
        self._last_number = 0
        self._times: dict[tuple[str, str], _Times] = {}
        self._kinds: dict[str, str] = {}
        self._listener = self._process = -1
        self._waiting: dict[int, _Waiting] = {}  # by thread, each of which makes one call at a time
        self._due: list[tuple[float, int, _Waiting]] = []
        self._lock = threading.Lock()  # between an answer and the same call notified anew
        self._syncs: queue.SimpleQueue[_Waiting] = queue.SimpleQueue()
        self._threads, self._syncing = 0, 0
        self._buffer = b""
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._poll.register(door, select.POLLIN)

    def serve(self) -> None:
        """Answer calls and orders until the keeper is gone."""
        while True:
            wait_ms = None
            if self._due:
                wait_ms = min(max(0.0, (self._due[0][0] - time.monotonic_ns()) / 1e6), _LONGEST_WAIT_MS)
            ready = dict(self._poll.poll(wait_ms))
            # Where all of a member's threads are gone, the descriptor is ready, and there is no call to take.
            if self._listener >= 0 and ready.get(self._listener, 0) & select.POLLIN:
                self._take()
            elif self._process in ready:
                self._end_life()
            if self._due:
                self._let_go()
            if self._door.fileno() in ready:
                self._begin_life()
            if self._sock.fileno() in ready and not self._take_orders():
                return

    # A life of the member

    def _begin_life(self) -> None:
        _, descriptors = seccomp.taken_over(self._door)
        if len(descriptors) != 2:
            return
        self._end_life()
        self._listener, self._process = descriptors
        for descriptor in descriptors:
            self._poll.register(descriptor, select.POLLIN)
        seccomp.hurry(self._listener)

    def _end_life(self) -> None:
        with self._lock:
            for descriptor in (self._listener, self._process):
                if descriptor >= 0:
                    self._poll.unregister(descriptor)
                    os.close(descriptor)
            self._listener = self._process = -1
            for waiting in self._waiting.values():
                if waiting.rule is not None and waiting.answer is None:
                    waiting.rule.held -= 1
            self._waiting.clear()
            self._due.clear()

    # Calls

    def _take(self) -> None:
        """Take the next call, and answer it where no rule holds it."""
        trapped = seccomp.receive(self._listener)
        if trapped is None:
            return
        if self._waiting and self._is_known(trapped):
            return
        now = time.monotonic_ns()
        call = self._names[trapped.number]
        names = seccomp.paths(trapped, call)
        rule = self._rule_for(call, names, now) if self._rules else None
        if rule is not None:
            waiting = _Waiting(trapped, call, names, now, rule)
            self._strike(waiting, rule, now)
        elif self._timed and call in seccomp.SYNC:
            self._sync(_Waiting(trapped, call, names, now, None))
        elif seccomp.go_on(self._listener, trapped.id):
            self._count(call, names)
        else:
            waiting = _Waiting(trapped, call, names, now, None)
            waiting.answer = _GO_ON
            self._waiting[trapped.thread] = waiting

    def _is_known(self, trapped: seccomp.Trapped) -> bool:
        """Take a call that a signal interrupted and that is notified anew: to its rules, and to us, it is one call."""
        with self._lock:
            known = self._waiting.get(trapped.thread)
            if known is None:
                return False
            if not known.is_again(trapped):
                self._forget(known)
                return False
            known.trapped = trapped
            if known.answer is not None:
                self._deliver(known)
            return True

    def _rule_for(self, call: str, names: Names, now: int) -> _Rule | None:
        """Return the last rule that strikes; every rule that is about the call counts it."""
        found = None
        for rule in self._rules:
            if rule.is_about(call, names) and rule.counts(now):
                found = rule
        return found

    def _strike(self, waiting: _Waiting, rule: _Rule, now: int) -> None:
        rule.note(waiting.call, waiting.names, now)
        if rule.hold_ns <= 0:
            self._do_then(waiting, rule.then)
            return
        self._waiting[waiting.trapped.thread] = waiting
        rule.held += 1
        if rule.hold_ns != float("inf"):
            heapq.heappush(self._due, (now + rule.hold_ns, waiting.trapped.id, waiting))

    def _let_go(self) -> None:
        """Answer what was held for long enough."""
        now = time.monotonic_ns()
        while self._due and self._due[0][0] <= now:
            waiting = heapq.heappop(self._due)[2]
            # It may have ended with its thread, or have been let go by an order.
            if self._waiting.get(waiting.trapped.thread) is waiting and waiting.rule and waiting.answer is None:
                self._unhold(waiting, waiting.rule.then)

    def _unhold(self, waiting: _Waiting, then: str) -> None:
        if waiting.rule is not None:
            waiting.rule.held -= 1
            waiting.rule = None
        self._do_then(waiting, then)

    def _do_then(self, waiting: _Waiting, then: str) -> None:
        if then == "kill":
            with contextlib.suppress(OSError):  # it has ended by itself
                seccomp.kill(self._process)
            return
        if then:
            self._finish(waiting, int(getattr(errno, then)))
        elif self._timed and waiting.call in seccomp.SYNC:
            self._sync(waiting)
        else:
            self._finish(waiting, _GO_ON)

    def _finish(self, waiting: _Waiting, answer: int) -> None:
        with self._lock:
            waiting.answer = answer
            self._deliver(waiting)

    def _deliver(self, waiting: _Waiting) -> None:
        """Give a call its answer. One that a signal has interrupted gets it when it is notified anew."""
        thread, answer = waiting.trapped.thread, waiting.answer
        assert answer is not None
        if answer == _GO_ON:
            arrived = seccomp.go_on(self._listener, waiting.trapped.id)
        else:
            arrived = seccomp.answer(self._listener, waiting.trapped.id, answer)
        if not arrived:
            self._waiting[thread] = waiting
            return
        self._waiting.pop(thread, None)
        took_ns = time.monotonic_ns() - waiting.began
        self._count(waiting.call, waiting.names, None if answer else took_ns)

    def _forget(self, waiting: _Waiting) -> None:
        del self._waiting[waiting.trapped.thread]
        if waiting.rule is not None and waiting.answer is None:
            waiting.rule.held -= 1

    def _count(self, call: str, names: Names, took_ns: int | None = None) -> None:
        name = names[-1]
        kind = self._kinds.get(name)
        if kind is None:
            if len(self._kinds) > 10_000:
                self._kinds.clear()
            kind = self._kinds[name] = kind_of_file(name)
        times = self._times.get((call, kind))
        if times is None:
            times = self._times[call, kind] = _Times()
        times.count += 1
        if took_ns is not None:
            times.add(took_ns)

    # Syncs that are timed

    def _sync(self, waiting: _Waiting) -> None:
        """Have a thread do it."""
        self._waiting[waiting.trapped.thread] = waiting
        with self._lock:
            self._syncing += 1
        if self._syncing > self._threads and self._threads < _MOST_SYNCS:
            self._threads += 1
            threading.Thread(target=self._do_syncs, daemon=True).start()
        self._syncs.put(waiting)

    def _do_syncs(self) -> None:
        while True:
            waiting = self._syncs.get()
            answer = _done_here(waiting.trapped, waiting.call)
            with self._lock:
                self._syncing -= 1
                if self._waiting.get(waiting.trapped.thread) is waiting:  # else its thread, or the member, has ended
                    waiting.answer = answer
                    self._deliver(waiting)

    # Orders

    def _take_orders(self) -> bool:
        """Answer what the keeper asks; return whether it is there."""
        data = self._sock.recv(65536)
        if not data:
            return False
        self._buffer += data
        while b"\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\n")
            self._sock.sendall(json.dumps(self._answer(json.loads(line))).encode() + b"\n")
        return True

    def _answer(self, order: dict[str, Any]) -> Answer:
        if order["op"] == "add":
            self._last_number += 1
            self._rules.append(_Rule(self._last_number, order["rule"]))
            return {"id": self._last_number}
        if order["op"] == "clear":
            return self._clear(order["id"])
        if order["op"] == "rules":
            return {"rules": [rule.to_json() for rule in self._rules]}
        if order["op"] == "timings":
            return {"timings": self._timings()}
        return {"error": f"unknown order {order['op']}"}

    def _clear(self, number: int | None) -> Answer:
        """Drop a rule, or all; what they hold goes on."""
        dropped = [rule for rule in self._rules if number in (None, rule.number)]
        if number is not None and not dropped:
            return {"error": f"there is no rule {number}"}
        self._rules = [rule for rule in self._rules if rule not in dropped]
        for waiting in list(self._waiting.values()):
            if waiting.rule in dropped and waiting.answer is None:
                self._unhold(waiting, "")
        return {}

    def _timings(self) -> list[Timed]:
        with self._lock:
            return [
                {
                    "call": call, "file": file, "count": times.count, "timed": times.timed, "p50_s": times.at(0.5),
                    "p99_s": times.at(0.99), "max_s": times.longest_ns / 1e9 if times.timed else None,
                }
                for (call, file), times in sorted(self._times.items())
            ]  # fmt: skip


def _done_here(trapped: seccomp.Trapped, call: str) -> int:
    """Sync the file of a call as the member would have, return the error or 0; below 0 where it cannot be opened."""
    try:
        file = os.open(f"/proc/{trapped.thread}/fd/{trapped.arguments[0] & 0xFFFFFFFF}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return _GO_ON
    try:
        sync: Callable[[int], None] = os.fsync if call == "fsync" else os.fdatasync
        sync(file)
        return 0
    except OSError as exc:
        return exc.errno or errno.EIO
    finally:
        os.close(file)


def main() -> None:
    """``KEEPER_PID DOOR TIMED``, the socket to the keeper as stdin; TIMED is 1 or 0."""
    keeper, door, timed = sys.argv[1:]
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the keeper says when
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != int(keeper):  # it died before the request took effect
        return
    with contextlib.suppress(OSError):
        Strike(socket.socket(fileno=0), socket.socket(fileno=int(door)), timed=timed == "1").serve()
    os._exit(0)  # threads may be in a sync
