"""The open loop on simulated time: when each operation is sent, what is dropped, and what a stall costs."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.pool import Group

from loadgen.load.open_loop import OpenLoop
from loadgen.load.settings import Settings
from loadgen.load.workload import plateau, timetable

MS, SECOND = 1_000_000, 1_000_000_000
SERVICE_NS = MS // 2


class Simulation:
    """Time that jumps from one event to the next; the event loop runs what follows from each to its end."""

    def __init__(self) -> None:
        self.now = 0
        self.late: Callable[[int], int] = lambda at_ns: at_ns
        self._events: list[tuple[int, int, Callable[[], object]]] = []
        self._turn = itertools.count()

    def at(self, at_ns: int, what: Callable[[], object]) -> None:
        heapq.heappush(self._events, (at_ns, next(self._turn), what))

    def clock(self) -> int:
        return self.now

    def sleep_until(self, at_ns: int) -> None:
        """Hold the greenlet that calls this until then."""
        over = Event()
        self.at(at_ns, over.set)
        over.wait()

    def timer(self, _loop: Any, callback: Callable[[], None]) -> Timer:
        return Timer(self, callback)

    def run(self) -> None:
        loop = gevent.get_hub().loop
        while self._events:
            at_ns, _, what = heapq.heappop(self._events)
            self.now = max(self.now, at_ns)
            loop.run_callback(what)
            for _ in range(5):  # an event wakes a user, who begins another operation, which starts a user
                gevent.sleep(0)


class Timer:
    """Goes off at the last moment that was set, or as much later as the simulated machine is busy."""

    def __init__(self, simulation: Simulation, callback: Callable[[], None]) -> None:
        self._simulation, self._callback = simulation, callback
        self._set = 0

    def set(self, at_ns: int) -> None:
        self._set += 1
        mine = self._set
        self._simulation.at(self._simulation.late(at_ns), lambda: self._callback() if mine == self._set else None)

    def close(self) -> None:
        self._set = -1


class Worker:
    """One worker's open loop against a server that answers an operation when ``answered`` says.

    Attributes: ``calls``, number, due time and time of the call of each operation; ``latencies``, from due to the
    answer, in nanoseconds.
    """

    def __init__(
        self,
        simulation: Simulation,
        settings: Settings,
        *,
        rank: int = 0,
        workers: int = 1,
        limit: int = 10_000,
        answered: Callable[[int], int] = lambda now: now + SERVICE_NS,
    ) -> None:
        self._simulation, self._answered = simulation, answered
        self.calls: list[tuple[int, int, int]] = []
        self.latencies: list[int] = []
        self.began: list[int] = []
        self.ended: list[int] = []
        self.most_open = self._open = 0
        self.loop = OpenLoop(
            timetable(settings, rank, workers, 0),
            limit=limit,
            begin=lambda: self.began.append(simulation.now),
            start_user=self._start,
            end=lambda: self.ended.append(simulation.now),
            clock=simulation.clock,
            make_timer=simulation.timer,
        )

    def _start(self, group: Group) -> None:
        group.spawn(self.loop.serve, self._operate)

    def _operate(self, number: int, due_ns: int) -> None:
        self.calls.append((number, due_ns, self._simulation.now))
        self._open += 1
        self.most_open = max(self.most_open, self._open)
        self._simulation.sleep_until(self._answered(self._simulation.now))
        self._open -= 1
        if number >= 0:
            self.latencies.append(self._simulation.now - due_ns)


def settings_of(**options: str) -> Settings:
    return Settings.from_options(options, ("127.0.0.1:1",))


@pytest.mark.parametrize(
    ("options", "workers", "count"),
    [
        ({"rate": "400", "open_loop_s": "4", "warmup": "0.5s"}, 1, 1600),
        ({"rate": "2000", "open_loop_s": "2"}, 2, 4000),
        ({"rate": "333", "operations": "500"}, 3, 500),
        # (0+400)/2*1 + 400*1 + (400+0)/2*0.5 = 200 + 400 + 100
        ({"stages": "1s:400,1s:400,500ms:0"}, 2, 700),
        # (100+200+300)*0.5
        ({"step": "100:300:100/500ms"}, 1, 300),
        ({"rate": "1000", "operations": "1500", "arrivals": "poisson"}, 2, 1500),
    ],
)
def test_every_operation_is_sent_at_its_moment(options: dict[str, str], workers: int, count: int) -> None:
    simulation, settings = Simulation(), settings_of(**options)
    all_workers = [Worker(simulation, settings, rank=rank, workers=workers) for rank in range(workers)]
    simulation.run()
    for worker in all_workers:
        assert [call for _, _, call in worker.calls] == [due for _, due, _ in worker.calls]
        numbers = [number for number, _, _ in worker.calls if number >= 0]
        assert numbers == list(range(worker.loop.scheduled))
        assert (worker.loop.dropped, worker.loop.ended, worker.loop.stopped) == (0, True, False)
        assert len(worker.began) == len(worker.ended) == 1
    measured = sorted(due for worker in all_workers for number, due, _ in worker.calls if number >= 0)
    assert len(measured) == count == sum(worker.loop.scheduled for worker in all_workers)
    if rate := options.get("rate"):
        warm_up = [due for worker in all_workers for number, due, _ in worker.calls if number < 0]
        assert len(warm_up) == float(rate) * settings.warmup_s
        if settings.arrivals == "constant":
            start_ns = settings.warmup_s * SECOND
            assert measured == pytest.approx([start_ns + n * SECOND / float(rate) for n in range(count)], abs=1)


STALL_NS = (SECOND, 2_500_000_000)


def with_a_stall(now: int) -> int:
    """Return the server answers nothing for 1.5 s, then all of it at once."""
    return STALL_NS[1] if STALL_NS[0] <= now < STALL_NS[1] else now + SERVICE_NS


def test_what_is_due_in_a_stall_waits_from_then_on() -> None:
    """Of 5 s at 500/s 750 operations are due in the stall, and wait for what is left of it, however long that is."""
    simulation = Simulation()
    worker = Worker(simulation, settings_of(rate="500", open_loop_s="5"), answered=with_a_stall)
    simulation.run()
    assert len(worker.calls) == 2500
    assert worker.most_open == 750
    slowest = sorted(worker.latencies, reverse=True)
    assert slowest[:750] == [STALL_NS[1] - (SECOND + 2 * MS * n) for n in range(750)]
    assert set(slowest[750:]) == {SERVICE_NS}


def test_what_is_due_while_too_many_are_open_is_dropped_and_counted() -> None:
    simulation = Simulation()
    settings = settings_of(rate="500", open_loop_s="5", warmup="100ms")
    worker = Worker(simulation, settings, limit=20, answered=with_a_stall)
    simulation.run()
    # 750 are due within the stall, and the first 20 of them can be sent.
    assert (worker.loop.scheduled, worker.loop.dropped, worker.most_open) == (2500, 730, 20)
    assert len(worker.latencies) == 1770


def test_a_machine_that_is_busy_makes_operations_late_and_loses_none() -> None:
    """The timer of 1.0 s goes off 0.3 s late: what was due meanwhile is sent then, in order, and its wait counts."""
    simulation = Simulation()
    simulation.late = lambda at_ns: max(at_ns, 1_300 * MS) if at_ns >= SECOND else at_ns
    worker = Worker(simulation, settings_of(rate="500", open_loop_s="2"))
    simulation.run()
    assert [number for number, _, _ in worker.calls] == list(range(1000))
    for _, due, call in worker.calls:
        assert call == (1_300 * MS if SECOND <= due <= 1_300 * MS else due)
    assert sorted(worker.latencies)[-1] == 300 * MS + SERVICE_NS
    assert worker.loop.dropped == 0


def test_what_is_due_and_not_sent_when_it_is_stopped_counts_as_dropped() -> None:
    simulation = Simulation()
    simulation.late = lambda at_ns: max(at_ns, 1_300 * MS) if at_ns >= SECOND else at_ns
    worker = Worker(simulation, settings_of(rate="500", open_loop_s="10"))
    # The operations of 1.0 s to 1.2 s are due by now, and the busy machine has sent none of them.
    simulation.at(1_200 * MS, worker.loop.stop)
    simulation.run()
    assert (len(worker.calls), worker.loop.scheduled, worker.loop.dropped) == (500, 601, 101)
    assert (worker.loop.ended, worker.loop.stopped, worker.ended) == (True, True, [1_200 * MS])
    worker.loop.stop()
    assert (worker.loop.dropped, len(worker.ended)) == (101, 1)
    assert len(worker.latencies) == 500


def test_a_schedule_without_an_operation_of_this_worker_ends_from_the_event_loop() -> None:
    simulation = Simulation()
    worker = Worker(simulation, settings_of(rate="1", operations="1"), rank=1, workers=2)
    assert not worker.loop.ended
    simulation.run()
    assert (worker.loop.ended, worker.calls, worker.began, worker.ended) == (True, [], [], [0])


def test_the_rate_changes_at_its_moment_in_all_workers() -> None:
    """From 100/s to 1,000/s at 1 s and to 50/s at 2 s: nothing is lost or doubled, and workers go on taking turns."""
    simulation, settings = Simulation(), settings_of(rate="100")
    all_workers = [Worker(simulation, settings, rank=rank, workers=2) for rank in range(2)]

    def change(rate: float, at_ns: int, number: int) -> None:
        for rank, worker in enumerate(all_workers):
            worker.loop.change(at_ns, plateau(settings, rank, 2, rate, at_ns, number))

    simulation.at(950 * MS, lambda: change(1000, SECOND, 0))
    simulation.at(1_900 * MS, lambda: change(50, 2 * SECOND, 1))
    simulation.at(4 * SECOND - 1, lambda: [worker.loop.stop() for worker in all_workers])
    simulation.run()
    dues = sorted(due for worker in all_workers for _, due, _ in worker.calls)
    expected = [*range(0, SECOND, 10 * MS), *range(SECOND, 2 * SECOND, MS), *range(2 * SECOND, 4 * SECOND, 20 * MS)]
    assert dues == expected
    for worker in all_workers:
        numbers = [number for number, _, _ in worker.calls]
        assert numbers == list(range(worker.loop.scheduled)) and len(worker.began) == 1
        assert [call for _, _, call in worker.calls] == [due for _, due, _ in worker.calls]


def test_a_rate_that_changes_before_the_next_operation_is_due_does_not_wait_for_it() -> None:
    """At one operation in 10 s the next is due far beyond the change."""
    simulation, settings = Simulation(), settings_of(rate="0.1")
    worker = Worker(simulation, settings)
    simulation.at(SECOND, lambda: worker.loop.change(SECOND, plateau(settings, 0, 1, 10, SECOND, 0)))
    simulation.at(2 * SECOND - 1, worker.loop.stop)
    simulation.run()
    assert [due for _, due, _ in worker.calls] == [0, *range(SECOND, 2 * SECOND, 100 * MS)]
