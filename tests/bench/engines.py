"""The cost of an operation on either engine, beside h2load's, etcd's Go benchmark's and grpcio's, as rows of evidence.

    eval "$(.ci/etcds --benchmark 3.6)"; python -m tests.bench.engines [--rounds 5] [--types get,put,txn]

CPU (user and system) of the client per operation, throughput and latency, at 1 to 1,000 users on 1 or 10 connections,
everything that Locust does included. All clients ask one etcd member whose data lie in memory; it is pinned to one half
of the processors and the clients to the other. They take turns, in another order each round. Each round of each cell is
a line in docs/evidence/engines.jsonl, so the command goes on where it was ended; then it prints the table: medians, and
ratios as medians over the rounds of what was measured in the same round.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
from functools import partial
from typing import Any

from tests.bench import peers
from tests.bench.peers import Cost
from tests.soak.record import about_now, append, recorded

NAME = "engines.jsonl"
# Users, connections, and how many operations take some seconds of the slower ones.
SHAPES = ((1, 1, 6_000), (10, 1, 20_000), (10, 10, 20_000), (100, 1, 60_000), (100, 10, 60_000), (1000, 10, 60_000))
TYPES = ("get", "put", "txn")
OURS = ("compiled", "python")
PEERS = ("h2load", "benchmark", "grpcio")
# The slow ones do fewer.
SHARES = {"python": 2, "benchmark": 2, "grpcio": 6}


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--types", default=TYPES, type=lambda text: text.split(","), help="default: get,put,txn")
    parser.add_argument("--table", action="store_true", help="print the table of what there is")
    args = parser.parse_args()
    about = about_now("loadgen", "cluster")
    done = recorded(NAME, about)
    if not args.table:
        with (
            peers.etcd_apart(quota_backend_bytes=6 << 30) as endpoint,
            tempfile.TemporaryDirectory() as folder,
        ):
            for number in range(args.rounds):
                for users, connections, operations in SHAPES:
                    for f in args.types:
                        cell = {"users": users, "connections": connections, "f": f, "round": number}
                        if not any(cell.items() <= row.items() for row in done):
                            row = {
                                **about,
                                **cell,
                                **one_round(endpoint, folder, number, users, connections, f, operations),
                            }
                            done.append(row)
                            append(NAME, row)
                            print(f"round {number + 1}: {users}/{connections} {f}", file=sys.stderr, flush=True)
    print(table(done))


def one_round(
    endpoint: str, folder: str, number: int, users: int, connections: int, f: str, operations: int
) -> dict[str, Any]:
    """Measure each client once, in another order each round; return what each cost by its name."""
    shape = connections, users // connections
    # The start of many users is not to be counted, as it is not of the others.
    warmup = ("--warmup", "1s") if users >= 100 else ()
    clients = {
        **{
            engine: partial(peers.raftload, endpoint, f, operations // SHARES.get(engine, 1), *shape,
                            "--engine", engine, *warmup, folder=folder)
            for engine in OURS
        },
        "h2load": partial(peers.h2load, endpoint, f, operations, *shape, latency=True),
        "benchmark": partial(peers.go_benchmark, endpoint, f, operations // SHARES["benchmark"], *shape),
        "grpcio": partial(peers.grpcio, endpoint, f, operations // SHARES["grpcio"], *shape),
    }  # fmt: skip
    names = list(clients)
    at = number % len(names)
    return {name: dataclasses.asdict(clients[name]()) for name in names[at:] + names[:at]}


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table, in Markdown."""
    lines = [
        "| users/connections | | compiled | Python | h2load | Go `benchmark` | grpcio | to h2load | to Go | to Python |"
        " p50, p99 ms | of h2load | of Python |",
        "| --- | --- " + "| --- " * 11 + "|",
    ]
    for users, connections, _ in SHAPES:
        for f in TYPES:
            cell = {"users": users, "connections": connections, "f": f}
            found = [row for row in rows if cell.items() <= row.items()]
            if not found:
                continue

            def cost(name: str, field: str = "cpu_us", found: list[dict[str, Any]] = found) -> float:
                return statistics.median(Cost(**row[name]).__getattribute__(field) for row in found)

            def ratio(name: str, found: list[dict[str, Any]] = found) -> float:
                return statistics.median(row["compiled"]["cpu_us"] / row[name]["cpu_us"] for row in found)

            times = (
                f"{cost(name, 'p50_ms'):.3f}, {cost(name, 'p99_ms'):.3f}" for name in ("compiled", "h2load", "python")
            )
            lines.append(
                f"| {users:,}/{connections} | {f} | "
                + " | ".join(f"{cost(name):.1f}" for name in (*OURS, *PEERS))
                + " | " + " | ".join(f"{ratio(name):.2f}" for name in ("h2load", "benchmark", "python"))
                + " | " + " | ".join(times) + " |"
            )  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    main()
