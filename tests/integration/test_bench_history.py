"""`raftload bench --history`: what either engine records of a real etcd, and what `raftload check` says of it."""

from __future__ import annotations

import contextlib
import json
import signal
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.local.cluster import LocalCluster
from loadgen.history.format import BLOCK, MAGIC, OK, Kind, Method
from loadgen.history.reader import COLUMNS, History, read
from loadgen.load.worker_run import MAX_USERS_PER_WORKER
from loadgen.proto import etcd_pb2 as pb
from tests.support.command import refusal, run, start, until_load
from tests.support.waiting import HANG_S

OPERATIONS = 400
ENGINES = ("python", "compiled")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """The engine that a run is asked for."""
    if request.param == "compiled":
        pytest.importorskip("loadgen.engine.core", reason="the compiled core was not built")
    return str(request.param)


def bench(folder: Path, cluster: LocalCluster, engine: str, *flags: str) -> dict[str, Any]:
    """Return the result of a run of 400 operations in the folder ``run``, with its history."""
    at = ("--endpoints", ",".join(cluster.endpoints), "--engine", engine)
    done = run(
        "bench", *at, "--history", "--json", "--output", "run", "--key-space", "50", "--timeout", "60s", *flags,
        "--operations", str(OPERATIONS), cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["generator"]["engine"] == engine
    assert any("raftload check" in note for note in result["notes"])
    return result


def check(folder: Path, code: int) -> dict[str, dict[str, Any]]:
    """Return what `raftload check` says of each guarantee."""
    done = run("check", str(folder), "--json", cwd=folder)
    assert done.returncode == code, done.stdout + done.stderr
    return {each["name"]: each for each in json.loads(done.stdout)["guarantees"]}


def of_users(history: History) -> Any:
    """Return the rows of what the load's users did."""
    rows = history.rows
    return np.flatnonzero((rows["kind"] == Kind.OPERATION) & (rows["process"] > 0))


@pytest.mark.parametrize("flags", [(), ("--rate", "400"), ("--warmup", "0.3s")], ids=["closed", "open", "warmup"])
def test_every_operation_is_recorded_and_the_check_passes(
    tmp_path: Path, etcd_cluster: LocalCluster, engine: str, flags: tuple[str, ...]
) -> None:
    result = bench(tmp_path, etcd_cluster, engine, *flags)
    history = read(tmp_path / "run")
    rows = history.rows[of_users(history)]
    warm = sum(result["run"]["warmup"].values())
    assert len(rows) == OPERATIONS + warm
    assert set(rows["outcome"].tolist()) == {OK}
    assert (rows["due_ns"] <= rows["call_ns"]).all()
    assert (rows["due_ns"] < rows["call_ns"]).any() == ("--rate" in flags)
    assert (rows["call_ns"] < rows["return_ns"]).all()
    assert {history.endpoint(row) for row in of_users(history)} == set(etcd_cluster.endpoints)
    processes = set(rows["process"].tolist())
    assert {process // MAX_USERS_PER_WORKER for process in processes} == {0, 1}
    if not warm:
        counts = Counter(rows["method"].tolist())
        each = {Method.PUT: "put", Method.RANGE: "get", Method.TXN: "txn"}
        assert {f: counts[method] for method, f in each.items()} == {
            f: result["results"][f]["operations"] for f in each.values()
        }
    said = check(tmp_path / "run", 0)
    for name in ("kv.reads", "kv.real-time", "durability.acknowledged", "convergence.keys", "txn.compares"):
        assert said[name]["verdict"] == "pass", said[name]
    assert said["kv.reads"]["judged"] >= result["results"]["get"]["operations"]


def test_an_altered_answer_is_found(tmp_path: Path, etcd_cluster: LocalCluster, engine: str) -> None:
    bench(tmp_path, etcd_cluster, engine)
    alter_a_read(next((tmp_path / "run" / "history").glob("worker-*.hist")))
    said = check(tmp_path / "run", 1)
    assert said["kv.reads"]["broken"] == 1
    assert [name for name, each in said.items() if each["verdict"] == "fail"] == ["kv.reads"]


def alter_a_read(path: Path) -> None:
    """Change a byte of the value that a user's read was answered with."""
    data = bytearray(path.read_bytes())
    at = len(MAGIC)
    while at < len(data):
        magic, count, size, _ = BLOCK.unpack_from(data, at)
        first = at + BLOCK.size
        start = first + count * COLUMNS.itemsize
        place = start
        for row in np.frombuffer(bytes(data[first:start]), COLUMNS):
            middle, end = place + row["request_size"], place + row["request_size"] + row["response_size"]
            if row["kind"] == Kind.OPERATION and row["method"] == Method.RANGE and row["process"] > 0:
                answer = pb.RangeResponse.FromString(bytes(data[middle:end]))
                value = answer.kvs[0].value
                answer.kvs[0].value = b"?" + value[1:]
                data[middle:end] = answer.SerializeToString()
                crc = zlib.crc32(data[first : start + size])
                BLOCK.pack_into(data, at, magic, count, size, crc)
                path.write_bytes(data)
                return
            place = int(end)
        at = start + size
    raise AssertionError(f"no user has read anything: {path}")


def test_a_run_that_is_interrupted_leaves_a_whole_history(
    tmp_path: Path, etcd_cluster: LocalCluster, engine: str
) -> None:
    at = ("--endpoints", ",".join(etcd_cluster.endpoints), "--engine", engine, "--timeout", "60s")
    process = start("bench", *at, "--history", "--json", "--output", "run", "--duration", "1h", cwd=tmp_path)
    until_load(process, tmp_path / "run")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=HANG_S)
    assert process.returncode == 130, err
    history = read(tmp_path / "run")
    assert not history.cut
    assert len(of_users(history)) == json.loads(out)["results"]["total"]["operations"]
    check(tmp_path / "run", 0)


def test_a_full_disk_ends_the_load(
    tmp_path: Path, etcd_cluster: LocalCluster, small_disk: Callable[[str], Path], engine: str
) -> None:
    """The result is printed, and the history is known to be cut."""
    folder = small_disk("4m") / "run"
    at = ("--endpoints", ",".join(etcd_cluster.endpoints), "--engine", engine, "--timeout", "60s")
    process = start("bench", *at, "--history", "--json", "--output", str(folder), "--duration", "1h", cwd=tmp_path)
    until_load(process, folder)
    with contextlib.suppress(OSError), (folder.parent / "other").open("wb", buffering=0) as other:
        while True:
            other.write(bytes(4096))
    out, err = process.communicate(timeout=HANG_S)
    assert process.returncode == 4, err
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("raftload: error: ")]
    assert line.endswith("No space left on device")
    assert json.loads(out)["results"]["total"]["operations"] > 0
    said = check(folder, 3)
    assert "fail" not in {each["verdict"] for each in said.values()}


def test_reads_alone_leave_nothing_unknown(tmp_path: Path, etcd_cluster: LocalCluster) -> None:
    bench(tmp_path, etcd_cluster, "python", "--mix", "get=1")
    said = check(tmp_path / "run", 0)
    assert said["kv.writes"]["verdict"] == "skip"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--transport", "gateway"), "--history is for --transport grpc"),
        (("--expect-workers", "2"), "workers on this machine"),
        (("--key-space", "100000", "--value-size", "4KiB"), "give a smaller --key-space or --value-size"),
    ],
)
def test_what_cannot_be_recorded_is_refused(
    capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], words: str
) -> None:
    done = refusal(capsys, "bench", "--history", *flags)
    assert words in done.stderr
