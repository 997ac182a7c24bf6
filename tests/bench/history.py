"""The cost of recording an operation: us of one processor, files on disk included, against a line of JSON each.

    python -m tests.bench.history [--operations N] [--rounds N]

The requests and answers are those of puts of 64 bytes and of gets, as etcd sends them. JSON is what etcd's own
robustness tests keep their histories in; here it gets the fields ready made.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns, process_time

from loadgen.history.operation import Outcome
from loadgen.history.writer import HistoryWriter
from loadgen.proto import etcd_pb2 as pb
from loadgen.proto import kv_pb2

PUT, RANGE = b"/etcdserverpb.KV/Put", b"/etcdserverpb.KV/Range"


def main() -> None:
    """Measures in turns and prints the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
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


def cost(write: Callable[[Path], None], operations: int) -> float:
    """Microseconds of processor time, user and system, an operation."""
    with tempfile.TemporaryDirectory() as folder:
        began = process_time()
        write(Path(folder))
        return (process_time() - began) / operations * 1e6


if __name__ == "__main__":
    main()
