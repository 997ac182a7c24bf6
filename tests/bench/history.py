"""The cost of recording an operation: us of one processor, files on disk included, against a line of JSON each.

    python -m tests.bench.history [--operations N] [--rounds N]
    python -m tests.bench.history --engines [--seconds 2] [--rounds N]

The requests and answers are those of puts of 64 bytes and of gets, as etcd sends them. JSON is what etcd's own
robustness tests keep their histories in; here it gets the fields ready made. With ``--engines``: what an operation
costs a worker of either engine, without Locust, with a history and without one by turns, against the server in C of
`tests.bench.highest`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns, process_time

import gevent

from loadgen.client.etcd import EtcdClient
from loadgen.history.operation import Outcome
from loadgen.history.writer import HistoryWriter
from loadgen.load.workload import Values
from loadgen.proto import etcd_pb2 as pb
from loadgen.proto import kv_pb2
from tests.bench import highest

PUT, RANGE = b"/etcdserverpb.KV/Put", b"/etcdserverpb.KV/Range"


def main() -> None:
    """Measures in turns and prints the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engines", action="store_true")
    parser.add_argument("--seconds", type=float, default=2)
    args = parser.parse_args()
    if args.engines:
        engines(args.seconds, args.rounds)
        return
    header = pb.ResponseHeader(cluster_id=1 << 63, member_id=1 << 62, revision=123_456, raft_term=2)
    key, value = b"raftload/" + b"k" * 23, b"v" * 64
    pair = kv_pb2.KeyValue(key=key, value=value, create_revision=100_000, mod_revision=123_000, version=40)
    calls = [
        (PUT, pb.PutRequest(key=key, value=value).SerializeToString(), pb.PutResponse(header=header)),
        (RANGE, pb.RangeRequest(key=key).SerializeToString(), pb.RangeResponse(header=header, kvs=[pair], count=1)),
    ]
    ready = [(path, request, response.SerializeToString()) for path, request, response in calls]

    def binary(folder: Path) -> None:
        writer = HistoryWriter(folder / "a.hist")
        record = writer.operation
        for n in range(args.operations):
            path, request, response = ready[n & 1]
            now = perf_counter_ns()
            record(path, n & 63, now, now, now, Outcome.OK, request, response)
        writer.close()

    def lines(folder: Path) -> None:
        with (folder / "a.json").open("w") as file:
            for n in range(args.operations):
                path, request, response = ready[n & 1]
                now = perf_counter_ns()
                entry = [path.decode(), n & 63, now, now, now, "ok", request.hex(), response.hex()]
                file.write(json.dumps(entry) + "\n")

    rows = [(cost(binary, args.operations), cost(lines, args.operations)) for _ in range(args.rounds)]
    ours, theirs = (statistics.median(column) for column in zip(*rows, strict=True))
    ratio = statistics.median(a / b for a, b in rows)
    print(f"history {ours:.2f} us an operation, JSON lines {theirs:.2f} us, ratio {ratio:.2f}")


def engines(seconds: float, rounds: int) -> None:
    """Measure each type on each engine, and print what an operation costs without and with a history."""
    processors = sorted(os.sched_getaffinity(0))
    half = len(processors) // 2
    measures = {"compiled": highest.highest, "python": python_rate}
    for f, message in highest.MESSAGES.items():
        for name, measure in measures.items():
            costs: dict[bool, list[float]] = {False: [], True: []}
            for n in range(2 * rounds):
                with tempfile.TemporaryDirectory() as folder:
                    writer = HistoryWriter(Path(folder) / "a.hist") if n % 2 else None
                    os.sched_setaffinity(0, processors[:half] or processors)  # inherited by the server
                    # It takes one client's connections.
                    with highest.replaying(folder, message.SerializeToString(), 1) as port:
                        os.sched_setaffinity(0, processors[half:])
                        costs[bool(writer)].append(1e6 / measure(f, port, 100, 1, seconds, writer)[1])
                    if writer is not None:
                        writer.close()
            without, with_one = (statistics.median(costs[each]) for each in (False, True))
            print(f"{f:<4} {name:<9} {without:6.2f} us, recorded {with_one:6.2f} us", flush=True)


def python_rate(
    f: str, port: int, users: int, connections: int, seconds: float, history: HistoryWriter | None
) -> tuple[float, float]:
    """Return operations per second of the clock, and of CPU, of the Python engine's client; see `highest.highest`."""
    client = EtcdClient([f"127.0.0.1:{port}"], connections=connections, history=history)
    done = 0
    ended = False

    def use(process: int) -> None:
        nonlocal done
        key, values = b"abcd/" + b"0" * 27, Values(1, process, 64)
        while not ended:
            if f == "get":
                client.get(key, process=process)
            elif f == "put":
                client.put(key, values.next(), process=process)
            else:
                client.cas(key, values.next(), 123_456, process=process)
            done += 1

    greenlets = [gevent.spawn(use, n) for n in range(users)]
    gevent.sleep(0.5)
    before, began, cpu = done, time.perf_counter(), process_time()
    gevent.sleep(seconds)
    took, used, counted = time.perf_counter() - began, process_time() - cpu, done - before
    ended = True
    gevent.joinall(greenlets, timeout=5)
    client.close()
    return counted / took, counted / used


def cost(write: Callable[[Path], None], operations: int) -> float:
    """Microseconds of processor time, user and system, an operation."""
    with tempfile.TemporaryDirectory() as folder:
        began = process_time()
        write(Path(folder))
        return (process_time() - began) / operations * 1e6


if __name__ == "__main__":
    main()
