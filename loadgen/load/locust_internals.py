"""What reaches into Locust beyond its documented interface, written for Locust 2.47.

Each function says why the documented interface does not do. `tests/unit/test_locust_internals.py` holds the names used
here against the installed Locust.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import gevent

from loadgen.load.protocol import Counts
from loadgen.stats import hdr
from loadgen.stats.precision import bucket_ns, bucket_response_time, percentile, response_time_percentile
from loadgen.stats.series import TICKS_S, Intervals

if TYPE_CHECKING:
    from loadgen.load.locust_types import (
        Environment,
        EventHook,
        Greenlet,
        MasterRunner,
        Message,
        RequestStats,
        Runner,
        StatsCSVFileWriter,
        StatsEntry,
        WebUI,
        WorkerRunner,
    )

WRITTEN_FOR = "2.47"
REPORT_INTERVAL_S = 0.5
# Locust would otherwise wait a minute before a worker believes that its master is gone.
MASTER_SILENCE_S = 10
NEVER_S = 10**9
# Messages of Locust's own: a worker is ready for a test, and a worker leaves.
CLIENT_READY, QUIT = "client_ready", "quit"


# -- timing -------------------------------------------------------------------------------------------------


def set_master_timing() -> None:
    """Have no worker taken for dead by Locust.

    Locust takes a worker for missing that it has not heard of for 4 s, and stops the test where it was the last; a
    minute later it drops it and starts the test's users anew. One that waits for a processor is not dead, so who is
    dead Locust hears from us: `bury`. Its two limits are module constants, counted in heartbeats of a second.
    """
    from locust import runners

    runners.WORKER_REPORT_INTERVAL = REPORT_INTERVAL_S
    runners.HEARTBEAT_LIVENESS = NEVER_S
    runners.HEARTBEAT_DEAD_INTERNAL = -NEVER_S


def set_up_opentelemetry(scenario: str) -> None:
    """Do what Locust's command line does for its --otel. Takes what it calls the locustfile."""
    from locust.opentelemetry import setup_opentelemetry

    setup_opentelemetry(scenario, None)


def set_worker_timing(*, waits_for_master: bool) -> None:
    """Set how often a worker reports and looks at its CPU, and whether a silent master means that it is gone.

    All of them are module constants of Locust's.
    """
    from locust import runners

    runners.MASTER_HEARTBEAT_TIMEOUT = NEVER_S if waits_for_master else MASTER_SILENCE_S
    runners.WORKER_REPORT_INTERVAL = REPORT_INTERVAL_S
    runners.CPU_MONITOR_INTERVAL = 1.0


def read_default_options_once() -> None:
    """Have a worker ask Locust for the names of its options once in its life.

    When it is told to start users, Locust's worker asks for them anew for each option that its master has sent, and
    makes a parser each time: about 80 ms of a processor before the first operation.
    """
    from locust import argument_parser

    if not hasattr(argument_parser.default_args_dict, "cache_info"):
        argument_parser.default_args_dict = functools.cache(argument_parser.default_args_dict)


# -- events -------------------------------------------------------------------------------------------------


def listen_first(event: EventHook, function: Callable[..., object]) -> None:
    """Add a listener before those that are there: `EventHook` adds at the end only."""
    event._handlers.insert(0, function)


def is_heard_by_others(event: EventHook) -> bool:
    """Tell whether anybody but Locust's runner, which is the first, listens to an event: `EventHook` does not say."""
    return len(event._handlers) > 1


@contextlib.contextmanager
def listeners_kept() -> Iterator[None]:
    """Take away at the end of a block the listeners that were added to Locust's events in it.

    Scenarios register with ``locust.events``, which is one for the process; runners, listeners of one session among
    them, would hear of the sessions after it.
    """
    from locust import events

    before = {name: list(hook._handlers) for name, hook in vars(events).items()}
    try:
        yield
    finally:
        for name, handlers in before.items():
            getattr(events, name)._handlers = handlers


# -- the master's runner ------------------------------------------------------------------------------------


def intercept_messages(
    runner: MasterRunner, function: Callable[[str, Message], None]
) -> Callable[[str, Message], None]:
    """Have a function called with each message that reaches a master; return what handles it as Locust does.

    Handlers can be registered only for kinds of message that Locust does not know.
    """
    handle = runner.handle_message
    runner.handle_message = function
    return handle


