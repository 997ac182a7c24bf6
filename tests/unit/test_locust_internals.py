"""Locust's private parts that we use: the installed Locust has them, in the shape that we expect."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadgen.load.locust_internals import WRITTEN_FOR

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "loadgen" / "load" / "locust_internals.py"

# What `locust_internals` relies on, asked of the installed Locust in a process of its own: to import Locust patches the
# standard library.
PROGRAM = """
import inspect, json, sys
import locust
from locust import event, events, rpc, runners, stats, web
from locust.rpc import zmqrpc
from locust.env import Environment
from locust.user.task import LOCUST_STATE_STOPPING

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

checks = {
    "timing": all(isinstance(getattr(runners, name), (int, float)) for name in (
        "WORKER_REPORT_INTERVAL", "HEARTBEAT_LIVENESS", "HEARTBEAT_DEAD_INTERNAL", "MASTER_HEARTBEAT_TIMEOUT",
        "CPU_MONITOR_INTERVAL")),
    "runners.inspect": runners.inspect is inspect,
    "states": all(isinstance(getattr(runners, name), str) for name in (
        "STATE_RUNNING", "STATE_SPAWNING", "STATE_STOPPED", "STATE_STOPPING")),
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
    "a user that is told to stop": stop is False and user._state == LOCUST_STATE_STOPPING,
}
print(json.dumps({"version": locust.__version__, "checks": checks}))
"""


@pytest.fixture(scope="module")
def checks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bool]:
    folder = str(tmp_path_factory.mktemp("csv"))
    done = subprocess.run([sys.executable, "-c", PROGRAM, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"written for Locust {WRITTEN_FOR}: {done.stderr}"
    found = json.loads(done.stdout)
    return {f"{name} of Locust {found['version']}": holds for name, holds in found["checks"].items()}


def test_the_installed_locust_is_as_expected(checks: dict[str, bool]) -> None:
    assert [name for name, holds in checks.items() if not holds] == [], f"written for Locust {WRITTEN_FOR}"


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
