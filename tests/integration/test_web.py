"""`raftload web`, driven over HTTP as a browser would: a run starts, counts, stops, and leaves its folder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cluster.local.cluster import LocalCluster
from loadgen import schema
from tests.support import command
from tests.support.ports import take_ports
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]


class Web:
    """A running `raftload web` and its address."""

    def __init__(self, process: subprocess.Popen[str], url: str, folder: Path) -> None:
        self.process = process
        self.url = url
        self.folder = folder

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=120) as answer:
            return json.load(answer)

    def post(self, path: str, **form: str) -> Any:
        data = urllib.parse.urlencode(form).encode()
        with urllib.request.urlopen(self.url + path, data=data, timeout=120) as answer:
            return json.load(answer)

    def total(self) -> dict[str, Any]:
        rows: list[dict[str, Any]] = self.get("/stats/requests")["stats"]
        return next(row for row in rows if row["name"] == "Aggregated")

    def requests(self, count: int) -> None:
        """Wait until so many requests of the run that is on are counted.

        Locust's UI answers from a cache of two seconds, so at first what it says is of the run before, and at rest.
        """

        def counted() -> bool:
            document = self.get("/stats/requests")
            total = next(row for row in document["stats"] if row["name"] == "Aggregated")
            return bool(document["state"] == "running" and total["num_requests"] >= count)

        self.wait(counted)

    def wait(self, condition: Callable[[], Any]) -> Any:
        def alive() -> Any:
            assert self.process.poll() is None
            return condition()

        return until(alive, pause_s=0.1)

    def results(self) -> list[Path]:
        return sorted(self.folder.glob("runs/*/result.json"), key=lambda path: path.stat().st_mtime_ns)

    @contextlib.contextmanager
    def run(self, **form: str) -> Iterator[list[Path]]:
        """Start a run, which the block ends if it does not by itself; put its result into the list that it gives."""
        before, found = len(self.results()), []
        assert self.post("/swarm", spawn_rate=form["user_count"], **form)["success"] is True
        yield found
        self.wait(lambda: len(self.results()) == before + 1)
        found.append(self.results()[-1])
        self.wait(lambda: self.get("/stats/requests")["state"] in ("ready", "stopped"))


@contextlib.contextmanager
def serving(cluster: LocalCluster, folder: Path, *options: str, workers: int = 2, **env: str) -> Iterator[Web]:
    endpoints = ",".join(cluster.endpoints)
    words = ("web", "--web-port", "0", "--workers", str(workers), "--endpoints", endpoints, *options)
    process = command.start(*words, cwd=folder, **env)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        if "metrics at http" in line:
            line = process.stderr.readline()
        assert "open http://127.0.0.1:" in line, line
        yield Web(process, line.split()[2], folder)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=120)


@pytest.fixture(scope="module")
def web(etcd_cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """One for all tests that do not end it or its workers: no run is on when a test begins or ends."""
    with serving(etcd_cluster, tmp_path_factory.mktemp("web")) as running:
        yield running


# First, since the form keeps the values of the last run, a number of operations too.
def test_the_events_tell_of_the_members_and_of_the_load(web: Web) -> None:
    with web.run(user_count="4"):
        with urllib.request.urlopen(web.url + "/cluster/events", timeout=120) as stream:
            assert stream.headers["Content-Type"].startswith("text/event-stream")
            points: dict[int, list[Any]] = {}
            for line in stream:
                if line.startswith(b"data: "):
                    document = json.loads(line[6:])
                    points |= {point[0]: point for point in document["load"]["points"]}
                    if len(points) >= 3:
                        break
        web.post("/stop")
    assert sorted(member["role"] for member in document["members"]) == ["follower", "follower", "leader"]
    assert document["leader"] and document["term"] >= 2 and document["ours"] is False
    assert {len(row["spans"]) for row in document["timeline"]} == {1}
    assert document["events"][0]["text"].endswith("begins")
    before, last = (points[at] for at in sorted(points)[:2])
    assert last[1] > 0 and 0 < last[3] <= last[5]
    # The p99 is of the second alone if that has the 299 successes that it takes, and there is none if both have not.
    # The rate before may be over as much as a second and a half.
    if last[1] >= 299:
        assert last[3] <= last[4] <= last[5]
    elif 1.5 * before[1] + last[1] < 299:
        assert last[4] is None
    else:
        assert last[4] is None or last[4] <= max(before[5], last[5])


def test_a_stop_right_after_the_start_ends_the_run(web: Web) -> None:
    """In the midst of the start Locust would lose it: the workers go on, or never say that they are done."""
    for _ in range(3):
        with web.run(user_count="4") as found:
            assert web.post("/stop")["success"] is True
        result = json.loads(found[0].read_text())
        assert result["generator"]["workers_lost"] == 0
        assert result["problems"] == []


# A worker that handles a stop before the greenlet that starts its users gets its turn: nothing here lets it run.
LATE = """
import zmq
from locust import events

