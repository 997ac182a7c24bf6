"""Watches that another watch, which asks for what it cannot have, makes lose events."""

from __future__ import annotations

import time
from functools import partial

import gevent

from loadgen.bugs.scenario import CannotTryError, Scenario
from loadgen.bugs.stage import Permission, Stage
from loadgen.client.auth import READWRITE
from loadgen.client.watch import Watch
from loadgen.client.watcher import Watcher

_ROUNDS, _BESIDE, _SETTLED_S, _CREATED_S = 4, 6, 0.4, 5.0
_BEFORE_ALL = -1


def _watch_from_before_all(stage: Stage) -> None:
    """Watch from revision -1 beside watches that catch up.

    #20693: ten times a second etcd reads, for all that catch up together, from the lowest of their revisions on. From
    a negative one it reads nothing, and takes all of them for caught up.
    """
    client, actor = stage.client(), stage.actor()
    for number in range(5):
        actor.put(b"key", b"%d" % number)

    def begin() -> list[Watcher]:
        watchers = [client.watcher() for _ in range(_BESIDE)]
        firsts = [_BEFORE_ALL if number == _BESIDE // 2 else 1 for number in range(_BESIDE)]
        watches = [each.watch(b"key", start_revision=first) for each, first in zip(watchers, firsts, strict=True)]
        for watch in watches:
            if not watch.wait_created(_CREATED_S) and watch.error is None:  # an error is that it was refused
                raise CannotTryError("a watch was not created")
        return watchers

    def end(watchers: list[Watcher]) -> None:
        for watcher in watchers:
            watcher.close()

    for _ in range(_ROUNDS):
        watchers = stage.work(begin)
        time.sleep(_SETTLED_S)
        actor.put(b"key", b"the last")
        time.sleep(_SETTLED_S)
        stage.work(partial(end, watchers))


def _have_a_watch_refused(stage: Stage) -> None:
    """Watch a key that the user may not, over a stream with a watch of one that it may.

    #12385 (mended by #14296): the refusal is told as the end of the watch of id 0, and etcd forgets that one, which is
    the first of the stream.
    """
    stage.enable_auth({"alice": (Permission(READWRITE, b"a"),)})
    alice = stage.actor(user="alice")
    alice.put(b"a", b"1")

    def begin() -> tuple[Watcher, Watch]:
        watcher = alice.client.watcher()
        first = watcher.watch(b"a")
        if not first.wait_created(_CREATED_S):
            raise CannotTryError("a watch was not created")
        second = watcher.watch(b"secret")
        if not second.wait_created(_CREATED_S) and second.error is None:
            raise CannotTryError("a watch was not refused, and not created")
        return watcher, first

    def ask_how_far(watcher: Watcher) -> None:
        watcher.request_progress()
        gevent.sleep(_SETTLED_S)

    watcher, _ = stage.work(begin)
    alice.put(b"a", b"2")
    time.sleep(_SETTLED_S)
    stage.work(lambda: ask_how_far(watcher))


SCENARIOS = (
    Scenario("12385", ("watch.reliable", "watch.resumable"), _have_a_watch_refused),
    Scenario("20693", ("watch.reliable", "watch.resumable"), _watch_from_before_all),
)
