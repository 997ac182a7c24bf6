"""`raftload perf` beside `etcdctl check perf` on the same cluster by turns, and with each mark missed alone.

    python -m tests.soak.perf --times 10

It appends a line for each pair of runs to docs/evidence/perf.jsonl and goes on where it was ended before: pairs of the
same code count. A pair takes two minutes and a quarter. The exit code is 0 where both tools came to the same verdict
each time, and printed the same lines but for the figures.

The loads `s` and `m` go to three members. For the marks, `s` goes to one member, to which the same happens under both:

* errors: the alarm NOSPACE is raised for half a second, so that etcd refuses some puts at once;
* rate: a relay holds every answer back for 0.38 s from the third second on, so that 50 clients reach 131 puts/s;
* stall: the member is stopped (SIGSTOP) for 0.6 s;
* spread: the relay holds answers back for 0.3 s in every other ten seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cluster.local.cluster import LocalCluster
from cluster.observe.calls import grpc
from cluster.observe.messages import encode
from cluster.observe.probe import member_status
from tests.soak.record import LOAD_PATH, ROOT, about_now, append, command, recorded, run
from tests.support.etcds import newest_of, version_of
from tests.support.relay import relay

NAME = "perf.jsonl"
MINOR = "3.6"
# Both loads are under way by then.
FAULT_AT_S = 20.0
HANGS_S = 300
_ALARM = "/etcdserverpb.Maintenance/Alarm"
_ACTIVATE, _DEACTIVATE, _NOSPACE = 1, 2, 1

Disturb = Callable[[LocalCluster], None]


@dataclasses.dataclass(frozen=True)
class Case:
    """A load, and what happens to its cluster.

    Attributes:
        load: its size.
        nodes: members of the cluster.
        disturb: what to do to it while the load is under way.
        delay: of a relay before the member, in seconds, by the seconds since its first connection.
        fails: the one mark that it misses; empty where it is not known beforehand.
    """

    load: str
    nodes: int
    disturb: Disturb | None = None
    delay: Callable[[float], float] | None = None
    fails: str = ""


def stall(cluster: LocalCluster) -> None:
    """Stop the only member for 0.6 s."""
    (member,) = cluster.members
    cluster.pause(member.name)
    time.sleep(0.6)
    cluster.resume(member.name)


def refuse(cluster: LocalCluster) -> None:
    """Have the only member refuse puts for half a second."""
    (member,) = cluster.members
    identity = member_status(member, 10.0).member_id
    for action in (_ACTIVATE, _DEACTIVATE):
        grpc(member.client_url, _ALARM, encode({1: action, 2: identity, 3: _NOSPACE}), 10.0)
        time.sleep(0.5)


CASES = {
    "s": Case("s", 3),
    "m": Case("m", 3),
    "errors": Case("s", 1, disturb=refuse, fails="errors"),
    "rate": Case("s", 1, delay=lambda at_s: 0.38 if at_s >= 2 else 0.0, fails="throughput"),
    "stall": Case("s", 1, disturb=stall, fails="slowest"),
    "spread": Case("s", 1, delay=lambda at_s: 0.3 if int(at_s / 10) % 2 else 0.0, fails="stddev"),
}
MARKS = tuple(name for name, case in CASES.items() if case.fails)


def main() -> int:
    """Run as many pairs as it takes. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.perf", description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=10, metavar="N", help="pairs of each load (default: 10)")
    parser.add_argument("--marks", type=int, default=2, metavar="N", help="pairs of each mark (default: 2)")
    parser.add_argument("--only", default=",".join(CASES), metavar="CASE,…", help="of these cases (default: all)")
    args = parser.parse_args()
    etcd = newest_of(MINOR)
    about = {**about_now(*LOAD_PATH, "loadgen/run", "loadgen/perf", "loadgen/result"), "etcd": version_of(etcd)}
    rows = []
    # By turns over the cases, too, so that what else the machine does meets all of them.
    for number in range(max(args.times, args.marks)):
        for name in args.only.split(","):
            done = recorded(NAME, {**about, "case": name})
            if number >= (args.marks if name in MARKS else args.times):
                continue
            if number < len(done):
                rows.append(done[number])
                continue
            row = {**about, "case": name, **pair(CASES[name], etcd, raftload_first=bool(number % 2))}
            append(NAME, row)
            rows.append(row)
            word = "the same" if row["same"] else "NOT THE SAME"
            print(f"{name} {number + 1}: {word}: {row['etcdctl']['lines']} {row['raftload']['lines']}", flush=True)
    good = [row for row in rows if row["same"] and row["alone"] is not False]
    print(f"{len(good)} of {len(rows)} pairs came to the same verdict and lines; see docs/evidence/{NAME}")
    return 0 if len(good) == len(rows) else 1


