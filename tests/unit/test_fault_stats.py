"""The effect of a fault on the load, by a recorded history."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cluster.schema.rounds import failures
from cluster.schema.run_documents import Result
from loadgen.chaos import fault_stats
from loadgen.chaos.fault_stats import FaultRound
from loadgen.check.evidence import Evidence
from loadgen.history.format import Kind
from loadgen.history.operation import Outcome
from loadgen.history.reader import Fault, History, read
from loadgen.history.writer import HistoryWriter
from loadgen.proto import etcd_pb2 as pb

HISTORY = Path(__file__).resolve().parents[1] / "data" / "histories" / "healthy-3.5.30"
S = 1_000_000_000


def test_a_fault_that_is_healed_after_the_load_has_no_load_after_it(tmp_path: Path) -> None:
    """Its rate was 0/s there, as if clients had not come back."""
    history = read(HISTORY)
    returns = np.sort(history.rows["return_ns"][history.rows["kind"] == Kind.OPERATION])
    end_ns = int(returns[-1])
    began_ns = int(returns[len(returns) // 2])
    fault_round = FaultRound(
        1, "kill-leader", "2026-01-02T03:04:05.000+00:00", began_ns=began_ns, effect_ns=began_ns + 1,
        healed_ns=end_ns + 3 * S, healthy_ns=end_ns + 5 * S,
    )  # fmt: skip
    (row,), _ = fault_stats.describe([fault_round], history, tmp_path, every_s=1.0, end_ns=end_ns)
    assert row["during"]["duration_s"] == round((end_ns - began_ns) / 1e9, 3)
    assert row["during"]["operations"] > 0
    assert (row["after"]["duration_s"], row["after"]["operations"], row["after"]["throughput_ops_s"]) == (0, 0, None)


PUT, RANGE = b"/etcdserverpb.KV/Put", b"/etcdserverpb.KV/Range"
COMPACTED, LEASE_GONE = (
    b"etcdserver: mvcc: required revision has been compacted",
    b"etcdserver: requested lease not found",
)
Asked = tuple[float, float, Outcome, bytes]


def recorded(folder: Path, *operations: Asked, read_at: int = 0, lease: int = 0) -> History:
    """Return a history of puts from one second to another, each with how it ended and the error's text."""
    writer = HistoryWriter(folder / "worker-1.hist", worker=1)
    for number, (called_s, returned_s, outcome, error) in enumerate(operations, 1):
        path, request = PUT, pb.PutRequest(key=b"k", value=b"%d" % number, lease=lease).SerializeToString()
        if read_at:
            path, request = RANGE, pb.RangeRequest(key=b"k", revision=read_at).SerializeToString()
        answer = pb.PutResponse(header=pb.ResponseHeader(revision=number, member_id=1)).SerializeToString()
        call, back = (round(second * S) for second in (called_s, returned_s))
        writer.operation(path, 1, call, call, back, outcome, request,
                         answer if outcome is Outcome.OK else error)  # fmt: skip
    writer.close()
    return read(folder)


def rounds(*times: tuple[float, float]) -> list[FaultRound]:
    """Return rounds that began and were healthy again at these seconds."""
    return [
        FaultRound(number, "kill-leader", "2026-01-02T03:04:05.000+00:00", began_ns=round(began * S),
                   healed_ns=round(healthy * S) - 1, healthy_ns=round(healthy * S))
        for number, (began, healthy) in enumerate(times, 1)
    ]  # fmt: skip


def test_a_faults_failures_never_stand_before_one(tmp_path: Path) -> None:
    """They stood where they returned: under `after`, and so once more under `before` of the next round."""
    history = recorded(
        tmp_path,
        (0.5, 0.6, Outcome.FAIL, b"one"),  # long before
        (9.0, 9.1, Outcome.OK, b""),
        (9.9, 10.5, Outcome.FAIL, b"open as the first fault begins"),
        (9.95, 10.6, Outcome.OK, b""),
        (11.9, 16.9, Outcome.INFO, b"DEADLINE_EXCEEDED"),  # of the first fault; it returns when the second is on
        (13.0, 13.1, Outcome.OK, b""),
        (13.5, 13.6, Outcome.FAIL, b"in peace"),
        (16.0, 16.2, Outcome.FAIL, b"of the second"),
        (18.0, 18.1, Outcome.OK, b""),
        (19.9, 20.4, Outcome.FAIL, b"open as the load ends"),
    )
    found, earlier = fault_stats.describe(
        rounds((10, 12), (15, 17)), history, tmp_path, every_s=5.0, end_ns=20 * S
    )  # fmt: skip
    windows = {
        (row["number"], name): (row[name]["operations"], row[name]["failed"], row[name]["unknown"])
        for row in found for name in ("before", "during", "after")
    }  # fmt: skip
    assert windows == {
        (1, "before"): (1, 0, 0), (1, "during"): (3, 1, 1), (1, "after"): (2, 1, 0),
        (2, "before"): (2, 1, 0), (2, "during"): (1, 1, 0), (2, "after"): (2, 1, 0),
    }  # fmt: skip
    assert earlier == {"operations": 2, "failed": 1, "unknown": 0}
    total = {"operations": 10, "failed": 6}
    result: Result = {"chaos": {"faults": found, "earlier": earlier}, "results": {"total": total}}  # type: ignore[typeddict-item]
    assert failures(result) == "6 operations failed: 1 before the first fault, 3 during faults, 2 after them"
    assert fault_stats.describe([], history, tmp_path, every_s=5.0, end_ns=20 * S) == (
        [], {"operations": 10, "failed": 5, "unknown": 1},
    )  # fmt: skip
    total["failed"] = 7
    assert failures(result).startswith("7 operations failed by the workers' counts, 6 by the history (")