def handles(runner: Runner, kind: str) -> bool:
    """Tell whether a handler for a kind of message is registered; Locust raises for a second one."""
    return kind in runner.custom_messages


def run_time_s(text: str) -> int:
    """Return the seconds of a web UI's Run Time, in the grammar of Locust, which says what is wrong at no field.

    Raises ValueError.
    """
    from locust.util.timespan import parse_timespan

    try:
        seconds: int = parse_timespan(text)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is no time to run: write whole numbers, as 20, 20s, 3m or 1h20m30s") from error
    return seconds


def send_to(runner: MasterRunner, client_id: str, kind: str, data: object = None) -> None:
    """Send a message to a worker, also to one that has stopped its users, which ``send_message`` no longer knows."""
    from locust.rpc import Message

    runner.server.send_to_client(Message(kind, data, client_id))


def keep_alive(runner: MasterRunner, client_id: str) -> None:
    """Have a worker know that its master lives: Locust answers only workers that can take users."""
    send_to(runner, client_id, "heartbeat")


def take_without_users(runner: MasterRunner, client_id: str) -> None:
    """Let a worker that has reported say who it is, and give it no users: Locust gives them to all that report."""
    runner.send_message("ack", {"index": -1}, client_id)


def dismiss(runner: MasterRunner, client_id: str) -> None:
    """Have one worker quit: Locust tells all of them or none."""
    runner.send_message(QUIT, None, client_id)


def port_of(runner: MasterRunner) -> int:
    """Return the port at which a master listens: with port 0 the system has chosen it, and the runner says 0."""
    return runner.server.port


def bury(runner: MasterRunner, client_id: str) -> None:
    """Let Locust know that a worker is lost: it would wait for its users at the end of the test."""
    client = runner.clients.get(client_id)
    if client is not None:
        client.heartbeat = -1


def forget(runner: MasterRunner, client_id: str) -> None:
    """Take a worker from those to which a master gives users: Locust does so only when it leaves by itself."""
    runner.clients.pop(client_id, None)


def stop_workers(runner: MasterRunner) -> None:
    """Have every worker stop its users. What `MasterRunner.stop` does, without its wait in whole seconds."""
    from locust.runners import STATE_STOPPING

    environment = runner.environment
    environment.events.test_stopping.fire(environment=environment)
    runner.update_state(STATE_STOPPING)
    # While there is a dispatcher, Locust gives the users of a worker that stops to those that still run.
    runner._users_dispatcher = None
    runner.send_message("stop")


def bring_to_rest(runner: MasterRunner) -> None:
    """Have a web UI's test stop, and the UI say so.

    The greenlet in which Locust's UI starts a test waits for the users to be there, a second at most, and then says
    that the test is running; those of a short run are gone by then. Where one worker is missing and the others were
    ready for the next test before Locust knew of it, Locust would be stopping for ever.
    """
    from locust.runners import STATE_RUNNING, STATE_SPAWNING, STATE_STOPPED, STATE_STOPPING

    starter = swarm_of(runner.environment.web_ui)
    if starter is not None:
        starter.kill(block=True)
    if runner.state in (STATE_RUNNING, STATE_SPAWNING):
        runner.stop()
    while runner.state == STATE_STOPPING:
        if not runner.user_count:
            runner.update_state(STATE_STOPPED)
        gevent.sleep(0.1)


def close_master(runner: MasterRunner, linger_ms: int) -> None:
    """End a master's greenlets and its socket, which ``quit`` leaves open.

    Takes for how long messages that are under way may take, in milliseconds.
    """
    runner.greenlet.kill(block=True)
    runner.server.close(linger=linger_ms)


# -- a worker's runner --------------------------------------------------------------------------------------


def hear_of_stops(runner: Runner) -> None:
    """Have a runner that begins a test take the next stop for one of this test.

    After its first test Locust's runner says "stopped" until it spawns a user, which it does in a greenlet of its own.
    It passes over a stop that comes before that greenlet's turn, tells the master that it has stopped, and starts its
    users: the master no longer knows it then, and has it quit.
    """
    from locust.runners import STATE_INIT

    runner.update_state(STATE_INIT)


def send_stats(runner: WorkerRunner) -> None:
    """Send a worker's statistics now: Locust does so by time, and when it stops or quits."""
    runner._send_stats()


