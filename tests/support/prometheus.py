"""A real Prometheus that scrapes what a test serves, and the dashboard of docs/deploy as Grafana would ask for it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.command import ROOT
from tests.support.ports import take_ports
from tests.support.waiting import until

DASHBOARD = ROOT / "docs" / "deploy" / "grafana-raftload.json"
_CONFIG = """\
global:
  scrape_interval: {every}
scrape_configs:
  - job_name: raftload
    static_configs:
      - targets: ["{target}"]
"""


class Prometheus:
    """One that scrapes. Takes its port."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, **parameters: object) -> Any:
        """Return the data of an answer of its HTTP API. Raises AssertionError with its error where it has one."""
        query = urllib.parse.urlencode({name: str(value) for name, value in parameters.items()})
        try:
            with urllib.request.urlopen(f"{self._url}/api/v1/{path}?{query}", timeout=60) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error
        assert found["status"] == "success" and not found.get("warnings"), found
        return found["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an instant query."""
        rows: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return rows

    def over(self, expression: str, seconds: int) -> list[dict[str, Any]]:
        """Return the series of a query over so many last seconds, in steps of one."""
        now = time.time()
        rows: list[dict[str, Any]] = self.ask(
            "query_range", query=expression, start=now - seconds, end=now, step=1
        )["result"]  # fmt: skip
        return rows

    @property
    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextlib.contextmanager
def scraping(target: str, folder: Path, every: str = "1s") -> Iterator[Prometheus]:
    """Yield a Prometheus that scrapes ``host:port``; takes a folder for its files, and how often."""
    port = take_ports(1)
    config = folder / "prometheus.yml"
    config.write_text(_CONFIG.format(target=target, every=every))
    with (folder / "prometheus.log").open("w") as log, subprocess.Popen(
        ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/tsdb",
         f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log,
    ) as process:  # fmt: skip
        try:
            found = Prometheus(port)
            until(lambda: process.poll() is not None or found.is_ready, "prometheus")
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            yield found
        finally:
            process.terminate()


def lint(metrics: str) -> str:
    """Return what ``promtool check metrics`` finds, empty for nothing."""
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=metrics, capture_output=True, text=True, timeout=60, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def queries(dashboard: dict[str, Any]) -> dict[str, list[str]]:
    """Return the queries of a dashboard's panels by their titles, as Grafana fills in its variables."""
    return {
        panel["title"]: [
            each["expr"].replace("$__rate_interval", "4s").replace("$instance", ".*") for each in panel["targets"]
        ]
        for panel in dashboard["panels"]
        if panel.get("targets")
    }
