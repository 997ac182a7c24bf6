"""Reported latencies against what the server wrote down itself, from 0.2 ms to 2 s, as rows of evidence.

    chrt -f 1 python -m tests.bench.truth [--rounds 3] [--table]

The server (truth.c of tests/support/native) takes a known time for each GET; its time is from having read a request to
answering it. What a client reports beyond that are both ways through the kernel and waking up, for every client: so
h2load's p50, p90, p99 and maximum of the same requests stand beside those of `raftload bench` with either engine. The
server has one half of the processors, the clients the other. Each cell of each round is a line in
docs/evidence/truth.jsonl, so the command goes on where it was ended; then it prints the table, of medians over the
rounds: what is reported less what the server wrote down. With the real-time priority of `chrt` no other process of the
machine adds to either.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from typing import Any

from tests.bench import peers
from tests.soak.record import about_now, append, recorded
from tests.support.truth import Served, running

NAME = "truth.jsonl"
ALL_AT_ONCE = "0=200,0.5=1000,0.9=20000,0.99=500000,1=2000000"
# What the server takes, options of the load, and those of h2load: how many requests, connections and streams.
SHAPES = (
    ("200", ("--concurrency", "1", "--duration", "3s"), (6_000, 1, 1)),
    ("200", ("--rate", "500", "--duration", "4s"), None),
    ("1000", ("--concurrency", "10", "--duration", "3s"), (20_000, 1, 10)),
    ("5000", ("--concurrency", "10", "--duration", "3s"), (5_000, 1, 10)),
    ("20000", ("--concurrency", "100", "--duration", "3s"), (15_000, 1, 100)),
    ("20000", ("--rate", "1000", "--duration", "3s"), None),
    ("200000", ("--concurrency", "100", "--duration", "4s"), (2_000, 1, 100)),
    ("2000000", ("--concurrency", "100", "--duration", "6s"), (300, 1, 100)),
    (ALL_AT_ONCE, ("--concurrency", "100", "--duration", "6s"), (10_000, 1, 100)),
    (ALL_AT_ONCE, ("--rate", "500", "--duration", "6s"), None),
)
SHARES = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "max_ms": 1.0}
CLIENTS = ("compiled", "python", "h2load")


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="print the table of what there is")
    args = parser.parse_args()
    about = about_now("loadgen", "cluster")
    done = recorded(NAME, about)
    for number in range(0 if args.table else args.rounds):
        for latency, options, asked in SHAPES:
            for client in CLIENTS[number % 3 :] + CLIENTS[: number % 3]:
                cell = {"latency": latency, "options": list(options), "client": client, "round": number}
                if (client != "h2load" or asked) and not any(cell.items() <= row.items() for row in done):
                    row = {**about, **cell, **measure(latency, options, client, asked)}
                    done.append(row)
                    append(NAME, row)
                    print(f"round {number + 1}: {latency} {' '.join(options)} {client}", file=sys.stderr, flush=True)
    print(table(done))


def measure(
    latency: str, options: tuple[str, ...], client: str, asked: tuple[int, int, int] | None
) -> dict[str, dict[str, float]]:
    """Return what one client reports, and what the server wrote down of the same requests: milliseconds."""
    with peers.apart(lambda: running(latency=latency)) as server, tempfile.TemporaryDirectory() as folder:
        if client == "h2load":
            assert asked is not None
            reported = quantiles(peers.h2load_times_ms(f"http://{server.endpoint}", "get", *asked))
        else:
            result = peers.result_of(
                server.endpoint, "get", "--workers", "1", "--key-space", "10", "--keep", "--read-consistency",
                "serializable", "--timeout", "60s", "--allow-rate-miss", "--engine", client, *options, folder=folder,
            )  # fmt: skip
            # What the server cannot know is when an operation was due.
            total = result["results"]["total"]["latency"]
            reported = {field: (total["service"] or total)[field] for field in SHARES}
    held: list[Served] = server.served if client == "h2load" else server.of_run(result["run"]["prefix"])
    return {"reported": reported, "truth": quantiles([each.took / 1e6 for each in held])}


def quantiles(times_ms: list[float]) -> dict[str, float]:
    """Return the nearest ranks."""
    times_ms.sort()
    return {
        field: times_ms[max(0, math.ceil(share * len(times_ms) - 1e-9) - 1)] for field, share in SHARES.items()
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table, in Markdown."""
    lines = [
        "| the server takes | load | | " + " | ".join(field.removesuffix("_ms") for field in SHARES) + " |",
        "| --- | --- | --- " + "| --- " * len(SHARES) + "|",
    ]
    for latency, options, _ in SHAPES:
        for client in CLIENTS:
            cell = {"latency": latency, "options": list(options), "client": client}
            found = [row for row in rows if cell.items() <= row.items()]
            if found:
                times = f"{float(latency) / 1e3:g} ms" if "=" not in latency else "0.2 ms to 2 s"
                texts = [off(found, field) for field in SHARES]
                lines.append(
                    f"| {times} | {options[1]} {'users' if 'conc' in options[0] else '/s'} | {client} | "
                    + " | ".join(texts) + " |"
                )  # fmt: skip
    return "\n".join(lines)


def off(rows: list[dict[str, Any]], field: str) -> str:
    """Return the server's figure, and how far the reported one is from it, in microseconds and per cent."""
    truth = statistics.median(row["truth"][field] for row in rows)
    more = statistics.median(row["reported"][field] - row["truth"][field] for row in rows)
    return f"{truth:.3f} ms {1e3 * more:+,.0f} us ({more / truth:+.1%})"


if __name__ == "__main__":
    main()