from loadgen.user import EtcdUser


class LateUser(EtcdUser):
    abstract = False


@events.init.add_listener
def wait(environment, runner, **_):
    handle = runner.handle_message

    def handle_stop_too(message):
        handle(message)
        while message.type == "spawn":
            zmq.Socket.poll(runner.client.socket)
            if (stop := runner.client.recv()).type == "stop":
                return handle(stop)

    if not hasattr(environment, "raftload_engine"):
        runner.handle_message = handle_stop_too
"""


def test_a_stop_that_a_worker_hears_of_before_it_has_users(etcd_single: LocalCluster, tmp_path: Path) -> None:
    """After its first test a Locust worker passes over such a stop, and goes on; its master then has it quit."""
    (tmp_path / "late.py").write_text(LATE)
    with serving(etcd_single, tmp_path, "--scenario", "late.py") as web:
        for _ in range(3):
            with web.run(user_count="4") as found:
                assert web.post("/stop")["success"] is True
            generator = json.loads(found[0].read_text())["generator"]
            assert (generator["workers_started"], generator["workers_lost"]) == (2, 0)
            assert all("Got quit" not in log.read_text() for log in found[0].parent.glob("logs/worker-*.log"))
        assert len(command.workers(web.process.pid)) == 2


def test_a_run_from_start_to_folder(web: Web) -> None:
    with urllib.request.urlopen(web.url + "/", timeout=120) as page:
        assert b"Locust" in page.read()
    with web.run(user_count="10", value_size="256") as found:
        web.requests(500)
        rows = {row["name"]: row for row in web.get("/stats/requests")["stats"]}
        assert {"put", "get", "txn", "Aggregated"} <= set(rows)
        shown = [rows[f][field] for f in ("put", "get", "txn") for field in ("min_response_time", "max_response_time")]
        shown += [rows[f]["response_time_percentile_0.95"] for f in ("put", "get", "txn")]
        assert all(each > 0 for each in shown)
        assert any(each != int(each) for each in shown), "not rounded to milliseconds"
        assert len(web.get("/stats/requests")["workers"]) == 2
        assert web.post("/stop")["success"] is True
    result = json.loads(found[0].read_text())
    jsonschema.validate(result, schema.load("result"))
    web.wait(lambda: web.total()["num_requests"] == result["results"]["total"]["operations"])
    assert result["run"]["value_size"] == 256
    assert result["books"]["writes_ok"] == result["books"]["revision_delta"]
    there = {path.name for path in found[0].parent.iterdir()}
    assert {"run.json", "locust_stats.csv", "locust_failures.csv", "logs"} <= there
    _, _, page_of_runs = ask(web, "/cluster/runs")
    assert b'<b class="verdict none">NONE</b>' in page_of_runs


def test_a_condition_ends_each_run_and_prometheus_sees_each(etcd_single: LocalCluster, tmp_path: Path) -> None:
    port = take_ports(1)
    options = ("--abort-on", "total.throughput_ops_s > 0 for 1s", "--metrics-listen", f":{port}")

    def metrics() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=120) as answer:
            return str(answer.read().decode())

    with serving(etcd_single, tmp_path, *options) as web:
        assert 'raftload_run_state{state="preparing"} 1.0' in metrics()
        for _ in range(2):
            with web.run(user_count="4") as found:
                pass
            result = json.loads(found[0].read_text())
            assert result["aborted"]["expression"] == "total.throughput_ops_s > 0 for 1s"
            assert (result["verdict"], result["interrupted"]) == ("fail", None)
            text = metrics()
            assert f'run="{found[0].parent.name}"' in text
            assert 'raftload_run_verdict{verdict="fail"} 1.0' in text and "raftload_run_aborted 1.0" in text
            puts = result["results"]["put"]["succeeded"]
            assert f'raftload_operations_total{{outcome="ok",type="put"}} {puts:.1f}' in text


def test_runs_with_a_number_of_operations_end_by_themselves(web: Web) -> None:
    with web.run(user_count="4", operations="400") as found:
        pass
    assert json.loads(found[0].read_text())["results"]["total"]["operations"] == 400
    with web.run(user_count="4", operations="600", mix="get") as found:
        pass
    result = json.loads(found[0].read_text())
    assert result["results"]["total"]["operations"] == 600
    assert result["results"]["put"] is None


def test_a_run_that_ends_while_locust_waits_for_its_users_stays_ended(
    etcd_single: LocalCluster, tmp_path: Path
) -> None:
    waits_s = 2
    with serving(etcd_single, tmp_path, LOCUST_WAIT_FOR_WORKERS_REPORT_AFTER_RAMP_UP=str(waits_s)) as web:
        began = time.monotonic()
        with web.run(user_count="4", operations="1"):
            pass
        # Locust's UI answers from a cache of two seconds.
        while time.monotonic() < began + waits_s + 4:
            assert web.get("/stats/requests")["state"] in ("ready", "stopped")
            time.sleep(0.5)


def test_an_open_loop_from_the_form(web: Web) -> None:
    with web.run(user_count="2", rate="300", operations="450") as found:
        pass
    result = json.loads(found[0].read_text())
    assert (result["run"]["loop"], result["run"]["rate"]) == ("open", 300)
    assert result["results"]["total"]["operations"] + result["generator"]["dropped"] == 450
    answer = web.post("/swarm", user_count="2", spawn_rate="2", stages="10")
    assert answer["success"] is False
    assert "write DURATION:RATE" in answer["message"]


def test_a_bad_field_is_a_message(web: Web) -> None:
    before = web.results()
    for field, value, words in (
        ("key_size", "3", "Key Size must be at least 12"),
        ("mix", "del", "not an operation type"),
        ("mix", "--rate=1", "Mix: '--rate' in mix '--rate=1' is not an operation type"),
        ("user_count", "many", "not a whole number"),
        ("host", "nowhere:port", "malformed endpoint"),
        ("run_time", "soon", "Run Time: 'soon' is no time to run"),
        ("run_time", "99999999999999h", "Run Time: '99999999999999h' is no time to run"),
        ("run_time", "99999999999999", "Run Time must be at most 1e+09"),
    ):
        form = {"user_count": "2", "spawn_rate": "2", field: value}
        answer = web.post("/swarm", **form)
        assert answer["success"] is False, form  # after other runs too, whose values stay in the form
        assert words in answer["message"]
        assert answer["field"] == field
    assert web.results() == before


def test_ctrl_c_in_mid_run_keeps_the_results(etcd_single: LocalCluster, tmp_path: Path) -> None:
    with serving(etcd_single, tmp_path, workers=1) as web:
        web.post("/swarm", user_count="10", spawn_rate="10")
        web.requests(200)
        os.killpg(web.process.pid, signal.SIGINT)
        web.process.communicate(timeout=120)
        assert web.process.returncode == 130
        (path,) = web.results()
    books = json.loads(path.read_text())["books"]
    assert books["writes_ok"] <= books["revision_delta"] <= books["writes_ok"] + books["writes_info"]


def test_a_run_after_a_worker_was_killed_goes_on_with_the_others(etcd_single: LocalCluster, tmp_path: Path) -> None:
    with serving(etcd_single, tmp_path) as web:
        for number, killed in enumerate(command.workers(web.process.pid), 1):
            with web.run(user_count="4") as found:
                web.requests(100)
                os.kill(killed, signal.SIGKILL)
                if number == 1:  # the other goes on; the last one's death ends the run
                    web.requests(web.total()["num_requests"] + 100)
                    web.post("/stop")
            lost = json.loads(found[0].read_text())["lost_workers"]
            assert [f"(pid {killed})" in each["name"] for each in lost] == [True], lost
        answer = web.post("/swarm", user_count="4", spawn_rate="4")
        assert (answer["success"], answer["message"]) == (False, "no worker is left; start it again")


# -- who may ask for what


def ask(web: Web, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(web.url + path, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def token(web: Web) -> str:
    page = ask(web, "/cluster/")[2].decode()
    return page.split('name="raftload-token" content="')[1].split('"')[0]


def test_other_websites_get_nothing_and_change_nothing(web: Web) -> None:
    before = web.get("/stats/requests")["state"]
    assert before in ("ready", "stopped")
    code, headers, _ = ask(web, "/stats/requests", Origin="http://evil.example")
    assert code == 200 and "Access-Control-Allow-Origin" not in headers, "a browser shows it to its own page alone"
    assert ask(web, "/", Host="evil.example:8089")[0] == 403
    form = urllib.parse.urlencode({"user_count": "1", "spawn_rate": "1"}).encode()
    code, _, said = ask(web, "/swarm", form, Origin="http://evil.example")
    assert code == 403 and b"http://evil.example" in said
    assert web.get("/stats/requests")["state"] == before
    code, headers, _ = ask(web, "/cluster/")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Frame-Options"] == "DENY"


def test_orders_need_a_token_and_a_cluster_of_ours(web: Web) -> None:
    order = json.dumps({"fault": "kill", "member": "etcd-node1"}).encode()
    kind = {"Content-Type": "application/json"}
    assert ask(web, "/cluster/act", order, **kind)[0] == 403
    mine = {**kind, "X-Raftload-Token": token(web)}
    code, _, said = ask(web, "/cluster/act", order, **mine)
    assert code == 409 and "raftload did not start this cluster" in json.loads(said)["error"]
    for bad in (
        b"",
        b"[]",
        b'{"fault": "rm", "member": "etcd-node1"}',
        b'{"fault": "kill"}',
        b'{"fault": "kill", "member": 1}',
    ):
        assert ask(web, "/cluster/act", bad, **mine)[0] == 400, bad
    assert ask(web, "/cluster/act", **mine)[0] == 405
    for path in ("/cluster/runs/x/result.json", "/cluster/runs/../result.json", "/cluster/runs/..%2f..%2fetc/passwd"):
        assert ask(web, path)[0] == 404, path


def test_with_locusts_login_the_pages_are_behind_it() -> None:
    script = """
from gevent import monkey; monkey.patch_all()
import sys
from loadgen.run.worker import make_environment
from loadgen.webui import pages
from loadgen.webui.origins import Guard
environment = make_environment("kv")
environment.create_local_runner()
web_ui = environment.create_web_ui(host="127.0.0.1", port=0, delayed_start=True, web_login=True)
web_ui.app.secret_key = "x"
web_ui.login_manager.user_loader(lambda name: None)
guard = Guard("127.0.0.1")
pages.install(web_ui, None, None, guard)
client = web_ui.app.test_client()
for rule in web_ui.app.url_map.iter_rules():
    if rule.endpoint.startswith("raftload.") and rule.endpoint != "raftload.static":
        path = rule.rule.replace("<name>", "n").replace("<file>", "result.json")
        call = client.post if "POST" in rule.methods else client.get
        print(path, call(path, headers={"X-Raftload-Token": guard.token}).status_code)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    answers = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    assert set(answers) == {
        "/cluster/",
        "/cluster/events",
        "/cluster/act",
        "/cluster/colours.css",
        "/cluster/runs",
        "/cluster/runs/n/result.json",
    }
    assert set(answers.values()) == {"302"}, "to the login page"
