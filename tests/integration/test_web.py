"""`raftload web`, driven over HTTP as a browser would: a run starts, counts, stops, and leaves its folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cluster.local import LocalCluster
from loadgen import schema

pytestmark = pytest.mark.etcd
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


@pytest.fixture
def web(etcd_cluster: LocalCluster, tmp_path: Path) -> Iterator[Web]:
    process = subprocess.Popen(
        [sys.executable, "-m", "loadgen.cli", "web", "--web-port", "0", "--workers", "2", "--endpoints",
         ",".join(etcd_cluster.endpoints)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, process_group=0,
    )  # fmt: skip
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "open http://127.0.0.1:" in line, line
    yield Web(process, line.split()[2], tmp_path)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)


def test_a_run_from_start_to_folder(web: Web) -> None:
    with urllib.request.urlopen(web.url + "/", timeout=10) as page:
        assert b"Locust" in page.read()
    started = web.post("/swarm", user_count="10", spawn_rate="10", value_size="256")
    assert started["success"] is True
    web.wait(lambda: web.total()["num_requests"] > 500)
    rows = {row["name"]: row for row in web.get("/stats/requests")["stats"]}
    assert {"put", "get", "txn", "Aggregated"} <= set(rows)
    assert 0 < rows["get"]["min_response_time"] < 1, "a sub-millisecond minimum"
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


def test_a_bad_field_is_a_message(web: Web) -> None:
    for field, value, words in (
        ("key_size", "3", "Key Size must be at least 12"),
        ("mix", "del", "not an operation type"),
        ("user_count", "many", "not a whole number"),
        ("host", "nowhere:port", "malformed endpoint"),
    ):
        form = {"user_count": "2", "spawn_rate": "2", field: value}
        answer = web.post("/swarm", **form)
        assert answer["success"] is False
        assert words in answer["message"]
    assert web.results() == []


def test_ctrl_c_in_mid_run_keeps_the_results(web: Web) -> None:
    web.post("/swarm", user_count="10", spawn_rate="10")
    web.wait(lambda: web.total()["num_requests"] > 200)
    os.killpg(web.process.pid, signal.SIGINT)
    web.process.communicate(timeout=30)
    assert web.process.returncode == 130
    (path,) = web.results()
    books = json.loads(path.read_text())["books"]
    assert books["writes_ok"] <= books["revision_delta"] <= books["writes_ok"] + books["writes_info"]
