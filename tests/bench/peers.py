"""The peers that we measure ourselves against: one function each, CPU per operation and rate out.

Every peer sends the same message the same number of times over as many connections x streams as asked, to one
member, and is charged the user and system time of its whole process less that of a run of a hundredth of
the size, so that start-up does not count.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from loadgen.client import encode
from loadgen.client.etcd import PUT, RANGE, TXN

ROOT = Path(__file__).resolve().parents[2]
KEY = b"bench/" + b"0" * 26
VALUE = b"v" * 64
MESSAGES = {
    "get": (RANGE, encode.get(KEY, False, 0)),
    "put": (PUT, encode.put(KEY, VALUE, 0)),
    "txn": (TXN, encode.cas(KEY, VALUE, 0)),
}


@dataclasses.dataclass(frozen=True)
class Cost:
    """What an operation cost a client: microseconds of CPU; operations per second; latencies in milliseconds, 0 where
    they were not measured.
    """

    cpu_us: float
    ops_s: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0


def measured(command: list[str], cwd: str | None = None) -> tuple[float, str]:
    """Run a command; return its user plus system time in seconds, and its stdout."""
    with tempfile.TemporaryFile("w+") as out:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, cwd=cwd, env=environment)
        assert process.stderr is not None
        errors = process.stderr.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 3):
            raise RuntimeError(f"{command[0]} failed with {process.returncode}: {errors}")
        out.seek(0)
        return usage.ru_utime + usage.ru_stime, out.read()


def h2load(endpoint: str, f: str, operations: int, connections: int, streams: int, *, latency: bool = False) -> Cost:
    """nghttp2's h2load, in C: a floor, since it neither decodes the answer nor looks at its status.

    Its latencies come from a run of their own, since writing them down costs it CPU.
    """
    path, message = MESSAGES[f]
    with tempfile.NamedTemporaryFile() as body, tempfile.NamedTemporaryFile("r") as log:
        body.write(b"\0" + len(message).to_bytes(4, "big") + message)
        body.flush()

        def run(count: int, *more: str) -> tuple[float, str]:
            return measured(
                ["h2load", *more, "-n", str(count), "-c", str(connections), "-m", str(streams), "-d", body.name,
                 "-H", "content-type: application/grpc", "-H", "te: trailers", f"{endpoint}{path.decode()}"]
            )  # fmt: skip

        idle, _ = run(max(connections, operations // 100))
        cpu, text = run(operations)
        if latency:
            run(max(connections * streams, operations // 2), f"--log-file={log.name}")
        times = sorted(int(line.split("\t")[2]) / 1e3 for line in log)
    finished = next(line for line in text.splitlines() if line.startswith("finished in"))
    if f"{operations} succeeded" not in text:
        raise RuntimeError(text)
    p50, p99 = (times[int(share * (len(times) - 1))] if times else 0.0 for share in (0.5, 0.99))
    return Cost((cpu - idle) / operations * 1e6, float(finished.split()[3]), p50, p99)


def grpcio(endpoint: str, f: str, operations: int, connections: int, streams: int) -> Cost:
    """Google's grpcio with its asyncio API, in a process of its own; it decodes the answer with protobuf."""
    program = [sys.executable, "-m", "tests.bench.grpcio_client", endpoint, f]
    _, text = measured([*program, str(operations), str(connections), str(streams)], cwd=str(ROOT))
    return _said(text, operations)


def go_benchmark(endpoint: str, f: str, operations: int, connections: int, streams: int) -> Cost:
    """etcd's own ``benchmark``, in Go, which ``.ci/etcds --benchmark`` builds and RAFTLOAD_ETCD_BENCHMARK names.

    Its transactions are one put without a comparison, so a little less than ours.
    """
    size = ["--key-size", str(len(KEY)), "--val-size", str(len(VALUE)), "--key-space-size", "1000"]
    asked = {"get": ["range", KEY.decode()], "put": ["put", *size], "txn": ["txn-put", *size]}[f]
    command = [os.environ["RAFTLOAD_ETCD_BENCHMARK"], "--endpoints", endpoint, "--conns", str(connections),
               "--clients", str(connections * streams), *asked, "--total"]  # fmt: skip
    idle, _ = measured([*command, str(max(connections * streams, operations // 100))])
    cpu, text = measured([*command, str(operations)])
    found = {name: float(value) for name, value in re.findall(r"(Requests/sec|50%|99%)[:\s in]+([0-9.]+)", text)}
    return Cost(
        (cpu - idle) / operations * 1e6, found["Requests/sec"], found["50%"] * 1e3, found["99%"] * 1e3
    )  # fmt: skip


def gateway(name: str, endpoint: str, f: str, operations: int, users: int) -> Cost:
    """Return a client of the JSON gateway, see ``gateway_clients``."""
    program = [sys.executable, "-m", "tests.bench.gateway_clients", name, endpoint, f]
    _, text = measured([*program, str(operations), str(users)], cwd=str(ROOT))
    return _said(text, operations)


def _said(text: str, operations: int) -> Cost:
    answer = json.loads(text)
    return Cost(answer["cpu_s"] / operations * 1e6, answer["ops_s"], answer["p50_ms"], answer["p99_ms"])


def raftload(endpoint: str, f: str, operations: int, connections: int, streams: int, *more: str, folder: str) -> Cost:
    """Us, as users run us: one worker of `raftload bench` unless ``more`` of its options say otherwise, everything that
    Locust does included.

    The CPU is the worker's own from its first measured operation to its last, as the result reports it.
    """
    _, text = measured(
        [sys.executable, "-m", "loadgen.cli", "bench", "--scenario", f, "--operations", str(operations),
         "--concurrency", str(connections * streams), "--workers", "1", "--connections", str(connections),
         "--key-space", "1000", "--endpoints", endpoint,
         "--output", str(Path(folder, f"{f}-{os.urandom(4).hex()}")), "--json", *more]
    )  # fmt: skip
    result = json.loads(text)
    total = result["results"]["total"]
    if total["failed"]:
        raise RuntimeError(f"{total['failed']} operations failed: {total['errors']}")
    latency = total["latency"]
    return Cost(result["generator"]["cpu_us_per_op"], total["throughput_ops_s"], latency["p50_ms"], latency["p99_ms"])
