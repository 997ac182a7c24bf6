"""What we use of Locust, its private parts among it: the installed Locust has it, in the shape that we expect."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Protocol, TypedDict

import pytest

from loadgen.load.locust_internals import WRITTEN_FOR
from tests.support.protocols import Differences


class Found(TypedDict):
    """What `PROGRAM` prints."""

    version: str
    checks: dict[str, bool]
    differences: list[str]
    unchecked: list[str]


ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "loadgen" / "load" / "locust_internals.py"

# What `locust_internals` relies on, asked of the installed Locust in a process of its own: to import Locust patches the
# standard library.
PROGRAM = """
import inspect, json, os, sys
import locust
import gevent
from gevent.os import fork_and_watch

# As ours does, before this process has threads: a fork may find their locks held. The handler of SIGCHLD comes first:
# the child may end before it is watched.
watched = gevent.event.AsyncResult()
gevent.get_hub().loop.install_sigchld()
if fork_and_watch(watched.set) == 0:
    os._exit(0)

from locust import argument_parser, event, events, opentelemetry, rpc, runners, stats, web
from locust.rpc import zmqrpc
from locust.env import Environment
from locust.util import timespan
from locust.user.task import LOCUST_STATE_STOPPING
from loadgen.load.locust_internals import read_default_options_once

def takes(function, *names):
    return [name for name in inspect.signature(function).parameters if name != "self"] == list(names)

hook = event.EventHook()
hook.add_listener(print)
environment = Environment(events=locust.events)
master = environment.create_master_runner("127.0.0.1", 0)
node = runners.WorkerNode("a")
client = zmqrpc.Client("127.0.0.1", master.server.port, "a")
web_ui = environment.create_web_ui(host="127.0.0.1", port=0, delayed_start=True)
swarm = web_ui._swarm_greenlet
environment.events.request.fire(request_type="t", name="n", response_time=1.0, response_length=0, exception=None,
                                context={})
entry = environment.stats.entries["n", "t"]
total = environment.stats.total
entry._cache_response_times(1)
writer = stats.StatsCSVFileWriter(environment, stats.PERCENTILES_TO_REPORT, sys.argv[1] + "/x", full_history=True)

class Idle(locust.User):
    pass

user = Idle(environment)
user._state = "running"
stop = user.stop()
options = argument_parser.default_args_dict()
read_default_options_once()