def test_refusals_that_the_load_provokes_are_no_failures(tmp_path: Path) -> None:
    """The page said 0 failed above rounds with 29 failed."""
    for name, options, text in (
        ("past", {"read_at": 5}, COMPACTED), ("leased", {"lease": 7}, LEASE_GONE),
    ):  # fmt: skip
        (tmp_path / name).mkdir()
        asked: Asked = (11.0, 11.2, Outcome.FAIL, text)
        (row,), _ = fault_stats.describe(
            rounds((10, 12)), recorded(tmp_path / name, asked, **options), tmp_path, every_s=5.0, end_ns=20 * S
        )
        during = row["during"]
        assert (during["operations"], during["failed"], during["p50_ms"]) == (1, 0, 200.0), name
    (tmp_path / "put").mkdir()
    (row,), _ = fault_stats.describe(
        rounds((10, 12)), recorded(tmp_path / "put", asked), tmp_path, every_s=5.0, end_ns=20 * S
    )
    assert row["during"]["failed"] == 1, "nobody asked for an ended lease here"


def test_the_nearest_fault_is_the_last_that_began_before(tmp_path: Path) -> None:
    """It was the one nearest in time, also where that came later."""
    writer = HistoryWriter(tmp_path / "master.hist", worker=0)
    for name, began_s, healed_s in (("kill-leader", 1, 2), ("pause-random", 6, 7)):
        writer.marker("fault", began_s * S - S // 5, phase="begin", fault=name, members=[])
        writer.marker(
            "fault", began_s * S + S // 2, phase="effect", fault=name, members=["etcd-node2"], began_ns=began_s * S
        )
        writer.marker("fault", healed_s * S, phase="heal", fault=name, members=["etcd-node2"])
    writer.marker("fault", 9 * S, phase="begin", fault="isolate-leader", members=[])
    writer.close()
    history = recorded(
        tmp_path, (0.1, 0.2, Outcome.OK, b""), (5.0, 5.5, Outcome.OK, b""), (5.95, 6.1, Outcome.OK, b""),
        (9.5, 9.6, Outcome.OK, b""),
    )  # fmt: skip
    assert history.faults()[1:] == [
        Fault("pause-random", ("etcd-node2",), 6 * S, 7 * S), Fault("isolate-leader", (), 9 * S),
    ]  # fmt: skip
    evidence = Evidence(history)
    assert evidence.nearest_fault(1) is None, "nothing had been done"
    assert evidence.nearest_fault(2) == "kill-leader, etcd-node2 (0.900000 s to 1.900000 s)"
    assert evidence.nearest_fault(3) == "pause-random, etcd-node2 (5.900000 s to 6.900000 s)"
    assert evidence.nearest_fault(4) == "isolate-leader (8.900000 s to the end)"


def test_a_load_that_is_refused_for_what_actors_did_is_a_load(tmp_path: Path) -> None:
    refusals = (
        (Outcome.FAIL, b"etcdserver: user name is empty"), (Outcome.INFO, b"etcdserver: mvcc: database space exceeded"),
        (Outcome.INFO, b"DEADLINE_EXCEEDED"),
    )  # fmt: skip
    operations = [
        (1.0 + n / 30, 1.01 + n / 30, *refusals[kind]) for kind, count in enumerate((11, 10, 9)) for n in range(count)
    ]
    history = recorded(tmp_path, *operations)
    fault_round = FaultRound(1, "kill-leader", "2026-01-02T03:04:05.000+00:00", began_ns=2 * S, healthy_ns=3 * S)
    said = {}
    for actors in (False, True):
        (row,), _ = fault_stats.describe(
            [fault_round], history, tmp_path, every_s=1.0, end_ns=4 * S, actors=actors
        )  # fmt: skip
        said[actors] = row["reason"]
    assert said == {False: "0 acknowledged writes/s before it, 20 are needed", True: None}
