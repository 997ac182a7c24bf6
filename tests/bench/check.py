"""The time and memory of a check: histories of 10^4, 10^5 and 10^6 operations, each in its own process.

    python -m tests.bench.check [--operations N ...] [--keep DIR]

The history is a mix as `raftload chaos` records it: puts, linearizable and serializable gets, ranges, transactions,
deletes and leases, and three members' watches of everything, with previous values. Prints seconds, of which on a
processor, those as microseconds an operation, and that divided by log n, which stays the same where time grows as
n log n; and the peak of resident memory.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from loadgen.history.operation import Outcome
from loadgen.history.writer import HistoryWriter
from loadgen.proto import etcd_pb2 as pb
from loadgen.proto import kv_pb2

KEYS = 10_000
PREFIX = b"bench/"
MEMBERS = (11 << 56, 12 << 56, 13 << 56)
PUT, RANGE, TXN = b"/etcdserverpb.KV/Put", b"/etcdserverpb.KV/Range", b"/etcdserverpb.KV/Txn"
DELETE, GRANT = b"/etcdserverpb.KV/DeleteRange", b"/etcdserverpb.Lease/LeaseGrant"


def make(folder: Path, operations: int) -> None:
    """Write a history that keeps every promise, one operation after the other, 10 us each."""
    draw = random.Random(1)
    writer = HistoryWriter(folder / "load.hist")
    watcher = HistoryWriter(folder / "watch.hist")
    members = [{"id": f"{member:x}", "name": name} for member, name in zip(MEMBERS, "abc", strict=True)]
    writer.marker("cluster", 1, prefix=PREFIX.decode(), revision=1, exclusive=True, members=members)
    state: dict[bytes, kv_pb2.KeyValue] = {}
    names = [PREFIX + b"%026d" % number for number in range(KEYS)]
    end = b"bench0"
    revision, at = 1, 1000
    for number, member in enumerate(MEMBERS):
        create = pb.WatchCreateRequest(key=PREFIX, range_end=end, start_revision=2, prev_kv=True)
        watcher.watch_sent(number, at, pb.WatchRequest(create_request=create).SerializeToString())
        created = pb.WatchResponse(header=pb.ResponseHeader(member_id=member, revision=1), created=True)
        watcher.watch_received(number, at, created.SerializeToString())
    kinds = draw.choices(
        ("put", "get", "stale", "range", "txn", "delete", "lease"), (38, 26, 12, 4, 15, 3, 2), k=operations
    )
    for count, kind in enumerate(kinds):
        key = names[int(draw.random() * KEYS)]
        at += 10_000
        member = MEMBERS[count % 3]
        header = pb.ResponseHeader(cluster_id=1 << 63, member_id=member, revision=revision, raft_term=2)
        events: list[kv_pb2.Event] = []
        request: object
        answer: object
        if kind in ("get", "stale"):
            kv = state.get(key)
            path, request = RANGE, pb.RangeRequest(key=key, serializable=kind == "stale")
            answer = pb.RangeResponse(header=header, kvs=[kv] if kv else [], count=int(kv is not None))
        elif kind == "range":
            place = int(draw.random() * (KEYS - 10))
            found = [state[each] for each in names[place : place + 10] if each in state]
            path, request = RANGE, pb.RangeRequest(key=names[place], range_end=names[place + 10])
            answer = pb.RangeResponse(header=header, kvs=found, count=len(found))
        elif kind == "lease":
            path, request = GRANT, pb.LeaseGrantRequest(ID=count + 1, TTL=3600)
            answer = pb.LeaseGrantResponse(header=header, ID=count + 1, TTL=3600)
        elif kind == "delete":
            path, request = DELETE, pb.DeleteRangeRequest(key=key)
            old = state.pop(key, None)
            if old is not None:
                revision += 1
                gone = kv_pb2.KeyValue(key=key, mod_revision=revision)
                events.append(kv_pb2.Event(type=kv_pb2.Event.DELETE, kv=gone, prev_kv=old))
            answer = pb.DeleteRangeResponse(header=header, deleted=int(old is not None))
        else:
            revision += 1
            old = state.get(key)
            value = b"%064d" % count
            new = kv_pb2.KeyValue(
                key=key, value=value, mod_revision=revision, version=old.version + 1 if old else 1,
                create_revision=old.create_revision if old else revision,
            )  # fmt: skip
            state[key] = new
            events.append(kv_pb2.Event(kv=new, prev_kv=old))
            if kind == "put":
                path, request, answer = PUT, pb.PutRequest(key=key, value=value), pb.PutResponse(header=header)
            else:
                mod = old.mod_revision if old else 0
                path = TXN
                request = pb.TxnRequest(
                    compare=[pb.Compare(target=pb.Compare.MOD, key=key, mod_revision=mod)],
                    success=[pb.RequestOp(request_put=pb.PutRequest(key=key, value=value))],
                    failure=[pb.RequestOp(request_range=pb.RangeRequest(key=key))],
                )
                part = pb.ResponseOp(response_put=pb.PutResponse(header=pb.ResponseHeader(revision=revision)))
                answer = pb.TxnResponse(header=header, succeeded=True, responses=[part])
        answer.header.revision = revision
        sent, came = request.SerializeToString(), answer.SerializeToString()
        writer.operation(path, count & 63, at, at, at + 5000, Outcome.OK, sent, came)
        if events:
            for number, each in enumerate(MEMBERS):
                head = pb.ResponseHeader(cluster_id=1 << 63, member_id=each, revision=revision, raft_term=2)
                seen = pb.WatchResponse(header=head, events=events)
                watcher.watch_received(number, at + 6000, seen.SerializeToString())
    everything = pb.RangeRequest(key=PREFIX, range_end=end, serializable=True)
    kvs = [state[key] for key in sorted(state)]
    writer.set_final()
    for number, member in enumerate(MEMBERS):
        header = pb.ResponseHeader(cluster_id=1 << 63, member_id=member, revision=revision, raft_term=2)
        head = pb.ResponseHeader(cluster_id=1 << 63, member_id=member, revision=revision)
        watcher.watch_received(number, at + 7000, pb.WatchResponse(header=head).SerializeToString())
        ended = (at + 10_000, at + 10_000, at + 20_000, Outcome.OK)
        status = pb.StatusResponse(header=header, raftAppliedIndex=1)
        hashed = pb.HashKVResponse(header=header, hash=1, compact_revision=-1)
        asked = pb.HashKVRequest(revision=revision).SerializeToString()
        keys = pb.RangeResponse(header=header, kvs=kvs, count=len(kvs))
        writer.operation(b"/etcdserverpb.Maintenance/Status", 0, *ended, b"", status.SerializeToString())
        writer.operation(b"/etcdserverpb.Maintenance/HashKV", 0, *ended, asked, hashed.SerializeToString())
        writer.operation(RANGE, 0, *ended, everything.SerializeToString(), keys.SerializeToString())
    writer.close()
    watcher.close()


MEASURE = """
import json, resource, sys
from pathlib import Path
from time import perf_counter
began = perf_counter()
from loadgen.check.report import judged
document = judged(Path(sys.argv[1]))
took = perf_counter() - began
bad = [row for row in document["guarantees"] if row["verdict"] not in ("pass", "skip") and row["name"][:4] != "raft"]
used = resource.getrusage(resource.RUSAGE_SELF)
cpu = used.ru_utime + used.ru_stime
print(json.dumps({"seconds": took, "cpu": cpu, "mib": used.ru_maxrss / 1024, "bad": bad}))
"""


def main() -> None:
    """Make the histories, check each in a fresh process, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--keep", type=Path, help="keep the histories in this folder, and use those that are there")
    args = parser.parse_args()
    heads = ("operations", "seconds", "CPU s", "us/op", "us/op/log2", "peak MiB", "history MiB")
    print(" ".join(f"{head:>11}" for head in heads))
    with tempfile.TemporaryDirectory() as scratch:
        for operations in args.operations:
            folder = (args.keep or Path(scratch)) / str(operations)
            if not folder.exists():
                folder.mkdir(parents=True)
                began = perf_counter()
                make(folder, operations)
                print(f"made {operations:,} operations in {perf_counter() - began:.0f} s", file=sys.stderr)
            size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
            done = subprocess.run(
                [sys.executable, "-c", MEASURE, str(folder)], check=True, capture_output=True, text=True
            )
            found = json.loads(done.stdout)
            if found["bad"]:
                raise SystemExit(f"the check found fault with a healthy history: {found['bad'][0]}")
            each = found["cpu"] / operations * 1e6
            row = (
                f"{operations:,}", f"{found['seconds']:.2f}", f"{found['cpu']:.2f}", f"{each:.2f}",
                f"{each / math.log2(operations):.3f}", f"{found['mib']:.0f}", f"{size:.0f}",
            )  # fmt: skip
            print(" ".join(f"{cell:>11}" for cell in row), flush=True)


if __name__ == "__main__":
    main()