checks = {
    "OpenTelemetry": takes(opentelemetry.setup_opentelemetry, "locustfile", "profile"),
    "the names of Locust's options": "host" in options and options == argument_parser.default_args_dict()
    and argument_parser.default_args_dict() is argument_parser.default_args_dict()
    and "in argument_parser.default_args_dict()" in inspect.getsource(runners.WorkerRunner.handle_message),
    "timing": all(isinstance(getattr(runners, name), (int, float)) for name in (
        "WORKER_REPORT_INTERVAL", "HEARTBEAT_LIVENESS", "HEARTBEAT_DEAD_INTERNAL", "MASTER_HEARTBEAT_TIMEOUT",
        "CPU_MONITOR_INTERVAL")),
    "runners.inspect": runners.inspect is inspect,
    "states": all(isinstance(getattr(runners, name), str) for name in (
        "STATE_INIT", "STATE_RUNNING", "STATE_SPAWNING", "STATE_STOPPED", "STATE_STOPPING")),
    "_handlers": hook._handlers == [print]
    and all(isinstance(each, event.EventHook) for each in vars(events).values()),
    "the runner listens first": events.request._handlers[0].__module__ == "locust.runners",
    "handle_message": takes(runners.MasterRunner.handle_message, "client_id", "msg"),
    "custom_messages": master.custom_messages == {},
    "send_message": all(takes(kind.send_message, "msg_type", "data", "client_id")
                        for kind in (runners.MasterRunner, runners.WorkerRunner)),
    "server": isinstance(master.server.port, int) and callable(master.server.send_to_client)
    and takes(master.server.close, "linger"),
    "Message": takes(rpc.Message.__init__, "message_type", "data", "node_id"),
    "clients": master.clients.get("nobody") is None and master.clients.pop("nobody", None) is None,
    "heartbeat": isinstance(node.heartbeat, int),
    "_users_dispatcher": master._users_dispatcher is None,
    "update_state": takes(master.update_state, "new_state"),
    "user_count": master.user_count == 0,
    "greenlet": callable(master.greenlet.kill),
    "_send_stats": takes(runners.WorkerRunner._send_stats),
    "client": callable(client.socket.context.term) and takes(client.close, "linger") and callable(client.send),
    "messages of Locust's own": all(f'case "{name}"' in inspect.getsource(kind.handle_message) for kind, names in (
        (runners.MasterRunner, ("client_ready", "quit")), (runners.WorkerRunner, ("ack", "quit", "heartbeat", "stop")),
    ) for name in names),
    "_swarm_greenlet": swarm is None and "self._swarm_greenlet = gevent.spawn" in inspect.getsource(web.WebUI),
    "web_ui.server": "self.server = pywsgi.WSGIServer" in inspect.getsource(web.WebUI),
    "percentiles of the web UI": isinstance(stats.PERCENTILES_TO_CHART, list)
    and isinstance(stats.PERCENTILES_TO_STATISTICS, list),
    "StatsEntry": all((each.num_requests, each.total_response_time, each.min_response_time, each.max_response_time,
                       dict(each.response_times), sum(each.num_reqs_per_sec.values())) == (1, 1.0, 1.0, 1.0, {1: 1}, 1)
                      and each.last_request_timestamp > 0 for each in (entry, total)),
    "_cache_response_times": total.use_response_times_cache and takes(total._cache_response_times, "t")
    and 1 in entry.response_times_cache,
    "precision": takes(stats.bucket_response_time, "response_time")
    and takes(stats.calculate_response_time_percentile, "response_times", "num_requests", "percent")
    and takes(stats.StatsEntry.to_dict, "escape_string_values")
    and takes(stats.StatsEntry.get_current_response_time_percentile, "percent")
    and all(name in inspect.getsource(stats.StatsEntry) for name in (
        "bucket_response_time(", "calculate_response_time_percentile(")),
    "_percentile_fields": takes(stats.StatsCSV._percentile_fields, "stats_entry", "use_current")
    and len(writer.percentiles_na) == len(writer.percentiles_to_report),
    "_stats_history_data_rows": takes(writer._stats_history_data_rows, "csv_writer", "now"),
    "CSV": all(takes(getattr(writer, f"{name}_csv"), "csv_writer")
               and getattr(writer, f"{name}_csv_filehandle").seekable() and getattr(writer, f"{name}_csv_writer")
               for name in ("requests", "failures", "exceptions"))
    and writer.stats_history_csv_filehandle.tell() == 0 and len(writer.stats_history_csv_columns) > 10
    and takes(writer.close_files) and takes(writer.stats_writer),
    "parse_timespan": takes(timespan.parse_timespan, "time_str") and timespan.parse_timespan("1m5s") == 65
    and web.parse_timespan is timespan.parse_timespan,
    "a user that is told to stop": stop is False and user._state == LOCUST_STATE_STOPPING,
}
# The Protocols of ours, held against one object of each kind, and what hangs on it.
import flask
from loadgen.load import locust_types
from tests.support.protocols import Differences, protocols_of

node_environment = Environment(events=locust.events)
worker = node_environment.create_worker_runner("127.0.0.1", master.server.port)
web_ui.start()
while getattr(web_ui, "server", None) is None or not web_ui.server.started:
    gevent.sleep(0.01)
differences = Differences(
    {"Flask": flask.Flask, "Engine": object},
    # These are ours, and nothing of Locust's.
    absent=("Environment.raftload", "Environment.raftload_engine"),
)
for protocol, real in (
    ("Environment", environment), ("Environment", node_environment), ("MasterRunner", master), ("WorkerRunner", worker),
    ("WebUI", web_ui), ("WorkerNode", next(iter(master.clients.values()))), ("Message", rpc.Message("a", None, "b")),
    ("UserClass", Idle), ("User", user), ("StatsEntry", entry), ("StatsCSVFileWriter", writer),
    ("StatsError", stats.StatsError("m", "n", "e", 1)),
    ("Greenlet", gevent.spawn(print, end="")), ("ChildWatcher", watched.get(timeout=60)),
):
    differences.check(protocols_of(locust_types)[protocol], real)
master.quit()
unchecked = protocols_of(locust_types).keys() - differences.checked
print(json.dumps({"version": locust.__version__, "checks": checks, "differences": differences.found,
                  "unchecked": sorted(unchecked)}))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = str(tmp_path_factory.mktemp("csv"))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder], capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, f"written for Locust {WRITTEN_FOR}: {done.stderr}"
    answer: Found = json.loads(done.stdout)
    return answer


