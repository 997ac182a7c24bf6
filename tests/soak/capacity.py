"""The capacity of servers whose capacity is known, and of real clusters, measured again and again.

    python -m tests.soak.capacity [--times 10] [--clusters 5] [--simulated N]

appends a row for each measurement to docs/evidence/capacity.jsonl, with the commit, and goes on where it was ended:
what was measured of the same code counts. A measurement takes about a minute, and the machine has to be quiet. A server
of so many slots that take a known time serves a known rate, and its p99 jumps there. Of a cluster nobody knows the
capacity, so a load at 0.9 of what was found has to hold, and one at 1.15 of it must not. ``--simulated`` does so many
searches of each model of a server in tests/support/servers.py, and says how often which end of the bracket was wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.local.cluster import LocalCluster
from loadgen.capacity.search import Search
from tests.soak import record
from tests.soak.record import LOAD_PATH, about_now, append, command, recorded
from tests.support.command import ROOT
from tests.support.servers import SYSTEMS, run
from tests.support.truth import running

NAME = "capacity.jsonl"
# Slots and microseconds of servers: 800 to 6,000 operations per second.
SERVERS = (
    (1, 1000), (4, 2000), (8, 10_000), (16, 4000), (2, 500), (3, 2500), (6, 1000), (32, 8000), (1, 400), (10, 4500),
)  # fmt: skip
SLOS = {
    "server": ("total.p99_ms < 30", "total.success_rate >= 0.999"),
    "cluster": ("total.p99_ms < 100", "total.success_rate >= 0.999"),
}
# Members and load each have one half of the processors, and nothing waits for a disk.
HOW = "apart, in memory"
NEAR, MOST_S = 0.03, 180.0
HOLDS, BREAKS = 0.9, 1.15


def main() -> int:
    """Measure what is missing. Returns 0 where all is as it should be, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.capacity")
    parser.add_argument("--times", type=int, default=10, help="servers of a known capacity (default: 10)")
    parser.add_argument("--clusters", type=int, default=5, help="embedded clusters (default: 5)")
    parser.add_argument("--simulated", type=int, default=0, metavar="N", help="simulated searches of each model (0)")
    args = parser.parse_args()
    if args.clusters and len(os.sched_getaffinity(0)) < 2:
        parser.error("members and load have a processor each, and there is one; --clusters 0 measures servers alone")
    about = about_now(*LOAD_PATH, "loadgen/run", "loadgen/capacity")
    wanted = [("server", number) for number in range(args.times)]
    wanted += [("cluster", number) for number in range(args.clusters)]
    rows = [
        row for row in recorded(NAME, about)
        if row["kind"] != "cluster" or (row["how"], row["slos"]) == (HOW, list(SLOS["cluster"]))
    ]  # fmt: skip
    done = {(row["kind"], row["number"]) for row in rows}
    for kind, number in wanted:
        if (kind, number) not in done:
            measured = _server(number) if kind == "server" else _cluster(number)
            row = {**about, "kind": kind, "number": number, **measured}
            rows.append(row)
            append(NAME, row)
            print(json.dumps(row), flush=True)
    if args.simulated and ("simulated", args.simulated) not in done:
        for row in simulated(args.simulated):
            append(NAME, {**about, "kind": "simulated", "number": args.simulated, **row})
            print(json.dumps(row), flush=True)
    return _judge([row for row in rows if (row["kind"], row["number"]) in wanted])


def _judge(rows: list[dict[str, Any]]) -> int:
    """Say what all rows come to together."""
    servers, clusters = ([row for row in rows if row["kind"] == kind] for kind in ("server", "cluster"))
    near = sum(row["as_it_should_be"] for row in servers)
    print(f"{near} of {len(servers)} servers within {NEAR:.0%} in under {MOST_S:.0f} s")
    fine = sum(row["as_it_should_be"] for row in clusters)
    rates = [row["rate"] for row in clusters if row["rate"]]
    spread = f", from {min(rates):,.0f} to {max(rates):,.0f}/s" if rates else ""
    print(f"{fine} of {len(clusters)} clusters hold at {HOLDS} of it and not at {BREAKS}{spread}")
    return 0 if 10 * near >= 9 * len(servers) and fine == len(clusters) else 1


