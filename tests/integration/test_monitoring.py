"""What programs see of a run while it goes on: conditions that end it, /metrics, events; a real Prometheus scrapes."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.local.cluster import LocalCluster
from loadgen import schema
from tests.support.command import ROOT, assert_refused, refusal, run, start, until_load, workers
from tests.support.ports import take_ports
from tests.support.prometheus import DASHBOARD, lint, queries, scraping
from tests.support.waiting import until

ClusterFactory = Callable[..., LocalCluster]
FOLDER = {"run.json", "result.json", "report.html", "series.csv", "put.hlog", "members.csv", "metrics.csv", "logs",
          "locust_stats.csv", "locust_failures.csv"}  # fmt: skip


def at(cluster: LocalCluster) -> tuple[str, str]:
    return "--endpoints", ",".join(cluster.endpoints)


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        return str(answer.read().decode())


def samples(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """Values by name and values of the labels, in the order of the labels' names."""
    return {
        (each.name, tuple(each.labels[label] for label in sorted(each.labels))): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


def events_of(text: str) -> list[dict[str, Any]]:
    """The events on a stderr, each as its schema says."""
    found = [json.loads(line) for line in text.splitlines()]
    validator = jsonschema.Draft202012Validator(schema.load("progress"))
    for each in found:
        validator.validate(each)
    return found


# Conditions


WRONG = [
    (("--abort-on", "put.p99_ms > 5"), "does not say for how long"),
    (("--abort-on", "put.p98_ms > 5 for 5s"), "did you mean 'p99_ms'"),
    (("--metrics-listen", "9464"), "'9464' is not [HOST]:PORT"),
    (("--metrics-listen", ":70000"), "is not [HOST]:PORT"),
    (("--metrics-listen", "::1:9464"), "is not [HOST]:PORT"),
    (("--metrics-listen", "no..host:9464"), "is not [HOST]:PORT"),
]
# What the form of the web UI says, a command line says of the others.
WRONG_HERE = [
    (("--abort-on", "watch.p99_ms > 5 for 5s"), "this run has no operation of type watch"),
    (("--abort-on", "put.service.p99_ms > 5 for 5s"), "open loop only"),
]


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [(command, *each) for command in ("bench", "chaos", "web")
     for each in (*WRONG, *(WRONG_HERE if command != "web" else ()))],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_started(
    command: str, words: tuple[str, str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert_refused(refusal(capsys, command, *words), said)
    assert [*tmp_path.iterdir()] == []


def test_a_condition_ends_a_run_and_all_of_its_results_are_kept(etcd_single: LocalCluster, tmp_path: Path) -> None:
    done = run(
        "bench", *at(etcd_single), "--duration", "10m", "--rate", "200", "--output", "run", "--json",
        "--abort-on", "put.p99_ms > 100000 for 1s", "--abort-on", "put.throughput_ops_s > 0 for 2s", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    result = json.loads(done.stdout)
    jsonschema.validate(result, schema.load("result"))
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    jsonschema.validate(document, schema.load("run"))
    assert document["abort_on"] == ["put.p99_ms > 100000 for 1s", "put.throughput_ops_s > 0 for 2s"]
    assert result["aborted"] == document["aborted"]
    assert result["aborted"]["expression"] == "put.throughput_ops_s > 0 for 2s"
    assert result["aborted"]["value"] > 0 and result["aborted"]["elapsed_s"] >= 2
    assert (result["verdict"], result["interrupted"], result["problems"]) == ("fail", None, [])
    (reason,) = [each for each in result["verdict_reasons"] if "--abort-on" in each]
    assert reason in done.stderr
    assert reason in " ".join(run("report", "run", cwd=tmp_path).stdout.split()), "the table"
    assert "--abort-on" in (tmp_path / "run" / "report.html").read_text()
    assert {path.name for path in (tmp_path / "run").iterdir()} >= FOLDER
    books = result["books"]
    assert books["writes_ok"] == books["revision_delta"] > 0
    assert run("gate", "run", "--threshold", "put.p99_ms < 100000", cwd=tmp_path).returncode == 1


def test_a_run_whose_conditions_do_not_hold_is_as_any_other(etcd_single: LocalCluster, tmp_path: Path) -> None:
    done = run(
        "bench", *at(etcd_single), "--duration", "3s", "--json", "--abort-on", "total.success_rate < 0.9 for 1s",
        "--abort-on", "total.errors.NoSpace > 0 for 1s", cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, json.loads(done.stdout)["aborted"]) == (0, None), done.stderr


def test_a_cluster_that_fails_ends_the_run_by_success_rate_and_by_cause(
    make_cluster: ClusterFactory, tmp_path: Path
) -> None:
    """Both at the same time: a run whose cluster has failed waits for it for seconds before it ends."""
    cluster = make_cluster(1)
    processes = {
        condition: start(
            "bench", *at(cluster), "--duration", "10m", "--timeout", "500ms", "--output", f"run{number}", "--json",
            "--abort-on", condition, cwd=tmp_path,
        )
        for number, condition in enumerate(("total.success_rate < 0.9 for 1s",
                                            "total.errors.connection refused > 3 for 1s"))
    }  # fmt: skip
    for number, process in enumerate(processes.values()):
        until_load(process, tmp_path / f"run{number}")
    cluster.kill(cluster.members[0].name)
    for condition, process in processes.items():
        out, err = process.communicate(timeout=300)
        assert process.returncode == 1, err
        assert json.loads(out)["aborted"]["expression"] == condition


def test_chaos_ends_its_load_heals_and_checks(fixed_etcd: str, tmp_path: Path) -> None:
    done = run(
        "chaos", "--etcd", fixed_etcd, "--rounds", "50", "--json", "--output", "run", "--progress", "ndjson",
        "--abort-on", "put.throughput_ops_s >= 0 for 4s", cwd=tmp_path, timeout_s=600,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    result = json.loads(done.stdout)
    jsonschema.validate(result, schema.load("result"))
    assert result["aborted"]["expression"] == "put.throughput_ops_s >= 0 for 4s"
    assert result["chaos"]["stopped_by"] in result["verdict_reasons"]
    assert "fail" not in {row["verdict"] for row in result["check"]["guarantees"]}
    kinds = [each["event"] for each in events_of(done.stderr)]
    assert kinds.count("aborted") == 1 and kinds[-1] == "ended" and "progress" in kinds


# Events


def test_programs_are_told_of_a_run_line_by_line(etcd_single: LocalCluster, tmp_path: Path) -> None:
    done = run(
        "bench", *at(etcd_single), "--duration", "3s", "--rate", "100", "--progress", "ndjson", "--json",
        "--metrics-listen", "[::1]:0", cwd=tmp_path,
    )  # fmt: skip
    result, events = json.loads(done.stdout), events_of(done.stderr)
    kinds = [each["event"] for each in events if each["event"] not in ("note", "warning")]
    assert kinds[0] == "started" and kinds[-1] == "ended" and set(kinds[1:-1]) == {"progress"}
    assert any(re.fullmatch(r"metrics at http://\[::1\]:\d+/metrics", each.get("message", "")) for each in events)
    began, *_, last, ended = [each for each in events if each["event"] in kinds]
    assert (began["rate"], began["duration_s"], began["loop"]) == (100, 3, "open")
    total = result["results"]["total"]
    assert (last["operations"], last["failures"], last["in_flight"]) == (total["operations"], total["failed"], 0)
    assert {f: each["operations"] for f, each in last["types"].items()} == {
        f: result["results"][f]["operations"] for f in ("get", "put", "txn")
    }
    assert (ended["verdict"], ended["exit_code"], ended["error"]) == (result["verdict"], done.returncode, None)
    assert (tmp_path / ended["folder"] / "result.json").is_file()


def test_programs_are_told_of_an_error(tmp_path: Path) -> None:
    done = run("bench", "--endpoints", f"127.0.0.1:{take_ports(1)}", "--progress", "ndjson", cwd=tmp_path)
    (ended,) = [each for each in events_of(done.stderr) if each["event"] == "ended"]
    assert ended["exit_code"] == done.returncode == 4
    assert "refused" in ended["error"] and "verdict" not in ended
    refused = run("bench", "--mix", "putt=1", "--progress", "ndjson", cwd=tmp_path)
    (ended,) = events_of(refused.stderr)
    assert (ended["exit_code"], refused.returncode) == (2, 2) and "putt" in ended["error"]


# /metrics

# Scrapes at the end of the load, when every worker has reported everything.
AT_THE_END = """
import json, sys, urllib.request
from loadgen.run import Hooks, Plan, Settings, TargetOptions, bench

class Scraping(Hooks):
    def say(self, message):
        if message.startswith("metrics at "):
            self.url = message.removeprefix("metrics at ")

    def load_ended(self):
        with urllib.request.urlopen(self.url, timeout=60) as answer:
            self.text = answer.read().decode()

hooks = Scraping()
load = Settings(operations=600, rate=300.0)
result = bench(Plan(load, metrics_listen=":0"), TargetOptions.at(sys.argv[1]), hooks=hooks)
print(json.dumps([hooks.url, hooks.text, result]))
"""


def test_the_metrics_are_those_of_the_result(etcd_single: LocalCluster, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_THE_END, at(etcd_single)[1]], cwd=tmp_path, capture_output=True, text=True,
        timeout=300, check=True, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    url, text, result = json.loads(done.stdout)
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d*/metrics", url)
    found = samples(text)
    for f in ("put", "get", "txn"):
        row = result["results"][f]
        assert found["raftload_operations_total", ("ok", f)] == row["succeeded"]
        assert found["raftload_operations_total", ("fail", f)] == row["failed"] == 0
        for name, latency in (("latency", row["latency"]), ("service_time", row["latency"]["service"])):
            assert found[f"raftload_{name}_seconds_count", (f,)] == row["succeeded"]
            assert found[f"raftload_{name}_seconds_bucket", ("+Inf", f)] == row["succeeded"]
            assert found[f"raftload_{name}_seconds_sum", (f,)] * 1e3 == pytest.approx(
                latency["mean_ms"] * row["succeeded"], rel=0.001
            )
            below = max(
                (float(labels[0]) for (metric, labels), value in found.items()
                 if metric == f"raftload_{name}_seconds_bucket" and labels[1] == f and value < row["succeeded"]),
                default=0.0,
            )  # fmt: skip
            assert below * 1e3 <= latency["max_ms"] * 1.001
    assert found["raftload_run_state", ("ended",)] == 1
    assert found["raftload_scheduled_operations_total", ()] == 600 == result["generator"]["scheduled"]
    assert found["raftload_in_flight", ()] == 0 and found["raftload_users", ()] == 10
    assert sum(value for (name, _), value in found.items() if name == "raftload_member_leader") == 1
    assert not any(name.startswith(("python_", "process_")) for name, _ in found)


def test_a_port_that_is_taken_is_said_in_one_line_before_the_load(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("bench", "--metrics-listen", f":{port}", cwd=tmp_path)
    assert done.returncode == 4
    assert done.stderr == (
        f"raftload: error: --metrics-listen: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    )
    assert [*tmp_path.rglob("run.json")] == []


# Clients of every kind, and the end.
CLIENTS = """
from gevent import monkey
monkey.patch_all()
import logging, socket, sys
from types import SimpleNamespace
from loadgen.run.exporter import Exporter

logging.basicConfig(filename=sys.argv[1])
exporter = Exporter("127.0.0.1", 0)
exporter.serve(SimpleNamespace(run=None, workers=[], exporter=None))
address = "127.0.0.1", int(exporter.url.split(":")[2].split("/")[0])

def said(words):
    client = socket.create_connection(address, timeout=60)
    client.sendall(words)
    return client

def rest(client):
    return b"".join(iter(lambda: client.recv(1 << 16), b""))

silent = said(b"GET /metr")
print(rest(said(b"GET /metrics HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")).splitlines()[0].decode())
print(rest(said(b"\\x16\\x03\\x01 speaks TLS\\r\\n\\r\\n")).splitlines()[0].decode())
exporter.close()
print(rest(silent))
"""


def test_nobody_is_answered_after_the_end_and_what_is_no_request_is_for_the_log(tmp_path: Path) -> None:
    """Each answer is the last on its connection, one that says nothing is closed, and stderr stays as it was."""
    done = subprocess.run(
        [sys.executable, "-c", CLIENTS, str(tmp_path / "log")], cwd=ROOT, capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "Invalid http version" in (tmp_path / "log").read_text()
    assert done.stdout.splitlines() == ["HTTP/1.1 200 OK", "HTTP/1.1 400 Bad Request", "b''"]


def holders(port: int, *pids: int) -> list[int]:
    """Those of the processes that have the socket which listens on a port of 127.0.0.1."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    (inode,) = [row[9] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"]
    return [
        pid for pid in pids
        if any(str(each.readlink()) == f"socket:[{inode}]" for each in Path(f"/proc/{pid}/fd").iterdir())
    ]  # fmt: skip


def test_only_the_command_itself_holds_the_port(etcd_single: LocalCluster, tmp_path: Path) -> None:
    """A client that says nothing does not stop the others, and no worker keeps the socket."""
    port = take_ports(1)
    process = start("bench", *at(etcd_single), "--duration", "10m", "--output", "run", "--metrics-listen", f":{port}",
                    cwd=tmp_path)  # fmt: skip
    until_load(process, tmp_path / "run")
    with socket.create_connection(("127.0.0.1", port)) as silent:
        silent.sendall(b"GET /metr")
        assert samples(scrape(port))["raftload_run_state", ("running",)] == 1
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60)
    there = workers(process.pid)
    assert len(there) == 2 and holders(port, process.pid, *there) == [process.pid]
    process.terminate()
    process.communicate(timeout=300)
    assert process.returncode == 143


@pytest.mark.prometheus
def test_prometheus_scrapes_a_run_and_answers_every_query_of_the_dashboard(
    make_cluster: ClusterFactory, tmp_path: Path
) -> None:
    cluster = make_cluster(1)
    port = take_ports(1)
    process = start(
        "bench", *at(cluster), "--duration", "10m", "--rate", "200", "--timeout", "500ms", "--output", "run", "--json",
        "--abort-on", "total.success_rate < 0.5 for 8s", "--metrics-listen", f":{port}", cwd=tmp_path,
    )  # fmt: skip
    until_load(process, tmp_path / "run")
    with scraping(f"127.0.0.1:{port}", tmp_path) as prometheus:
        until(lambda: prometheus.query("rate(raftload_operations_total[4s]) > 0"), "a rate")
        (up,) = prometheus.query("up")
        assert up["value"][1] == "1"
        until(lambda: prometheus.query("raftload_abort_condition_value"), "a value of the condition")
        text = scrape(port)
        # Now operations fail, and the dashboard's panel of causes has something to show; then the run is ended.
        cluster.kill(cluster.members[0].name)
        until(lambda: prometheus.query("sum(rate(raftload_errors_total[4s])) > 0"), "failures")
        answers = {
            (title, query): prometheus.over(query, 60)
            for title, each in queries(json.loads(DASHBOARD.read_text())).items()
            for query in each
        }
        until(lambda: process.poll() is not None or prometheus.query("raftload_run_aborted == 1"), "the end")
        cluster.start(cluster.members[0].name)  # else it waits for it for seconds
        out, err = process.communicate(timeout=300)
        types = {row["metric"]["type"] for row in prometheus.over("raftload_operations_total", 300)}
    assert types == {"get", "put", "txn"}
    # There may be no verdict and no abort while a run goes on.
    at_the_end = ("raftload_run_aborted", "raftload_run_verdict")
    empty = [key for key, rows in answers.items() if not rows and not key[1].startswith(at_the_end)]
    assert empty == []
    assert len(answers) > 20
    p99 = next(query for _, query in answers if query.startswith("histogram_quantile(0.99"))
    values = [float(value) for row in answers["Latency", p99] for _, value in row["values"] if value != "NaN"]
    assert values and all(0 < value <= 10 for value in values)
    assert lint(text) == ""
    result = json.loads(out)
    assert (process.returncode, result["aborted"]["expression"]) == (1, "total.success_rate < 0.5 for 8s"), err


def test_the_dashboard_asks_for_nothing_that_is_not_served(etcd_single: LocalCluster, tmp_path: Path) -> None:
    """And shows all that is, but for a few; without Prometheus."""
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["schemaVersion"] >= 41
    assert [each["type"] for each in dashboard["templating"]["list"]] == ["datasource", "query"]
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {"${datasource}"}
    asked = {
        name for each in queries(dashboard).values() for query in each for name in re.findall(r"raftload_\w+", query)
    }
    page = (ROOT / "docs" / "monitoring.md").read_text()
    documented = set(re.findall(r"`(raftload_\w+)[`{]", page))
    assert asked - {f"{name}_bucket" for name in documented} - documented == set()
    port = take_ports(1)
    process = start("bench", *at(etcd_single), "--duration", "10m", "--rate", "50", "--output", "run",
                    "--abort-on", "get.p99_ms > 1e9 for 1s", "--metrics-listen", f":{port}", cwd=tmp_path)  # fmt: skip
    until_load(process, tmp_path / "run")
    text = scrape(port)
    process.terminate()
    process.communicate(timeout=300)
    kinds = dict(re.findall(r"# TYPE (\w+) (\w+)", text))
    assert set(kinds) == documented


# What is imported


def test_the_library_is_imported_where_it_is_asked_for_alone(tmp_path: Path) -> None:
    program = (
        "import sys; from loadgen.cli.main import build_parser; import loadgen.run.benchmark, loadgen.cli.bench;"
        "build_parser('bench'); print('prometheus_client' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# OpenTelemetry


@pytest.mark.parametrize("command", ["bench", "chaos", "web", "worker"])
def test_opentelemetry_that_is_missing_is_said_in_one_line(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert_refused(refusal(capsys, command, "--otel"), "pip install 'locust[otel]'")


def test_the_workers_set_up_locusts_opentelemetry(etcd_single: LocalCluster, tmp_path: Path) -> None:
    """With a stand-in for its packages, which this machine need not have."""
    for name in ("opentelemetry", "opentelemetry/sdk"):
        (tmp_path / "stubs" / name).mkdir(parents=True)
        (tmp_path / "stubs" / name / "__init__.py").touch()
    (tmp_path / "stubs" / "sitecustomize.py").write_text(
        "import importlib.abc, sys\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'locust.opentelemetry':\n"
        "            sys.meta_path.remove(self)\n"
        "            from importlib.util import find_spec, module_from_spec\n"
        "            spec = find_spec(name)\n"
        "            load = spec.loader.exec_module\n"
        "            def exec_module(module):\n"
        "                load(module)\n"
        "                def set_up(locustfile, profile):\n"
        "                    from locust import events\n"
        "                    events.request.add_listener(lambda name, **_: print('heard', locustfile, name))\n"
        "                module.setup_opentelemetry = set_up\n"
        "            spec.loader.exec_module = exec_module\n"
        "            return spec\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    done = run("bench", *at(etcd_single), "--operations", "30", "--otel", "--json", "--output", "run", cwd=tmp_path,
               PYTHONPATH=f"{tmp_path}/stubs:{ROOT}")  # fmt: skip
    result = json.loads(done.stdout)
    assert result["generator"]["engine_reason"] == "a listener of Locust's request event"
    heard = [
        line
        for path in (tmp_path / "run" / "logs").glob("worker-*.log")
        for line in path.read_text().splitlines()
        if line.startswith("heard kv ")
    ]
    assert len(heard) == 30
    assert "heard" not in (tmp_path / "run" / "logs" / "master.log").read_text() + done.stderr