@pytest.fixture(scope="module")
def checks(found: Found) -> dict[str, bool]:
    return {f"{name} of Locust {found['version']}": holds for name, holds in found["checks"].items()}


def test_the_installed_locust_is_as_expected(checks: dict[str, bool]) -> None:
    assert [name for name, holds in checks.items() if not holds] == [], f"written for Locust {WRITTEN_FOR}"


def test_the_installed_locust_is_as_our_protocols_say(found: Found) -> None:
    assert found["differences"] == [], f"of Locust {found['version']}, written for {WRITTEN_FOR}"


def test_every_protocol_was_held_against_an_object(found: Found) -> None:
    """All but that of our own session."""
    assert found["unchecked"] == ["Engine"]


class Inner(Protocol):
    size: int


class Outer(Protocol):
    name: str
    inner: Inner | None

    @property
    def done(self) -> bool: ...
    def call(self, first: int, second: int = 0) -> None: ...
    def fire(self, **kwargs: object) -> None: ...
    def stop(self, *, block: bool) -> None: ...


def call(first: int, second: int = 0) -> None: ...


def fire(**kwargs: object) -> None: ...


def stop(timeout: float = 0.0, block: bool = True) -> None: ...


HELD: dict[str, object] = {
    "name": "a", "inner": SimpleNamespace(size=1), "done": False, "call": call, "fire": fire, "stop": stop,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, None),
        ({"inner": None}, None),
        ({"name": 1}, "Outer.name: 1 is no str"),
        ({"done": None}, "Outer.done: None is no bool"),
        ({"inner": SimpleNamespace(size=1.5)}, "Inner.size: 1.5 is no int"),
        ({"inner": SimpleNamespace()}, "Inner.size: a SimpleNamespace has none"),
        ({"call": 1}, "Outer.call(): a SimpleNamespace has none"),
        ({"call": lambda first: None}, "Outer.call(): too many positional arguments"),
        ({"call": lambda first, second: None}, "Outer.call(): missing a required argument: 'second'"),
        ({"call": lambda second, first=0: None}, "Outer.call(): its parameter 1 is not first"),
        ({"fire": lambda name=1: None}, "Outer.fire(): it takes no keywords of all names"),
        ({"stop": lambda: None}, "Outer.stop(): got an unexpected keyword argument 'block'"),
    ],
)
def test_the_check_finds_what_differs(changed: dict[str, object], expected: str | None) -> None:
    differences = Differences()
    differences.check(Outer, SimpleNamespace(**(HELD | changed)))
    assert len(differences.found) == (expected is not None), differences.found
    assert all(each.startswith(expected or "") for each in differences.found)


@pytest.mark.parametrize("name", HELD)
def test_the_check_finds_what_is_missing(name: str) -> None:
    differences = Differences()
    differences.check(Outer, SimpleNamespace(**{each: value for each, value in HELD.items() if each != name}))
    assert [each.partition(":")[0].removesuffix("()") for each in differences.found] == [f"Outer.{name}"]


def private_names(path: Path) -> set[str]:
    """Return the private names of other objects that a file uses: ``runner._send_stats``, not ``self._runner``."""
    own = {"self", "cls"}
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in own)
    }  # fmt: skip


def test_every_private_name_is_checked_and_used_nowhere_else(checks: dict[str, bool]) -> None:
    names = private_names(MODULE)
    assert names <= {name.partition(" of ")[0] for name in checks}
    elsewhere = {
        f"{path.relative_to(ROOT)}: {name}"
        for folder in ("loadgen", "locustfiles")
        for path in (ROOT / folder).rglob("*.py")
        if path != MODULE
        for name in private_names(path) & names
    }
    assert elsewhere == set()


def test_no_other_module_changes_locust_or_speaks_its_protocol() -> None:
    """No other one assigns to names of Locust's modules, or imports what its messages are made of."""
    found = []
    for folder in ("loadgen", "locustfiles"):
        for path in (ROOT / folder).rglob("*.py"):
            if path == MODULE:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                targets = node.targets if isinstance(node, ast.Assign) else []
                owners = {ast.unparse(each.value) for each in targets if isinstance(each, ast.Attribute)}
                changed = owners & {"runners", "stats", "locust", "stats.StatsEntry"}
                if changed or (isinstance(node, ast.ImportFrom) and node.module in ("locust.rpc", "locust.user.task")):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []
