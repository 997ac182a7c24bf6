"""`raftload ab` on real etcd processes: a delay is found, both sides are what they were told to be, nothing stays."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path

import pytest

from cluster.local.cluster import LocalCluster
from loadgen.ab.sign_flips import FEWEST
from tests.support import command
from tests.support.relay import relay
from tests.support.waiting import until

DELAY_S = 0.02
SHORT = ("--operations", "60", "--warmup", "0", "--workers", "1", "--key-space", "10")


def test_a_delay_is_found_and_told_in_all_forms(etcd_single: LocalCluster, tmp_path: Path) -> None:
    endpoint, summary = etcd_single.endpoints[0], tmp_path / "summary.md"
    with relay(endpoint, DELAY_S) as late:
        done = command.run(
            "ab", "--endpoints", endpoint, "--endpoints", late, "--pairs", str(FEWEST + 1), *SHORT,
            "--figure", "*.p50_ms", "--json", "--junit", "ab.xml", "--output", "ab",
            cwd=tmp_path, GITHUB_STEP_SUMMARY=str(summary),
        )  # fmt: skip
    assert done.returncode == 1, done.stderr
    document = json.loads(done.stdout)
    assert document["verdict"] == "slower"
    assert document["differences"] == {"endpoints": [endpoint, late]}
    figures = {row["name"]: row for row in document["figures"]}
    assert set(figures) == {f"{f}.p50_ms" for f in ("put", "get", "txn", "total")}
    assert figures["total.p50_ms"]["new"] - figures["total.p50_ms"]["base"] > 0.5 * DELAY_S * 1e3
    assert f"pair {FEWEST + 1} of {FEWEST + 1}: NEW total.p50_ms " in done.stderr
    assert 'failures="' in (tmp_path / "ab.xml").read_text()
    assert "slower" in summary.read_text()
    assert "slower" in (tmp_path / "ab" / "report.html").read_text()

    again = command.run("report", "ab", "--json", "--html", cwd=tmp_path)
    assert (again.returncode, json.loads(again.stdout)) == (0, document), again.stderr
    turn = command.run("report", "ab/new/001", "--json", cwd=tmp_path)
    assert json.loads(turn.stdout)["results"]["total"]["operations"] == 60
    assert json.loads((tmp_path / "ab/base/001/run.json").read_text())["seed"] == 2


def test_each_pair_has_two_clusters_as_they_were_told(tmp_path: Path, wheel_etcd: str, fixed_etcd: str) -> None:
    etcds = ("--etcd", wheel_etcd, "--etcd", fixed_etcd)
    words = ("ab", "--nodes", "1", *etcds, "--concurrency", "2", "--concurrency", "5")
    done = command.run(*words, "--pairs", "2", *SHORT, "--output", "ab", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert f"cannot tell: {FEWEST - 2} more pairs\n" in done.stdout
    with (tmp_path / "ab" / "turns.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted((row["pair"], row["side"]) for row in rows) == [
        (str(n), side) for n in range(3) for side in ("base", "new")
    ]
    assert {row["operations"] for row in rows} == {"60"}
    runs = {row["run"]: json.loads((tmp_path / "ab" / row["run"] / "run.json").read_text()) for row in rows}
    for row in rows:
        assert runs[row["run"]]["users"] == (2 if row["side"] == "base" else 5)
        assert row["etcd_version"] == runs[row["run"]]["target"]["etcd_version"]
    assert len({(row["side"], row["etcd_version"]) for row in rows}) == 2
    clusters = {each["target"]["members"][0]["endpoint"] for each in runs.values()}
    assert len(clusters) == len(rows), "a pair has not two new clusters"


def test_ctrl_c_ends_the_turn_and_what_was_measured_is_judged(etcd_single: LocalCluster, tmp_path: Path) -> None:
    words = ("ab", "--endpoints", etcd_single.endpoints[0], "--connections", "1", "--connections", "2")
    log = tmp_path / "ab" / "turns.csv"
    with command.start(*words, "--pairs", "500", *SHORT, "--json", "--output", "ab", cwd=tmp_path) as process:
        until(lambda: log.exists() and len(log.read_text().splitlines()) > 2 * (FEWEST + 2), 120)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    document = json.loads(out)
    pairs = len(document["base"]["runs"])
    assert FEWEST <= pairs < 500 and len(document["new"]["runs"]) == pairs
    assert document["warnings"][0] == f"ended by SIGINT after {pairs} of 500 pairs"
    assert document["differences"] == {"connections": ["1", "2"]}
    # Each turn has removed its keys, also the one that was cut short.
    assert all(row["interval"] is not None for row in document["figures"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--pairs", "0"), "--pairs must be at least 1, not 0"),
        (("--within", "0"), "--within: '0' is not a share above 0 and below 1, such as 5% or 0.05"),
        (("--turn", "2s", "--operations", "5"), "--turn excludes --operations, --stages, --step"),
        (("--endpoints", "127.0.0.1:1", "--etcd", "3.5.30"), "--etcd and --endpoints exclude each other"),
        (("--mix", "put=1", "--mix", "put=x"), "--mix: 'x' in mix 'put=x' is not a weight"),
        (("--junit", "."), "--junit . is a folder; name a file"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(
    words: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = command.refusal(capsys, "ab", *words, "--output", str(tmp_path / "ab"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"raftload: error: {said}") and done.stderr.count("\n") == 1
    assert not (tmp_path / "ab").exists()


def test_a_pattern_that_is_no_figures_is_refused_after_the_first_pair(
    etcd_single: LocalCluster, tmp_path: Path
) -> None:
    words = ("ab", "--endpoints", etcd_single.endpoints[0], "--figure", "put.p77_ms", *SHORT)
    done = command.run(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert "raftload: error: no figure of a turn is called 'put.p77_ms'; there are put.p50_ms, " in done.stderr
