"""What becomes of watches that are not read for a while, and what a watch that is far behind does to others."""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent

from loadgen.bugs.scenario import CannotTryError, Scenario
from loadgen.bugs.stage import Stage, answer_of
from loadgen.client.kv import put_op
from loadgen.client.watch import Watch
from loadgen.proto import etcd_pb2 as pb

# A stream of etcd keeps 128 answers for its sender: more watches than that cannot all be told at once.
_WATCHES, _LARGE, _PUTS = 220, 8192, 4
_SOME, _TIMES, _SYNCED_S = 30, 4, 0.5
_BEHIND, _BESIDE, _TOGETHER = 10_000, 30, 100
_TURNS, _FIRST_S = 4, 3.0
_PAST, _ASKED, _SENT_S = 50, 5, 5.0


def _leave_watches_unread(stage: Stage) -> None:
    """Read nothing of a stream with many watches while their key is written and compacted; then read it bit by bit.

    So the stream is full whenever etcd, 10 times a second, looks for the watches that it has to tell of the compaction.
    """
    reader, actor = stage.client(narrow=True), stage.actor()

    def begin() -> list[Watch]:
        watcher = reader.watcher()
        made = [watcher.watch(b"key") for _ in range(_WATCHES)]
        for watch in made:
            watch.wait_created(10.0)
        return made

    def take(some: int) -> None:
        until = time.monotonic() + _SYNCED_S
        while some and time.monotonic() < until:
            ready = [watch for watch in watches if watch.inbox.items][:some]
            for watch in ready:
                watch.next(0.0)
            some -= len(ready)
            gevent.sleep(0.005)

    def drain() -> None:
        def take_all(watch: Watch) -> None:
            while watch.next(2.0) is not None:
                pass

        gevent.joinall([gevent.spawn(take_all, watch) for watch in watches])

    watches = stage.work(begin)
    if not all(watch.created_revision for watch in watches):
        raise CannotTryError("the watches were not created in 10 s")
    revision = 0
    for _ in range(_PUTS):
        revision = answer_of(actor.put(b"key", b"x" * _LARGE))["header"]["revision"]
    answer_of(actor.ask(pb.CompactionRequest(revision=revision)))
    for _ in range(_TIMES):
        stage.work(lambda: take(_SOME))
        time.sleep(_SYNCED_S)
    stage.work(drain)
    actor.put(b"key", b"the last")
    stage.work(drain)


def _watch_from_far_behind(stage: Stage) -> None:
    """Put all the time, by turns beside a watch that is thousands of revisions behind, and beside none.

    Ten times a second etcd reads all that such a watch has not seen, sends it a thousand revisions of it, and lets no
    write end meanwhile. Most of each revision is of keys that are not watched, so that it costs the member much and
    this process little.
    """
    name = stage.names[0]
    writer, reader = stage.client(name), stage.client(name)
    operations = [put_op(key, b"") for key in (b"key", *(b"other%d" % number for number in range(_BESIDE)))]

    def write_much() -> int:
        def some() -> None:
            for _ in range(_BEHIND // _TOGETHER):
                writer.txn([], operations)

        gevent.joinall([gevent.spawn(some) for _ in range(_TOGETHER)])
        return writer.put(b"key", b"the last").revision

    def put_while(goes_on: Callable[[], bool]) -> float:
        began = time.monotonic()
        while goes_on() and stage.left_s:
            writer.put(b"other", b"")
        return time.monotonic() - began

    def turn(last: int, before_s: float) -> float:
        until = time.monotonic() + before_s
        put_while(lambda: time.monotonic() < until)
        watcher = reader.watcher()
        watch = watcher.watch(b"key", start_revision=2)
        taking = gevent.spawn(lambda: [None for _ in watch])
        took_s = put_while(lambda: watch.next_revision <= last)
        watcher.close()
        taking.join()
        return took_s

    def by_turns(last: int) -> None:
        took_s = _FIRST_S
        for _ in range(_TURNS):
            took_s = turn(last, took_s)

    last = stage.work(write_much)
    stage.work(lambda: by_turns(last))


def _ask_for_progress_when_behind(stage: Stage) -> None:
    """Watch from the first revision, and ask for progress at once, when nothing of that has been sent yet."""
    client = stage.client(stage.names[0])

    def ask() -> None:
        last = 0
        for _ in range(_PAST):
            put = client.put(b"key", b"")
            if put.error:
                raise CannotTryError(f"the key was not written: {put.error}")
            last = put.revision
        for _ in range(_ASKED):
            watcher = client.watcher()
            watch = watcher.watch(b"key", start_revision=2)
            if not watch.wait_created(_SENT_S):
                raise CannotTryError("a watch was not created")
            watcher.request_progress()
            told, newest, until = False, 0, time.monotonic() + _SENT_S
            while not (told and newest >= last) and time.monotonic() < until:
                if (answer := watch.next(_SENT_S)) is None:
                    break
                for event in answer.response.events:
                    newest = event.kv.mod_revision
                told |= not answer.response.events
                if not told:  # an etcd without the bug does not tell those that are behind
                    watcher.request_progress()
            watcher.close()

    stage.work(ask)


SCENARIOS = (
    Scenario("17529", ("watch.reliable",), _leave_watches_unread),
    Scenario("15220", ("watch.bookmarkable",), _ask_for_progress_when_behind),
    Scenario("22264", ("member.fair",), _watch_from_far_behind, certain=False, limit_s=60.0),
)