def pair(case: Case, etcd: str, *, raftload_first: bool) -> dict[str, Any]:
    """Run both tools, one after the other, on a cluster that is made for them; return what each said."""
    tools = {"etcdctl": etcdctl, "raftload": raftload}
    order = sorted(tools, reverse=raftload_first)
    found: dict[str, Any] = {"order": order}
    with LocalCluster(case.nodes, binary=etcd) as cluster:
        for name in order:
            with front(cluster, case) as endpoints, disturbing(cluster, case):
                found[name] = tools[name](etcd, endpoints, case.load)
    ours, theirs = found["raftload"], found["etcdctl"]
    found["same"] = (form(ours["lines"]), ours["exit"]) == (form(theirs["lines"]), theirs["exit"])
    found["alone"] = [missed(tool["lines"]) for tool in (ours, theirs)] == [[case.fails]] * 2 if case.fails else None
    return found


@contextlib.contextmanager
def front(cluster: LocalCluster, case: Case) -> Iterator[str]:
    """Yield the endpoints that a tool gets."""
    if case.delay is None:
        yield ",".join(cluster.endpoints)
        return
    with relay(cluster.endpoints[0], case.delay) as address:
        yield address


@contextlib.contextmanager
def disturbing(cluster: LocalCluster, case: Case) -> Iterator[None]:
    """Disturb a cluster once a load is under way, in a thread of its own."""
    if case.disturb is None:
        yield
        return
    timer = threading.Timer(FAULT_AT_S, case.disturb, (cluster,))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def etcdctl(etcd: str, endpoints: str, load: str) -> dict[str, Any]:
    """Run etcdctl's check; return its exit code and its lines."""
    words = [str(Path(etcd).with_name("etcdctl")), "--endpoints", endpoints, "check", "perf", "--load", load]
    done = run(*words, timeout_s=HANGS_S, stderr=subprocess.PIPE)
    return {"exit": done.returncode, "lines": done.stdout.splitlines()}


def raftload(etcd: str, endpoints: str, load: str) -> dict[str, Any]:
    """Run ours; return its exit code, its lines, and the figures behind them."""
    with tempfile.TemporaryDirectory(prefix="raftload-perf-") as folder:
        done = run(
            sys.executable, "-m", "loadgen.cli", "perf", "--load", load, "--like-etcdctl", "--endpoints", endpoints,
            "--output", "run", *(["--destructive"] if load in ("l", "xl") else []), timeout_s=HANGS_S,
            cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE,
        )  # fmt: skip
        found: dict[str, Any] = {"exit": done.returncode, "lines": done.stdout.splitlines()}
        path = Path(folder, "run", "result.json")
        if not path.exists():
            return {**found, "error": done.stderr[-300:]}
        result = json.loads(path.read_text())
    generator = result["generator"]
    return {
        **found, "marks": {mark["name"]: mark["value"] for mark in result["perf"]["marks"]},
        "members": result["perf"]["members"], "problems": result["problems"],
        "dropped": generator["dropped"], "start_lag_p99_ms": generator["start_lag_p99_ms"],
    }  # fmt: skip


def form(lines: list[str]) -> list[str]:
    """Return lines without their figures."""
    return [re.sub(r"[0-9]+(\.[0-9]+)?", "N", line) for line in lines]


def missed(lines: list[str]) -> list[str]:
    """Return the marks that lines of etcdctl's form say were missed."""
    words = {
        "FAIL: too many errors": "errors", "FAIL: Throughput": "throughput", "Slowest request took": "slowest",
        "Stddev too": "stddev",
    }  # fmt: skip
    return [mark for line in lines for word, mark in words.items() if line.startswith(word)]


if __name__ == "__main__":
    command(main)
