"""members.csv and metrics.csv, read again: windows, restarts, leaders."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.observe import record
from cluster.observe.following import Following
from cluster.observe.observer import MEMBER_COLUMNS, METRIC_COLUMNS

RECORDED = Path(__file__).parents[1] / "data" / "runs" / "leader-killed"
T0 = "2026-01-02T03:04:0"


def write(folder: Path, polls: list[str], scrapes: list[str]) -> Path:
    (folder / "members.csv").write_text("\n".join([",".join(MEMBER_COLUMNS), *polls]) + "\n")
    (folder / "metrics.csv").write_text("\n".join([",".join(METRIC_COLUMNS), *scrapes]) + "\n")
    return folder


def silent(second: int, member: str) -> str:
    return f"{T0}{second}.000+00:00,1,{member},0,,,,,,,,,,,,connection refused"


def scrape(second: int, member: str, phase: str, started: int, fsync: str, failed: int = 0) -> str:
    known = {
        "time": f"{T0}{second}.000+00:00", "monotonic_ns": 1, "member": member, "phase": phase, "started_at": started,
        "rss_bytes": 1000, "proposals_failed": failed, "wal_fsync": fsync, "backend_commit": fsync,
    }  # fmt: skip
    return ",".join(str(known.get(column, "")) for column in METRIC_COLUMNS)


def test_an_interval_goes_on_over_a_restart(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        [f"{T0}1.000+00:00,1,n1,1,leader,n1,2,10,10,5,4096,0.5,0.2,0.1,0.2,"],
        [
            scrape(1, "n1", "before", 100, "0.001:90 0.002:90 inf:90"),
            scrape(2, "n1", "", 100, "0.001:100 0.002:100 inf:100", 3),
            scrape(4, "n1", "", 200, "0.001:0 0.002:30 inf:30", 1),
            scrape(5, "n1", "end", 200, "0.001:0 0.002:40 inf:40", 2),
            scrape(6, "n1", "after", 200, "0.001:0 0.002:40 inf:41", 9),
        ],
    )
    summary = record.summary(record.read(folder))
    (row,) = summary["observed"]
    assert row["restarts"] == 1
    # 10 before the restart, 30 and 10 after it.
    assert row["wal_fsyncs"] == {"before": 90, "during": 50, "after": 1}
    assert row["proposals_failed"] == 3 + 1 + 1
    # 40 of 50 lie between 1 and 2 ms: rank 49.5 is 39.5 of these 40.
    assert row["wal_fsync_p99_ms"]["during"] == round(1 + 39.5 / 40, 3)
    assert row["wal_fsync_p99_ms"]["after"] == 2.0
    assert summary["backend_commit_p99_ms"] == row["backend_commit_p99_ms"]


def test_silence_is_unknown_and_not_zero(tmp_path: Path) -> None:
    folder = write(tmp_path, [silent(1, "n2"), f"{T0}2.000+00:00,1,n1,1,leader,n1,2,10,10,5,4096,0.5,0.2,0.1,0.2,"], [])
    found = record.read_polls(folder)
    assert [(each.member, each.answers, each.term, each.applied_index, each.reason) for each in found] == [
        ("n2", False, None, None, "connection refused"), ("n1", True, 2, 10, ""),
    ]  # fmt: skip
    rows = {row["name"]: row for row in record.summary(record.read(folder))["observed"]}
    assert rows["n2"]["db_size_last"] is None
    assert rows["n2"]["wal_fsync_p99_ms"] == {"before": None, "during": None, "after": None}
    assert rows["n2"]["unanswered"] == 1


def test_leader_changes_are_elections_won(tmp_path: Path) -> None:
    rows = [
        f"{T0}{second}.000+00:00,1,{member},1,{role},,{term},10,10,5,4096,0.5,0.2,0.1,0.2,"
        for second, member, role, term in (
            (1, "n1", "leader", 2), (2, "n2", "no leader", 2), (3, "n2", "leader", 5), (4, "n1", "follower", 5),
            (5, "n2", "leader", 6),
        )
    ]  # fmt: skip
    assert record.leader_changes(record.read_polls(write(tmp_path, rows, []))) == 2
    assert record.leader_changes([]) is None


def test_a_row_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    folder = write(tmp_path, [f"{T0}1.000+00:00,1,n1,1,leader,n1,2,10,10,5,4096,0.5,0.2,0.1,0.2,"], [])
    with (folder / "members.csv").open("a") as file:
        file.write(f"{T0}2.000+00:00,1,n1,1,lea")
    assert len(record.read_polls(folder)) == 1


def test_what_an_older_raftload_did_not_read_is_unknown() -> None:
    """Its columns are not there; the rows are."""
    scrapes = record.read_scrapes(RECORDED)
    assert {name: len(of_member) for name, of_member in scrapes.items()} == {
        "etcd-node1": 9, "etcd-node2": 6, "etcd-node3": 9,
    }  # fmt: skip
    for each in scrapes["etcd-node1"]:
        assert "wal_fsync" in each.metrics.histograms and "apply" not in each.metrics.histograms
        assert "db_in_use" in each.metrics.values and "puts" not in each.metrics.values
    assert record.growth(scrapes["etcd-node1"], "puts") is None
    assert record.between(scrapes["etcd-node1"], "apply") is None


def test_seconds_are_not_rounded(tmp_path: Path) -> None:
    begin, end = (
        scrape(second, "n1", "", 100, "").replace(",1000,", f",{value},") for second, value in ((1, 0.25), (2, 1.5))
    )
    scrapes = record.read_scrapes(write(tmp_path, [], [begin, end]))["n1"]
    assert record.growth(scrapes, "rss_bytes") == 1.25
    assert record.grown(scrapes, "rss_bytes") == 1


def test_a_folder_without_them_says_nothing(tmp_path: Path) -> None:
    assert record.summary(record.read(tmp_path)) == {}
    assert record.read_scrapes(tmp_path) == {}


def test_who_follows_a_run_sees_each_whole_row_once(tmp_path: Path) -> None:
    following = Following(tmp_path)
    following.look()
    assert following.members == {}  # nothing is written yet

    led = f"{T0}1.000+00:00,1,n1,1,leader,n1,2,10,10,5,4096,0.5,0.2,0.1,0.2,"
    write(tmp_path, [led, silent(1, "n2")], [scrape(1, "n1", "before", 100, "0.001:90 0.002:90 inf:90")])
    following.look()
    assert following.members["n1"].poll.answers and following.members["n1"].wal_fsync_p99_s is None
    assert following.members["n2"].answered is None

    with (tmp_path / "members.csv").open("a") as file:
        file.write(f"{silent(2, 'n1')}\n{T0}2.000+00:00,1,n2,1,leader,n2,3")
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write(scrape(3, "n1", "", 100, "0.001:90 0.002:100 inf:100") + "\n")
    following.look()
    seen = following.members["n1"]
    assert (seen.poll.answers, seen.answered and seen.answered.term) == (False, 2)
    assert seen.wal_fsync_p99_s == pytest.approx(0.00199)
    assert (following.members["n2"].answered, following.leader_changes) == (None, 0)

    with (tmp_path / "members.csv").open("a") as file:
        file.write(",10,10,5,4096,0.5,0.2,0.1,0.2,\n")
    following.look()
    assert (following.members["n2"].poll.term, following.leader_changes) == (3, 1)


def test_of_much_that_nobody_looked_at_the_end_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, [silent(1, f"n{number}") for number in range(100)], [])
    tail = record.polls_tail(tmp_path)
    monkeypatch.setattr(record.Tail, "MOST_BYTES", 500)
    found = [poll.member for poll in tail.rows()]
    assert 1 < len(found) < 20 and found[-1] == "n99"
    assert tail.rows() == []
