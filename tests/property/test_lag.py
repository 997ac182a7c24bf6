"""The wait of an arrival: the formula against a simulation, and the watch on a real loop."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from bisect import bisect_right

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.load import loop_lag
from loadgen.load.loop_lag import LoopLag, wait_exceeded


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=30), st.floats(0.001, 0.5))
def test_waits_above_the_percentile_have_the_share_that_is_left(lengths: list[int], share: float) -> None:
    elapsed = 2 * sum(lengths)
    turns = {length: (lengths.count(length), length * lengths.count(length)) for length in lengths}
    x = wait_exceeded(turns, elapsed * share)
    above = sum(max(0.0, length - x) for length in lengths)
    if x > 0:
        assert abs(above - elapsed * share) < 1e-6 * elapsed
    else:
        assert above <= elapsed * share + 1e-9


@given(st.lists(st.integers(0, 10**11), min_size=1, max_size=30), st.floats(0.001, 0.5))
def test_turns_are_counted_close_to_their_length(lengths: list[int], share: float) -> None:
    """In few counters, however many turns there are."""
    now = 5
    turns: dict[int, int] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_lag, "perf_counter_ns", lambda: now)
        woke, sleeps = loop_lag.watch(turns)
        for length in lengths:
            woke()
            now += length
            sleeps()
            now += length
    counted = loop_lag.lengths(turns)
    assert sum(count for count, _ in counted.values()) == len(lengths)
    rounded = sorted(key for key, (count, _) in counted.items() for _ in range(count))
    for floor, length in zip(rounded, sorted(lengths), strict=True):
        assert floor <= length < floor + (2**10 if length < 2**22 else 2**17)
    rounding = 2**10 if max(lengths) < 2**22 else 2**17
    exact = {length: (lengths.count(length), length * lengths.count(length)) for length in lengths}
    over = 2 * sum(lengths) * share
    assert wait_exceeded(counted, over) == pytest.approx(wait_exceeded(exact, over), abs=rounding)


def test_the_formula_agrees_with_arrivals_at_random_moments() -> None:
    rng = random.Random(5)
    lengths = [rng.randint(1, 200) for _ in range(200)]
    elapsed = 3 * sum(lengths)
    ends = list(itertools.accumulate(lengths))
    waits = []
    for _ in range(50_000):
        moment = rng.uniform(0, elapsed)
        # In the turn that it falls into it waits for the rest of that.
        waits.append(ends[bisect_right(ends, moment)] - moment if moment < ends[-1] else 0.0)
    waits.sort()
    turns = {length: (lengths.count(length), length * lengths.count(length)) for length in lengths}
    assert abs(waits[int(0.95 * len(waits))] - wait_exceeded(turns, elapsed * 0.05)) < 8


@pytest.mark.timing
def test_a_busy_callback_is_seen_and_an_idle_loop_is_not() -> None:
    """The idle loop is measured in the same moments: what else the machine does keeps both of them waiting."""
    idle_ms = []
    busy = LoopLag(gevent.get_hub())
    for _ in range(10):
        gevent.get_hub().loop.run_callback(time.sleep, 0.02)
        gevent.sleep(0.02)
        idle = LoopLag(gevent.get_hub())
        gevent.sleep(0.05)
        idle.stop()
        idle_ms.append(idle.percentile_ms(0.99))
    busy.stop()
    assert busy.percentile_ms(0.99) > 15
    assert min(idle_ms) < busy.percentile_ms(0.99) / 3


def test_a_loop_that_is_not_given_a_processor_is_seen() -> None:
    script = (
        "import gevent, gevent.socket; from loadgen.load.loop_lag import LoopLag; lag = LoopLag(gevent.get_hub());"
        "print('watching', flush=True); gevent.socket.wait_read(0); lag.stop(); print(lag.percentile_ms(0.99))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        os.kill(child.pid, signal.SIGSTOP)
        time.sleep(1)
        os.kill(child.pid, signal.SIGCONT)
        # Of what it watched, 1 s: arrivals at its beginning wait for nearly all of it. One in a hundred of all moments
        # is among the first 0.8 s as long as it watched for less than 80 s.
        assert float(child.communicate("go on\n", timeout=120)[0]) > 200