def simulated(count: int) -> Iterator[dict[str, Any]]:
    """Search models of servers, and yield for each kind of them how good the answers were."""
    for name, make in SYSTEMS.items():
        errors: list[float] = []
        seconds, low_wrong, high_wrong = [], 0, 0
        for seed in range(count):
            system = make(seed)
            search = Search(system.goals, start_rate=50, max_rate=1e6)
            seconds.append(run(search, system.model))
            if search.answer is not None:
                errors.append(search.answer / system.truth - 1)
            low, high = search.bracket()
            low_wrong += low is not None and low > system.truth
            high_wrong += high is not None and high < system.truth
        errors.sort()
        yield {
            "model": name, "searches": count, "without_answer": count - len(errors),
            "error": {f"p{share}": round(errors[len(errors) * share // 100], 4) for share in (5, 50, 95)},
            "within_3_percent": sum(abs(each) <= NEAR for each in errors) / count,
            "low_above_it": low_wrong / count, "high_below_it": high_wrong / count,
            "mean_s": round(sum(seconds) / count, 1), "longest_s": max(seconds),
        }  # fmt: skip


def _server(number: int) -> dict[str, Any]:
    slots, service_us = SERVERS[number % len(SERVERS)]
    truth = slots / service_us * 1e6
    with running(slots=slots, service=service_us) as server, tempfile.TemporaryDirectory() as folder:
        found = _capacity(Path(folder), SLOS["server"], "--endpoints", server.endpoint, "--destructive")
    error = None if found["rate"] is None else found["rate"] / truth - 1
    good = error is not None and abs(error) <= NEAR and found["load_s"] < MOST_S and found["wall_s"] < MOST_S
    return {"slots": slots, "service_us": service_us, "truth": truth, "error": error, **found, "as_it_should_be": good}


def _cluster(number: int) -> dict[str, Any]:
    """All on one cluster: a store that has taken a million writes has another capacity than an empty one.

    The members have one half of the processors and the load the other, and nothing waits for a disk: where they share
    these with each other and with the machine, what a cluster takes moves by a sixth from one minute to the next.
    """
    processors = sorted(os.sched_getaffinity(0))
    half = len(processors) // 2
    with contextlib.ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, processors)
        os.sched_setaffinity(0, processors[:half])  # which what is started inherits
        cluster = stack.enter_context(LocalCluster(3, storage="memory"))
        os.sched_setaffinity(0, processors[half:])
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        endpoints = ("--endpoints", ",".join(cluster.endpoints))
        slos = SLOS["cluster"]
        found = _capacity(folder, slos, *endpoints, "--destructive")
        rate = found["rate"]
        held, broke = (
            _bench(folder, slos, share, rate * share, *endpoints) if rate else None for share in (HOLDS, BREAKS)
        )
    good = held is not None and broke is not None and held["verdict"] == "pass" and broke["verdict"] != "pass"
    return {"how": HOW, **found, "at_0.9": held, "at_1.15": broke, "as_it_should_be": good}


def _capacity(folder: Path, conditions: Sequence[str], *target: str) -> dict[str, Any]:
    began = time.monotonic()
    slos = [word for slo in conditions for word in ("--slo", slo)]
    result = _raftload("capacity", *slos, *target, "--json", "--output", str(folder / "capacity"))
    capacity, generator = result["capacity"], result["generator"]
    return {
        "slos": list(conditions),
        **{field: capacity[field] for field in ("rate", "low", "high", "load_s", "verdict", "reason")},
        "limit": capacity["limit"] and {field: capacity["limit"][field] for field in ("rate", "by", "broken")},
        "steps": len(capacity["steps"]),
        "wall_s": round(time.monotonic() - began, 1),
        "etcd": result["target"]["etcd_version"],
        "engine": generator["engine"],
        "start_lag_p99_ms": generator["start_lag_p99_ms"],
    }


def _bench(folder: Path, conditions: Sequence[str], share: float, rate: float, *target: str) -> dict[str, Any]:
    slos = [word for slo in conditions for word in ("--threshold", slo)]
    result = _raftload(
        "bench", "--rate", f"{rate:.1f}", "--duration", "20s", "--warmup", "2s", *slos, "--allow-rate-miss", "--json",
        "--output", str(folder / f"bench-{share}"), *target,
    )  # fmt: skip
    latency = result["results"]["total"]["latency"]
    return {"rate": rate, "p99_ms": latency and latency["p99_ms"], "verdict": result["verdict"]}


def _raftload(*words: str) -> Mapping[str, Any]:
    done = record.run(sys.executable, "-m", "loadgen.cli", *words, cwd=ROOT)
    if not done.stdout:
        sys.exit(f"{' '.join(done.args)} ended with {done.returncode}")
    result: Mapping[str, Any] = json.loads(done.stdout)
    return result


if __name__ == "__main__":
    command(main)