def say_last(runner: WorkerRunner, kind: str, data: object) -> None:
    """End a worker's greenlets, whatever state they are in, and send a last message to the master."""
    from locust.rpc import Message

    runner.greenlet.kill(block=False)
    runner.client.send(Message(kind, data, runner.client_id))


def hang_up(runner: WorkerRunner, linger_ms: int) -> None:
    """End the connection to the master: what was sent has arrived, or there is no way, when this returns.

    A thread of ZeroMQ sends what is to be sent, and it ends with the process at the latest. Takes for how long that may
    take, in milliseconds. Locust leaves the connection to the end of the process.
    """
    context = runner.client.socket.context
    runner.client.close(linger=linger_ms)
    context.term()


# -- the web UI ---------------------------------------------------------------------------------------------


def swarm_of(web_ui: WebUI | None) -> Greenlet | None:
    """Return the greenlet in which a web UI starts a test, None before the first: its ``/stop`` ends that greenlet."""
    return None if web_ui is None else web_ui._swarm_greenlet


def wait_until_served(web_ui: WebUI) -> int:
    """Wait until a web UI listens, of which Locust, that starts it in a greenlet, tells nobody; return its port."""
    while getattr(web_ui, "server", None) is None or not web_ui.server.started:
        gevent.sleep(0.01)
    return web_ui.server.server_port


def set_percentiles_of_web_ui() -> None:
    """Choose the percentiles of Locust's charts and tables, which are module constants."""
    from locust import stats

    stats.PERCENTILES_TO_CHART = [0.5, 0.95, 0.99]
    stats.PERCENTILES_TO_STATISTICS = [0.95, 0.99, 0.999]


# -- statistics ---------------------------------------------------------------------------------------------


class _CoarseMs(dict[int, float]):
    """The response time in Locust's statistics, in milliseconds, of each bucket of a histogram that was met.

    There are 40,000 buckets at most.
    """

    def __missing__(self, key: int) -> float:
        coarse = self[key] = bucket_ns(hdr.middle(key)) / 1e6
        return coarse


_COARSE_MS = _CoarseMs()


def count_successes(stats: RequestStats, latencies: Intervals, totals: Mapping[str, Counts], request_type: str) -> None:
    """Count successes in Locust's statistics: what `StatsEntry.log` does, for many at once.

    For each operation `StatsEntry.log` would cost more than the operation itself. Takes a `RequestStats`, the latencies
    since the last call by operation type, what the types came to, and their type of request in Locust.
    """
    for f, intervals in latencies.items():
        last = totals[f]["last_return_ns"] / 1e9
        times: dict[float, int] = {}
        by_second: dict[int, int] = {}
        lowest_ns, highest_ns, sum_ns = sys.maxsize, 0, 0
        for tick, _, _, _, min_ns, max_ns, total_ns, counts in intervals:
            if not counts:
                continue
            for key, count in counts.items():
                coarse = _COARSE_MS[key]
                times[coarse] = times.get(coarse, 0) + count
            second = tick // TICKS_S
            by_second[second] = by_second.get(second, 0) + sum(counts.values())
            lowest_ns, highest_ns, sum_ns = min(lowest_ns, min_ns), max(highest_ns, max_ns), sum_ns + total_ns
        if not times:
            continue
        for entry in (stats.total, stats.entries[f, request_type]):
            before = entry.last_request_timestamp
            if entry.use_response_times_cache and before and int(last) > int(before):
                entry._cache_response_times(int(last) - 1)
            entry.last_request_timestamp = max(last, before or 0.0)
            entry.num_requests += sum(by_second.values())
            for second, number in by_second.items():
                entry.num_reqs_per_sec[second] += number
            entry.total_response_time += sum_ns / 1e6
            low, lowest = lowest_ns / 1e6, entry.min_response_time
            entry.min_response_time = low if lowest is None else min(low, lowest)
            entry.max_response_time = max(highest_ns / 1e6, entry.max_response_time)
            for time_ms, count in times.items():
                entry.response_times[time_ms] += count


