"""The peers that we measure ourselves against: one function each, CPU per operation and rate out.

Every peer sends the same message the same number of times over as many connections x streams as asked, to one
member, and is charged the user and system time of its whole process less that of a run of a hundredth of
the size, so that start-up does not count.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from loadgen import encode
from loadgen.etcd import PUT, RANGE, TXN

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
    """What an operation cost a client: microseconds of CPU, and operations per second."""

    cpu_us: float
    ops_s: float


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


def h2load(endpoint: str, f: str, operations: int, connections: int, streams: int) -> Cost:
    """nghttp2's h2load, in C: a floor, since it neither decodes the answer nor looks at its status."""
    path, message = MESSAGES[f]
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"\0" + len(message).to_bytes(4, "big") + message)
        body.flush()

        def run(count: int) -> tuple[float, str]:
            return measured(
                ["h2load", "-n", str(count), "-c", str(connections), "-m", str(streams), "-d", body.name,
                 "-H", "content-type: application/grpc", "-H", "te: trailers", f"{endpoint}{path.decode()}"]
            )  # fmt: skip

        idle, _ = run(max(connections, operations // 100))
        cpu, text = run(operations)
    finished = next(line for line in text.splitlines() if line.startswith("finished in"))
    if f"{operations} succeeded" not in text:
        raise RuntimeError(text)
    return Cost((cpu - idle) / operations * 1e6, float(finished.split()[3]))


def grpcio(endpoint: str, f: str, operations: int, connections: int, streams: int) -> Cost:
    """Google's grpcio with its asyncio API, in a process of its own; it decodes the answer with protobuf."""
    program = [sys.executable, "-m", "tests.bench.grpcio_client", endpoint, f]
    _, text = measured([*program, str(operations), str(connections), str(streams)], cwd=str(ROOT))
    answer = json.loads(text)
    return Cost(answer["cpu_s"] / operations * 1e6, answer["ops_s"])


def raftload(endpoint: str, f: str, operations: int, connections: int, streams: int, *, folder: str) -> Cost:
    """Us, as users run us: one worker of `raftload bench`, everything that Locust does included.

    The CPU is the worker's own from its first measured operation to its last, as the result reports it.
    """
    _, text = measured(
        [sys.executable, "-m", "loadgen.cli", "bench", "--scenario", f, "--operations", str(operations),
         "--concurrency", str(connections * streams), "--workers", "1", "--connections", str(connections),
         "--key-space", "1000", "--endpoints", endpoint,
         "--output", str(Path(folder, f"{f}-{os.urandom(4).hex()}")), "--json"]
    )  # fmt: skip
    result = json.loads(text)
    return Cost(result["generator"]["cpu_us_per_op"], result["results"]["total"]["throughput_ops_s"])
