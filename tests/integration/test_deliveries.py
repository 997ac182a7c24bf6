"""Deliveries of watched writes: as many as are due, or the run says which are missing. The common start for that."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.base.security import Security
from cluster.base.topology import ServerTls
from cluster.local.cluster import LocalCluster
from tests.integration.test_stream_limit import LIMIT, knows_limit
from tests.support import command
from tests.support.certificates import Authority
from tests.support.etcds import default_and_others
from tests.support.waiting import HANG_S, until

SLOW = """
import time
import gevent
from locustfiles import watch

def note(what):
    with open("notes.txt", "a") as file:
        file.write(f"{what} {time.time_ns()}\\n")

class SlowUser(watch.WatchUser):
    def make_ready(self):
        if self.load.rank == self.load.workers - 1 and self.process % 65536 == 1:
            gevent.sleep(1.0)
        super().make_ready()
        note("ready")

    def put(self, key, value):
        note("put")
        return super().put(key, value)
"""
BLIND = """
from locustfiles import watch

class BlindUser(watch.WatchUser):
    def make_ready(self):
        super().make_ready()
        if self.process == 1:
            self._reader.kill()
            self.watch_of_all.cancel()
"""
REFUSED = """
from locustfiles import watch

class RefusedUser(watch.WatchUser):
    def begin_watch(self):
        if self.process > 1:
            return super().begin_watch()
        return self.watcher.watch(b"b", b"a")
"""


ENDLESS = """
import gevent
from locustfiles import watch

class EndlessUser(watch.WatchUser):
    def make_ready(self):
        super().make_ready()
        with open("ready.txt", "a") as file:
            file.write("ready\\n")
        if self.process == 1:
            gevent.sleep(3600)
"""


def bench(endpoints: list[str], cwd: Path, *words: str, code: int = 0, **env: str) -> dict[str, Any]:
    done = command.run(
        "bench", "--json", "--timeout", "60s", "--endpoints", ",".join(endpoints), *words, cwd=cwd, **env
    )
    assert done.returncode == code, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def counts(document: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return the operations and failures of each type that was run."""
    return {name: (row["operations"], row["failed"]) for name, row in document["results"].items() if row}


def own(tmp_path: Path, text: str) -> str:
    """Return the path of a scenario of one's own."""
    path = tmp_path / "own.py"
    path.write_text(text)
    return str(path)


@pytest.fixture(params=[None, *(each for each in default_and_others() if knows_limit(each))], scope="module")
def single(request: pytest.FixtureRequest, etcd_binary: str) -> Iterator[LocalCluster]:
    """One member, without a limit, and then of each etcd that can have one, of five streams on a connection."""
    limit = [f"--max-concurrent-streams={LIMIT}"] if request.param else []
    with LocalCluster(1, binary=request.param or etcd_binary, extra_args=limit) as cluster:
        yield cluster


def test_three_users_and_three_puts_are_nine_deliveries(single: LocalCluster, tmp_path: Path) -> None:
    words = ("--scenario", "watch", "--workers", "1", "--concurrency", "3", "--operations", "3")
    document = bench(single.endpoints, tmp_path, *words)
    assert counts(document) == {"put": (3, 0), "watch": (9, 0), "total": (12, 0)}
    assert document["problems"] == []


def test_every_put_reaches_every_user_of_its_worker(single: LocalCluster, tmp_path: Path) -> None:
    words = ("--scenario", "watch", "--workers", "2", "--concurrency", "50", "--operations", "200")
    document = bench(single.endpoints, tmp_path, *words)
    assert counts(document) == {"put": (200, 0), "watch": (200 * 25, 0), "total": (200 * 26, 0)}
    assert document["problems"] == []


def test_every_object_reaches_every_informer(single: LocalCluster, tmp_path: Path) -> None:
    words = ("--scenario", "kubernetes", "--workers", "1", "--concurrency", "12", "--operations", "400")
    document = bench(single.endpoints, tmp_path, *words)
    rows = document["results"]
    written = sum(json.loads(Path(path).read_text())["measured"][f]["branches"]["success"]
                  for path in tmp_path.glob("runs/*/run.json") for f in ("create", "update"))  # fmt: skip
    assert rows["watch"]["operations"] == 12 * written > 0
    assert (rows["total"]["failed"], document["problems"]) == (0, [])


def test_no_user_of_leases_is_stuck(single: LocalCluster, tmp_path: Path) -> None:
    words = ("--scenario", "lease", "--workers", "1", "--concurrency", "12", "--operations", "600")
    document = bench(single.endpoints, tmp_path, *words)
    assert counts(document)["total"] == (600, 0)
    assert document["problems"] == []


