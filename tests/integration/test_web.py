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

from cluster.local import LocalCluster
from loadgen import schema
from tests.support import command

ROOT = Path(__file__).resolve().parents[2]


class Web:
    """A running `raftload web` and its address."""

    def __init__(self, process: subprocess.Popen[str], url: str, folder: Path) -> None:
        self.process = process
        self.url = url
        self.folder = folder

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=20) as answer:
            return json.load(answer)

    def post(self, path: str, **form: str) -> Any:
        data = urllib.parse.urlencode(form).encode()
        with urllib.request.urlopen(self.url + path, data=data, timeout=20) as answer:
            return json.load(answer)

    def total(self) -> dict[str, Any]:
        rows: list[dict[str, Any]] = self.get("/stats/requests")["stats"]
        return next(row for row in rows if row["name"] == "Aggregated")

    def wait(self, condition: Callable[[], Any], seconds: float = 20) -> Any:
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, "waited in vain"
            assert self.process.poll() is None
            time.sleep(0.1)
        return value

    def results(self) -> list[Path]:
        return sorted(self.folder.glob("runs/*/result.json"), key=lambda path: path.stat().st_mtime_ns)


@contextlib.contextmanager
def serving(cluster: LocalCluster, folder: Path, *options: str) -> Iterator[Web]:
    endpoints = ",".join(cluster.endpoints)
    process = command.start("web", "--web-port", "0", "--workers", "2", "--endpoints", endpoints, *options,
                            cwd=folder)  # fmt: skip
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "open http://127.0.0.1:" in line, line
    yield Web(process, line.split()[2], folder)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)