class CsvFiles:
    """Locust's CSV files of one run, written every second and, unlike Locust's own, once more at the end.

    Locust's writer ends with its greenlet, in the middle of a second. Takes the environment and the files' prefix.
    Raises OSError.

    Attributes:
        error: why the files could not be written in between, None where they could.
    """

    def __init__(self, environment: Environment, prefix: Path) -> None:
        from locust import stats

        self.error: OSError | None = None
        self._prefix = prefix
        self._writer: StatsCSVFileWriter = stats.StatsCSVFileWriter(
            environment, stats.PERCENTILES_TO_REPORT, str(prefix), full_history=True
        )
        self._greenlet = gevent.spawn(self._write_every_second)

    def _write_every_second(self) -> None:
        try:
            self._writer.stats_writer()
        except OSError as error:
            self.error = error

    def close(self) -> None:
        """Write the last rows of the history and close all files. Raises OSError, also one from in between."""
        self._greenlet.kill()
        writer = self._writer
        try:
            if self.error is not None:
                raise self.error
            if writer.stats_history_csv_filehandle.tell() == 0:
                writer.stats_history_csv_writer.writerow(writer.stats_history_csv_columns)
            writer._stats_history_data_rows(writer.stats_history_csv_writer, time.time())
        finally:
            self._close_files()

    def _close_files(self) -> None:
        """Close the files; what those that are written anew have not yet taken is of no use."""
        writer = self._writer
        for file in (writer.requests_csv_filehandle, writer.failures_csv_filehandle, writer.exceptions_csv_filehandle):
            with contextlib.suppress(OSError):
                file.close()
        writer.stats_history_csv_filehandle.close()

    def final(self) -> dict[Path, bytes]:
        """Return the final content of the files that are not a history, to be written by their path."""
        writer, tables = self._writer, {}
        for kind, write in (
            ("stats", writer.requests_csv), ("failures", writer.failures_csv), ("exceptions", writer.exceptions_csv)
        ):  # fmt: skip
            text = io.StringIO(newline="")
            write(csv.writer(text))
            tables[Path(f"{self._prefix}_{kind}.csv")] = text.getvalue().encode()
        return tables


def install_microseconds() -> None:
    """Give Locust's statistics, CSV files, web UI and HTML report microseconds, in this process; once is enough.

    Locust rounds response times to whole milliseconds in three places: the histogram's keys, the CSV's percentile
    columns, and the minimum and maximum that the web UI shows. The first has a documented hook; for the others, and for
    the definition of a percentile, functions are replaced.
    """
    from locust import runners, stats

    # When a test stops, Locust looks up its caller's source file for a debug line: tens of milliseconds in which no
    # answer that is still open gets read. Without the module it does without the line.
    runners.inspect = None
    if stats.bucket_response_time is bucket_response_time:
        return
    stats.bucket_response_time = bucket_response_time
    stats.calculate_response_time_percentile = response_time_percentile
    round_for_ui = stats.StatsEntry.to_dict
    current_of_locust = stats.StatsEntry.get_current_response_time_percentile

    def percentile_fields(
        self: StatsCSVFileWriter, stats_entry: StatsEntry, use_current: bool = False
    ) -> list[str] | list[float]:
        if not stats_entry.num_requests:
            return list(self.percentiles_na)
        if use_current and stats_entry.use_response_times_cache:
            current = stats_entry.get_current_response_time_percentile
            return [_microseconds(current(x) or 0.0) for x in self.percentiles_to_report]
        return [_microseconds(percentile(stats_entry, x)) for x in self.percentiles_to_report]

    def to_dict(self: StatsEntry, escape_string_values: bool = False) -> dict[str, object]:
        row = round_for_ui(self, escape_string_values)
        low, high = float(self.min_response_time or 0.0), float(self.max_response_time)
        # A bucket's midpoint may lie outside of what was measured.
        times = {key: min(max(value, low), high) for key, value in row.items() if "response_time" in key}
        times |= {"min_response_time": low, "max_response_time": high}
        return {**row, **{key: _microseconds(value) for key, value in times.items()}}

    def current(self: StatsEntry, percent: float) -> float | None:
        value = current_of_locust(self, percent)
        return None if value is None else _microseconds(value)

    stats.StatsEntry.get_current_response_time_percentile = current
    stats.StatsCSV._percentile_fields = percentile_fields
    stats.StatsEntry.to_dict = to_dict


def _microseconds(milliseconds: float) -> float:
    return round(milliseconds, 3)
