"""SIGINT and SIGTERM in a command: none is lost, wherever it comes."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time

import pytest

from cluster.base.signals import Interrupted, finishing, interruptible, uninterrupted
from tests.support.freed import Freed, FreedFile
from tests.support.waiting import HANG_S


@pytest.mark.parametrize("kind", [Freed, FreedFile])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_finalizer_is_not_lost(number: signal.Signals, kind: type[Freed | FreedFile]) -> None:
    slept = False
    with pytest.raises(Interrupted, match=number.name), interruptible():
        kind(number)
        time.sleep(HANG_S)
        slept = True
    assert not slept


@pytest.mark.parametrize("kind", [Freed, FreedFile])
def test_a_signal_in_a_finalizer_at_the_very_end_is_not_lost(kind: type[Freed | FreedFile]) -> None:
    before = signal.getsignal(signal.SIGINT), sys.unraisablehook
    with pytest.raises(Interrupted), interruptible():
        kind(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), sys.unraisablehook) == before
    waiting = [each for each in threading.enumerate() if isinstance(each, threading.Timer)]
    assert all(each.finished.is_set() for each in waiting), "it would come a second time"


def test_a_signal_that_comes_again_too_early_is_sent_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    class Early(threading.Timer):
        """A timer that is over before ``start`` returns, as on a machine where that takes longer."""

        def start(self) -> None:
            if len(early) < 3:
                early.append(self)
                self.finished.set()
                os.kill(os.getpid(), signal.SIGINT)
            super().start()

    early: list[threading.Timer] = []
    monkeypatch.setattr(threading, "Timer", Early)
    with pytest.raises(Interrupted), interruptible():
        Freed(signal.SIGINT)
        time.sleep(HANG_S)
    assert len(early) == 3


def test_what_cleans_up_after_a_signal_is_not_sent_it_again() -> None:
    with pytest.raises(KeyError) as caught, interruptible():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(HANG_S)
        finally:
            gc.collect()
            time.sleep(0.1)  # ten times as long as until a signal that was dropped is sent again
            raise KeyError("of its own")
    assert isinstance(caught.value.__context__, Interrupted)


def test_what_else_a_finalizer_raises_is_reported_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: seen.append(what.exc_value))

    class Broken:
        def __del__(self) -> None:
            raise ValueError("ours")

    with interruptible():
        Broken()
    assert [str(each) for each in seen] == ["ours"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_another_thread_gets_ends_a_wait_for_a_lock(number: signal.Signals) -> None:
    """As one does that comes while the main thread is about to wait."""
    over, ended = threading.Event(), threading.Event()

    def get() -> None:
        signal.pthread_kill(threading.get_ident(), number)
        over.wait(HANG_S)
        ended.set()

    before = signal.getitimer(signal.ITIMER_REAL)
    other = threading.Timer(0.1, get)
    with pytest.raises(Interrupted, match=number.name), interruptible(), interruptible():
        other.start()
        ended.wait()
        pytest.fail("it was heard of at the end of the wait only")
    assert not ended.is_set()
    assert signal.getitimer(signal.ITIMER_REAL) == before
    over.set()
    other.join()


def test_an_alarm_of_somebody_else_is_left_alone() -> None:
    mine = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        owner = signal.getsignal(signal.SIGALRM)
        with interruptible():
            assert signal.getsignal(signal.SIGALRM) is owner
            assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    finally:
        signal.signal(signal.SIGALRM, mine)


def test_what_must_end_ends_first() -> None:
    done = []
    with pytest.raises(Interrupted), interruptible(), finishing():
        os.kill(os.getpid(), signal.SIGINT)
        done.append("all")
    assert done == ["all"]


def test_what_cleans_up_is_left_alone() -> None:
    with interruptible(), uninterrupted():
        os.kill(os.getpid(), signal.SIGTERM)
