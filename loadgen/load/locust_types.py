"""Protocols of Locust's objects and of the gevent objects in them: the attributes and methods that we use of each.

Locust is not imported here: whoever runs no load does without it. `tests/unit/test_locust_internals.py` holds each name
here, its type, and what a method takes against the objects of the installed Locust.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeVar

from loadgen.stats import precision

if TYPE_CHECKING:
    from flask import Flask
    from flask.typing import RouteCallable

    View = TypeVar("View", bound=RouteCallable)

# -- gevent -------------------------------------------------------------------------------------------------


class Greenlet(Protocol):
    """A greenlet."""

    @property
    def dead(self) -> bool: ...
    def kill(self, *, block: bool = True) -> object: ...
    def link_exception(self, callback: Callable[[Greenlet], object]) -> object: ...


class Group(Protocol):
    """The greenlets of a runner."""

    def kill(self, *, block: bool = True) -> object: ...
    def join(self) -> object: ...


class ChildWatcher(Protocol):
    """What the event loop tells of a process that has ended."""

    rstatus: int


class WSGIServer(Protocol):
    """What serves a web UI."""

    @property
    def started(self) -> bool: ...
    @property
    def server_port(self) -> int: ...


# -- events -------------------------------------------------------------------------------------------------


class EventHook(Protocol):
    """An event, and who listens to it."""

    _handlers: list[Callable[..., object]]

    def add_listener(self, handler: Callable[..., object]) -> object: ...
    def fire(self, **kwargs: object) -> None: ...


class Events(Protocol):
    """The events of an environment."""

    init: EventHook
    report_to_master: EventHook
    request: EventHook
    test_start: EventHook
    test_stop: EventHook
    test_stopping: EventHook
    worker_report: EventHook


# -- statistics ---------------------------------------------------------------------------------------------


class StatsEntry(precision.StatsEntry, Protocol):
    """The statistics of one request, or of all."""

    num_failures: int
    num_reqs_per_sec: MutableMapping[int, int]
    response_times: MutableMapping[float, int]
    total_response_time: float
    last_request_timestamp: float | None

    def _cache_response_times(self, t: int) -> None: ...


class StatsError(Protocol):
    """One cause of failures of one request."""

    name: str
    error: object
    occurrences: int


class RequestStats(Protocol):
    """The statistics of an environment."""

    errors: Mapping[str, StatsError]
    total: StatsEntry
    entries: Mapping[tuple[str, str], StatsEntry]


class CsvWriter(Protocol):
    """A writer of rows, of the standard library."""

    def writerow(self, row: Sequence[object], /) -> object: ...


class StatsCSVFileWriter(Protocol):
    """The writer of Locust's CSV files."""

    percentiles_na: list[str]
    percentiles_to_report: list[float]
    requests_csv_filehandle: IO[str]
    requests_csv_writer: CsvWriter
    failures_csv_filehandle: IO[str]
    failures_csv_writer: CsvWriter
    exceptions_csv_filehandle: IO[str]
    exceptions_csv_writer: CsvWriter
    stats_history_csv_filehandle: IO[str]
    stats_history_csv_writer: CsvWriter
    stats_history_csv_columns: list[str]

    def stats_writer(self) -> None: ...
    def close_files(self) -> None: ...
    def requests_csv(self, csv_writer: CsvWriter) -> None: ...
    def failures_csv(self, csv_writer: CsvWriter) -> None: ...
    def exceptions_csv(self, csv_writer: CsvWriter) -> None: ...
    def _stats_history_data_rows(self, csv_writer: CsvWriter, now: float) -> None: ...


# -- messages -----------------------------------------------------------------------------------------------


class Message(Protocol):
    """A message between master and worker."""

    type: str
    data: object
    node_id: str


class Server(Protocol):
    """The master's end of the connections."""

    port: int

    def send_to_client(self, msg: Message, /) -> None: ...
    def close(self, linger: int) -> None: ...


class Context(Protocol):
    """A context of ZeroMQ."""

    def term(self) -> None: ...


class Socket(Protocol):
    """A socket of ZeroMQ."""

    context: Context


class Client(Protocol):
    """A worker's end of the connection."""

    socket: Socket

    def send(self, msg: Message, /) -> None: ...
    def close(self, linger: int) -> None: ...


# -- users --------------------------------------------------------------------------------------------------


class User(Protocol):
    """A user."""

    def start(self, group: object) -> Greenlet: ...


class UserClass(Protocol):
    """A class of users. `loadgen.load.user.EtcdUser` says what ours have beside this."""

    weight: float
    tasks: Sequence[Callable[..., object]]

    def __call__(self, environment: Environment) -> User: ...


# -- runners ------------------------------------------------------------------------------------------------


class Runner(Protocol):
    """What runs a test: a master, a worker, or both in one."""

    environment: Environment
    greenlet: Group
    state: str
    custom_messages: Mapping[str, object]
    target_user_count: int

    @property
    def user_count(self) -> int: ...
    def stop(self) -> None: ...
    def quit(self) -> None: ...
    def update_state(self, new_state: str) -> None: ...
    def send_message(self, msg_type: str, data: object = None, client_id: str | None = None) -> None: ...
    def register_message(self, msg_type: str, listener: Callable[..., object]) -> None: ...
    def log_exception(self, node_id: str, msg: str, formatted_tb: str) -> None: ...


class WorkerNode(Protocol):
    """A worker as its master knows it."""

    heartbeat: int


class MasterRunner(Runner, Protocol):
    """What runs a test on workers."""

    server: Server
    clients: MutableMapping[str, WorkerNode]
    handle_message: Callable[[str, Message], None]
    _users_dispatcher: object

    def start(self, user_count: int, spawn_rate: float) -> None: ...


class WorkerRunner(Runner, Protocol):
    """A worker's part."""

    client: Client
    client_id: str

    def _send_stats(self) -> None: ...


# -- the environment ----------------------------------------------------------------------------------------


class WebUI(Protocol):
    """The web UI. It has a ``server`` once it listens."""

    app: Flask
    server: WSGIServer
    _swarm_greenlet: Greenlet | None
    template_args: dict[str, Any]
    update_template_args: Callable[[], None]

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def auth_required_if_enabled(self, view_func: View) -> View: ...


class Engine(Protocol):
    """A `loadgen.run.session.Session`, as its environment knows it."""

    prefix: str

    def worker_of(self, client_id: str) -> object: ...


class Environment(Protocol):
    """What belongs to one runner. It has a ``runner`` once that is made.

    Attributes:
        raftload: ours, the `loadgen.load.worker_run.Worker` of the process, once it is attached.
        raftload_engine: ours, what makes the runs, where it is not plain Locust.
    """

    runner: Runner
    events: Events
    stats: RequestStats
    user_classes: list[UserClass]
    parsed_options: argparse.Namespace
    host: str | None
    stop_timeout: float
    process_exit_code: int | None
    web_ui: WebUI | None
    raftload: object
    raftload_engine: Engine

    def create_master_runner(self, master_bind_host: str, master_bind_port: int) -> MasterRunner: ...
    def create_worker_runner(self, master_host: str, master_port: int) -> WorkerRunner: ...
    def create_web_ui(self, *, host: str, port: int, web_login: bool, delayed_start: bool) -> WebUI: ...