def test_the_250_streams_of_an_old_etcd_with_tls(wheel_etcd: str, tmp_path: Path) -> None:
    """Until 3.5.4 the streams of one TLS connection are limited to 250: 246 of 300 users were reached."""
    authority = Authority(tmp_path)
    server = authority.sign("server", "127.0.0.1")
    tls, security = ServerTls(server.cert, server.key), Security(cacert=authority.cert)
    with LocalCluster(1, binary=wheel_etcd, tls=tls, security=security) as cluster:
        words = ("--scenario", "watch", "--workers", "1", "--concurrency", "300", "--operations", "300")
        document = bench(cluster.endpoints, tmp_path, *words, "--cacert", authority.cert)
    assert counts(document) == {"put": (300, 0), "watch": (300 * 300, 0), "total": (300 * 301, 0)}
    assert document["problems"] == []


# What is missing


def test_a_missing_delivery_is_named_and_makes_the_run_inconclusive(etcd_single: LocalCluster, tmp_path: Path) -> None:
    words = ("--scenario", own(tmp_path, BLIND), "--workers", "1", "--concurrency", "3", "--operations", "3")
    document = bench(etcd_single.endpoints, tmp_path, *words, code=3)
    assert counts(document)["watch"][0] - counts(document)["watch"][1] == 6
    (problem,) = document["problems"]
    assert ": 3 of 9 deliveries are missing: " in problem
    assert problem.startswith("worker 1")
    assert problem.count("reached 2 of 3") == 3
    assert document["verdict"] == "unknown"
    assert problem in document["verdict_reasons"]


def test_a_watch_that_is_not_there_is_named(etcd_single: LocalCluster, tmp_path: Path) -> None:
    words = ("--scenario", own(tmp_path, REFUSED), "--workers", "1", "--concurrency", "3", "--operations", "3")
    document = bench(etcd_single.endpoints, tmp_path, *words, code=3)
    (problem,) = document["problems"]
    assert problem.endswith(": 1 watch was not confirmed before the load: mvcc: watcher range is empty"), problem
    assert counts(document)["put"] == (3, 0)
    # The two others were reached.
    assert document["results"]["watch"]["succeeded"] == 6


# The start


@pytest.mark.parametrize("loop", [(), ("--rate", "200", "--allow-rate-miss")])
def test_no_user_writes_before_every_watch_is_confirmed(
    etcd_single: LocalCluster, tmp_path: Path, loop: tuple[str, ...]
) -> None:
    """One user of the second worker takes a second longer: a schedule begins when it is ready, too."""
    words = ("--scenario", own(tmp_path, SLOW), "--workers", "2", "--concurrency", "4", "--operations", "100", *loop)
    document = bench(etcd_single.endpoints, tmp_path, *words)
    noted = [line.split() for line in (tmp_path / "notes.txt").read_text().splitlines()]
    ready, put = ([int(at) for what, at in noted if what == kind] for kind in ("ready", "put"))
    assert (len(ready) >= 4, len(put)) == (True, 100)
    assert sorted(ready)[3] < min(put)
    assert document["generator"]["dropped"] == 0
    assert counts(document)["put"] == (100, 0)
    assert document["problems"] == []
    if not loop:
        assert counts(document)["watch"] == (200, 0)


def test_a_run_is_stopped_before_its_start(etcd_single: LocalCluster, tmp_path: Path) -> None:
    """One user never gets ready, and the others wait for it: Ctrl-C ends them, and none has written."""
    words = ("bench", "--json", "--scenario", own(tmp_path, ENDLESS), "--workers", "2", "--concurrency", "4")
    with command.start(*words, "--timeout", "1s", "--endpoints", etcd_single.endpoints[0], cwd=tmp_path) as process:
        ready = tmp_path / "ready.txt"
        until(lambda: ready.exists() and ready.read_text().count("ready") == 4, "the watches")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=HANG_S)
    assert process.returncode == 130, err
    document = json.loads(out)
    assert document["interrupted"] == "SIGINT"
    assert document["results"]["put"] is None
    assert document["results"].get("watch") is None


def test_a_duration_counts_from_the_common_start(etcd_single: LocalCluster, tmp_path: Path) -> None:
    words = ("--scenario", own(tmp_path, SLOW), "--workers", "2", "--concurrency", "4", "--duration", "500ms")
    document = bench(etcd_single.endpoints, tmp_path, *words)
    assert counts(document)["put"][0] > 0
    assert document["run"]["duration_s"] > 0.4
    assert document["problems"] == []