@pytest.fixture
def web(etcd_cluster: LocalCluster, tmp_path: Path) -> Iterator[Web]:
    with serving(etcd_cluster, tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def idle(etcd_cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """One for the tests that start no run."""
    with serving(etcd_cluster, tmp_path_factory.mktemp("idle")) as running:
        yield running


def test_a_run_from_start_to_folder(web: Web) -> None:
    with urllib.request.urlopen(web.url + "/", timeout=10) as page:
        assert b"Locust" in page.read()
    started = web.post("/swarm", user_count="10", spawn_rate="10", value_size="256")
    assert started["success"] is True
    web.wait(lambda: web.total()["num_requests"] > 500)
    rows = {row["name"]: row for row in web.get("/stats/requests")["stats"]}
    assert {"put", "get", "txn", "Aggregated"} <= set(rows)
    assert 0 < rows["get"]["min_response_time"] < 1000
    assert rows["get"]["min_response_time"] != int(rows["get"]["min_response_time"])
    p95 = rows["put"]["response_time_percentile_0.95"]
    assert p95 > 0 and p95 != int(p95)
    assert len(web.get("/stats/requests")["workers"]) == 2
    assert web.post("/stop")["success"] is True
    (path,) = web.wait(web.results)
    result = json.loads(path.read_text())
    jsonschema.validate(result, schema.load("result"))
    # Locust's UI answers from a cache of two seconds.
    web.wait(lambda: web.total()["num_requests"] == result["results"]["total"]["operations"])
    assert result["run"]["value_size"] == 256
    assert result["books"]["writes_ok"] == result["books"]["revision_delta"]
    assert {"run.json", "locust_stats.csv", "locust_failures.csv", "logs"} <= {p.name for p in path.parent.iterdir()}


def test_a_second_run_with_a_number_of_operations_ends_by_itself(web: Web) -> None:
    assert web.post("/swarm", user_count="4", spawn_rate="4", operations="400")["success"] is True
    (first,) = web.wait(web.results)
    assert json.loads(first.read_text())["results"]["total"]["operations"] == 400
    web.wait(lambda: web.get("/stats/requests")["state"] in ("ready", "stopped"))
    assert web.post("/swarm", user_count="4", spawn_rate="4", operations="600", mix="get")["success"] is True
    second = web.wait(lambda: len(web.results()) == 2 and web.results()[-1])
    result = json.loads(second.read_text())
    assert result["results"]["total"]["operations"] == 600
    assert result["results"]["put"] is None


def test_a_bad_field_is_a_message(idle: Web) -> None:
    for field, value, words in (
        ("key_size", "3", "Key Size must be at least 12"),
        ("mix", "del", "not an operation type"),
        ("user_count", "many", "not a whole number"),
        ("host", "nowhere:port", "malformed endpoint"),
    ):
        form = {"user_count": "2", "spawn_rate": "2", field: value}
        answer = idle.post("/swarm", **form)
        assert answer["success"] is False
        assert words in answer["message"]
    assert idle.results() == []


def test_ctrl_c_in_mid_run_keeps_the_results(web: Web) -> None:
    web.post("/swarm", user_count="10", spawn_rate="10")
    web.wait(lambda: web.total()["num_requests"] > 200)
    os.killpg(web.process.pid, signal.SIGINT)
    web.process.communicate(timeout=30)
    assert web.process.returncode == 130
    (path,) = web.results()
    books = json.loads(path.read_text())["books"]
    assert books["writes_ok"] <= books["revision_delta"] <= books["writes_ok"] + books["writes_info"]


# -- who may ask for what


def ask(web: Web, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(web.url + path, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def token(web: Web) -> str:
    page = ask(web, "/cluster/")[2].decode()
    return page.split('name="raftload-token" content="')[1].split('"')[0]


def test_other_websites_get_nothing_and_change_nothing(idle: Web) -> None:
    code, headers, _ = ask(idle, "/stats/requests", Origin="http://evil.example")
    assert code == 200 and "Access-Control-Allow-Origin" not in headers, "a browser shows it to its own page alone"
    assert ask(idle, "/", Host="evil.example:8089")[0] == 403
    form = urllib.parse.urlencode({"user_count": "1", "spawn_rate": "1"}).encode()
    code, _, said = ask(idle, "/swarm", form, Origin="http://evil.example")
    assert code == 403 and b"http://evil.example" in said
    assert idle.get("/stats/requests")["state"] == "ready"
    code, headers, _ = ask(idle, "/cluster/")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Frame-Options"] == "DENY"


def test_orders_need_a_token_and_a_cluster_of_ours(idle: Web) -> None:
    order = json.dumps({"fault": "kill", "member": "etcd-node1"}).encode()
    kind = {"Content-Type": "application/json"}
    assert ask(idle, "/cluster/act", order, **kind)[0] == 403
    mine = {**kind, "X-Raftload-Token": token(idle)}
    code, _, said = ask(idle, "/cluster/act", order, **mine)
    assert code == 409 and "not raftload's to break" in json.loads(said)["error"]
    for bad in (
        b"",
        b"[]",
        b'{"fault": "rm", "member": "etcd-node1"}',
        b'{"fault": "kill"}',
        b'{"fault": "kill", "member": 1}',
    ):
        assert ask(idle, "/cluster/act", bad, **mine)[0] == 400, bad
    assert ask(idle, "/cluster/act", **mine)[0] == 405
    for path in ("/cluster/runs/x/result.json", "/cluster/runs/../result.json", "/cluster/runs/..%2f..%2fetc/passwd"):
        assert ask(idle, path)[0] == 404, path


def test_the_events_tell_of_the_members_and_of_the_load(web: Web) -> None:
    web.post("/swarm", user_count="4", spawn_rate="4")
    with urllib.request.urlopen(web.url + "/cluster/events", timeout=20) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        deadline = time.monotonic() + 20
        points: dict[int, list[Any]] = {}
        for line in stream:
            assert time.monotonic() < deadline
            if line.startswith(b"data: "):
                document = json.loads(line[6:])
                points |= {point[0]: point for point in document["load"]["points"]}
                if len(points) >= 3:
                    break
    assert sorted(member["role"] for member in document["members"]) == ["follower", "follower", "leader"]
    assert document["leader"] and document["term"] >= 2 and document["ours"] is False
    assert {len(row["spans"]) for row in document["timeline"]} == {1}
    assert document["events"][0]["text"].endswith("begins")
    last = points[sorted(points)[1]]
    assert last[1] > 0 and 0 < last[3] <= last[4] <= last[5]


def test_a_run_after_a_worker_was_killed_goes_on_with_the_others(web: Web) -> None:
    for number, killed in enumerate(command.workers(web.process.pid), 1):
        web.post("/swarm", user_count="4", spawn_rate="4")
        web.wait(lambda: web.total()["num_requests"] > 100)
        os.kill(killed, signal.SIGKILL)
        if number == 1:
            time.sleep(1)
            web.post("/stop")
        # The last one's death ends the run.
        web.wait(lambda number=number: len(web.results()) == number)
        lost = json.loads(web.results()[-1].read_text())["lost_workers"]
        assert [f"(pid {killed})" in each["name"] for each in lost] == [True], lost
        web.wait(lambda: web.get("/stats/requests")["state"] in ("stopped", "ready"))
    web.post("/swarm", user_count="4", spawn_rate="4")
    errors = web.wait(lambda: web.get("/exceptions")["exceptions"])
    assert "no worker is left" in errors[0]["msg"], errors


def test_with_locusts_login_the_pages_are_behind_it() -> None:
    script = """
from gevent import monkey; monkey.patch_all()
import sys
from loadgen.worker import make_environment
from loadgen.webui import pages
from loadgen.webui.guard import Guard
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
        "/cluster/runs",
        "/cluster/runs/n/result.json",
    }
    assert set(answers.values()) == {"302"}, "to the login page"


def test_an_open_loop_from_the_form(web: Web) -> None:
    assert web.post("/swarm", user_count="2", spawn_rate="2", rate="300", operations="450")["success"] is True
    (path,) = web.wait(web.results)
    result = json.loads(path.read_text())
    assert (result["run"]["loop"], result["run"]["rate"]) == ("open", 300)
    assert result["results"]["total"]["operations"] + result["generator"]["dropped"] == 450
    answer = web.post("/swarm", user_count="2", spawn_rate="2", stages="10")
    assert answer["success"] is False
    assert "write DURATION:RATE" in answer["message"]
