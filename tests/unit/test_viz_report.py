"""report.html of a recorded run with a leader kill: its figures, its gaps, what it may load; two runs side by side."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import shutil
import xml.dom.minidom
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.observe.timeline import Timeline
from cluster.schema.run_documents import CpuWait
from loadgen.result import document as results
from loadgen.stats import hdr
from tests.support.command import Run, assert_refused, called
from viz.report import chaos_sections, charts, compare, hlog, leadership, run_charts, rundata
from viz.report import page as report
from viz.report.charts import Axis, Chart, Line

RECORDED = Path(__file__).parent.parent / "data" / "runs" / "leader-killed"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the recorded run, with its result."""
    copy = Path(shutil.copytree(RECORDED, tmp_path / "leader-killed"))
    results.write(copy)
    return copy


@pytest.fixture
def data(folder: Path) -> rundata.RunData:
    return rundata.load(folder)


class Reader(HTMLParser):
    """The figures of a page by their fields, and every tag with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.figures: dict[str, tuple[str, str]] = {}
        self._field: tuple[str, str] | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "data":
            self._field = (str(found["data-field"]), str(found["value"]))

    def handle_data(self, data: str) -> None:
        if self._field is not None:
            self.figures[self._field[0]] = (self._field[1], data)
            self._field = None


def at(document: Any, field: str) -> Any:
    parts = field.split(".")
    for number, part in enumerate(parts):
        if part not in document:
            return document[".".join(parts[number:])]
        document = document[part]
    return document


def test_its_figures_are_those_of_the_result(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    figures = Reader(report.write(folder).read_text()).figures
    for f in ("put", "get", "txn", "total"):
        assert {f"results.{f}.operations", f"results.{f}.failed", f"results.{f}.latency.p99_ms"} <= set(figures)
    # 2,995 successes are needed for it, which only all types together have.
    assert {field for field in figures if field.endswith("p99_9_ms")} == {"results.total.latency.p99_9_ms"}
    assert not any(field.endswith("p99_99_ms") for field in figures)
    for field, (value, text) in figures.items():
        there = at(result, field)
        assert value == str(there)
        # The value is what the result has; the text has three digits that count.
        assert text == (f"{there:,}" if isinstance(there, int) else charts.significant(there))
        assert float(text.replace(",", "")) == pytest.approx(there, rel=0.005)


def test_it_loads_nothing_and_forbids_the_rest(folder: Path) -> None:
    html = report.write(folder).read_text()
    assert len(html.encode()) < 500_000
    page = Reader(html)
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base")
        assert not {"src", "href", "style", "onload", "onclick"} & set(attributes), (tag, attributes)
    policy = next(a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "http" not in policy


def test_the_drawings_are_well_formed_and_have_no_number_that_is_none(folder: Path) -> None:
    html = report.write(folder).read_text()
    drawings = re.findall(
        r"<svg class=\"(?:axis|area|ladder)\".*?</svg>(?=</?div|<svg class=\"area\"|</div>)", html, re.S
    )
    assert len(drawings) >= 15
    for drawing in drawings:
        xml.dom.minidom.parseString(drawing)
        assert not re.search(r"\b(nan|inf|None)\b", drawing)


def test_leadership_is_that_of_the_logs_and_silence_that_of_the_polls(data: rundata.RunData) -> None:
    rows = dict(leadership.rows(data))
    kinds = {
        name: [(each.kind, each.term) for each in periods if each.end - each.start > 0.2]
        for name, periods in rows.items()
    }
    assert kinds["etcd-node1"] == [("follower", 6), ("follower", 7)]
    assert kinds["etcd-node2"] == [("leader", 6), ("silent", None), ("follower", 7)]
    assert kinds["etcd-node3"] == [("follower", 6), ("leader", 7)]
    (fault,) = data.faults
    silent = next(each for each in rows["etcd-node2"] if each.kind == "silent")
    assert fault.kind == "kill"
    assert 0 <= silent.start - fault.begin < 0.5  # a poll is never further away
    assert fault.begin < silent.end < fault.end + 0.5


PERIODS = st.lists(
    st.builds(lambda at, long: leadership.Period(at, at + long, "leader", 1), st.integers(0, 30), st.integers(1, 9)),
    max_size=6,
)


@given(PERIODS, st.lists(st.integers(0, 40), max_size=8, unique=True))
def test_silence_is_laid_over_all_else(periods: list[leadership.Period], times: list[int]) -> None:
    marks = sorted(times)
    silent = [leadership.Period(a, b, "silent", None) for a, b in zip(marks[::2], marks[1::2], strict=False)]
    laid = leadership.laid_over(periods, silent)
    for at in range(45):
        below = sum(each.start <= at < each.end for each in periods)
        hidden = any(each.start <= at < each.end for each in silent)
        kinds = [each.kind for each in laid if each.start <= at < each.end]
        assert kinds == (["silent"] if hidden else ["leader"] * below)
    assert [each.start for each in laid] == sorted(each.start for each in laid)


def test_each_fault_ends_with_its_own_undo(folder: Path) -> None:
    lines = ["time,monotonic_ns,phase,fault,members,detail"]
    for number in range(3000):
        second, node = f"2026-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}", f"n{number % 2}"
        lines += [
            f"{second}.000+00:00,1,begin,pause,{node},",
            f"{second}.100+00:00,1,effect,pause,{node},paused {number}",
            f"{second}.900+00:00,1,begin,resume,{node},",
            f"{second}.950+00:00,1,effect,resume,{node},",
        ]
    (folder / "events.csv").write_text("\n".join(lines) + "\n")
    faults = rundata.load(folder).faults
    assert [each.text for each in faults] == [f"paused {number}" for number in range(3000)]
    assert {round(each.end - each.begin, 2) for each in faults} == {0.95}


def test_failures_of_the_time_in_which_a_fault_begins_are_of_it(data: rundata.RunData) -> None:
    """They stood under `before`, since their second had begun earlier."""
    begin = data.begin
    failed = {4: 7, 5: 8, 7: 9}
    seconds = [rundata.Interval(begin + at, 1.0, 10, failed.get(at, 0), 1.0, 1.0, 1.0) for at in range(10)]
    seconds[0] = dataclasses.replace(seconds[0], at=begin + 0.9, length_s=0.1)  # the load began within it
    tenths = [
        rundata.Interval(begin + at / 10, 0.1, 10, 7 * (at == 44) + 5 * (at == 46) + 9 * (at == 70), 1.0, 1.0, 1.0)
        for at in range(100)
    ]
    fault = rundata.Fault("kill", ("etcd-node1",), begin + 4.65, begin + 5.1, "kill: etcd-node1", 1)
    for series, parts in ((seconds, ("0", "15", "9")), (tenths, ("7", "5", "9"))):
        with_it = dataclasses.replace(data, series={"total": series}, latencies={}, faults=[fault])
        page = chaos_sections.faults(with_it)
        assert re.findall(
            r">(\d+)<", re.sub(r"</span> / (\d+)</td>", r"<i>\1</i>", page.partition("kill: etcd-node1")[2])
        ) == [*parts], page


def test_the_bands_of_faults_have_the_numbers_of_the_rounds(folder: Path) -> None:
    """A compaction is a round and no event, so those after it were one less on the charts than in the table."""
    begun = [row["time"] for row in Timeline(folder / "events.csv").read() if row["phase"] == "begin"]
    result = json.loads((folder / "result.json").read_text())
    at = datetime.fromisoformat(begun[0])
    window = {"duration_s": 1.0, "operations": 0, "failed": 0, "unknown": 0, "throughput_ops_s": None, "p50_ms": None,
              "p99_ms": None}  # fmt: skip
    row = {"fault": "compact", "members": [], "began_ns": 1, "effect_s": 0, "healed_s": 0, "healthy_s": 0,
           "leader": None, "term": None, "leaderless_s": None, "longest_gap_s": 0.1, "verdict": "pass", "reason": None,
           **dict.fromkeys(("before", "during", "after"), window)}  # fmt: skip
    result["chaos"] = {"faults": [
        {**row, "number": 1, "at": (at - timedelta(seconds=1)).isoformat()},
        {**row, "number": 2, "fault": "kill-leader", "at": at.isoformat()},
    ]}  # fmt: skip
    loaded = rundata.load(folder, result)
    assert loaded.faults[0].number == 2
    assert run_charts.bands(loaded)[0].mark == "2"


def test_without_logs_the_polls_say_who_led(folder: Path) -> None:
    shutil.rmtree(folder / "logs")
    data = rundata.load(folder)
    rows = dict(leadership.rows(data))
    assert [each.kind for each in rows["etcd-node2"] if each.end - each.start > 0.5] == ["leader", "silent", "follower"]
    assert "elections are not drawn" in report.render(data)


def test_what_is_left_out_of_the_logs_is_said(folder: Path) -> None:
    path = next(iter(sorted((folder / "logs").glob("*.log"))))
    path.write_text(f"not of etcd\n{path.read_text()}")
    missing = rundata.load(folder).missing
    assert any(f"{path}: left out 1 of " in each and each.endswith("line 1: not of etcd") for each in missing)


def test_of_very_many_changes_the_longest_are_drawn_and_a_note_says_so(
    data: rundata.RunData, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = sorted(each.end - each.start for _, periods in leadership.rows(data) for each in periods)
    whole = run_charts.leaders(data)
    assert "left out" not in whole and whole.count("<rect ") >= len(lengths)
    monkeypatch.setattr(run_charts, "MOST_PERIODS", len(lengths) - 3)
    cut = run_charts.leaders(data)
    assert f"3 of {len(lengths)} periods are left out, none longer than {lengths[2]:.3f} s" in cut
    assert cut.count("<rect ") == whole.count("<rect ") - 3


def test_lag_is_not_drawn_over_the_silence_of_a_member(data: rundata.RunData) -> None:
    lines = {line.name: line for line in run_charts.lag_lines(data)}
    gaps = [x for x, y in lines["etcd-node2"].points if y is None]
    assert len(gaps) > 10
    assert not [y for x, y in lines["etcd-node2"].points if gaps[0] <= x <= gaps[-1] and y is not None]
    assert not [y for _, y in lines["etcd-node1"].points if y is None]
    path = re.search(
        r'class="line c?[abc]" d="([^"]*)"', run_charts.lag(data).split("line a", 1)[1].replace("path ", "", 1)
    )
    assert path is not None
    assert path.group(1).count("M") == 2  # before and after


@pytest.mark.parametrize(
    ("name", "gone", "said"),
    [
        ("series.csv", "Latency over time", "series.csv: latency and throughput over time are not drawn"),
        ("members.csv", "Replication lag", "the members were not polled"),
        ("metrics.csv", "WAL fsync p99, ms", ""),
        ("events.csv", "fault and effect", ""),
    ],
)
def test_what_is_missing_is_said_and_not_drawn(folder: Path, name: str, gone: str, said: str) -> None:
    assert gone in report.render(rundata.load(folder))
    (folder / name).unlink()
    html = report.render(rundata.load(folder, results.build(folder)))
    assert gone not in re.sub(r"<script.*?</script>", "", html, flags=re.S)
    assert said in html


@pytest.mark.parametrize("name", ["series.csv", "members.csv", "metrics.csv", "events.csv", "total.hlog"])
def test_a_file_that_was_cut_short_is_read_as_far_as_it_goes(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    for share in (0.3, 0.6, 0.9):
        (folder / name).write_bytes(whole[: int(len(whole) * share)])
        report.write(folder)


def test_names_from_outside_are_text(folder: Path) -> None:
    for name in ("run.json", "events.csv", "members.csv"):
        path = folder / name
        path.write_text(path.read_text().replace("etcd-node2", "<script>x</script>").replace('"kv"', '"<b>"'))
    results.write(folder)
    html = report.write(folder).read_text()
    assert "<script>x" not in html
    assert "&lt;script&gt;x&lt;/script&gt;" in html


def test_an_hour_at_five_members_stays_small(folder: Path) -> None:
    rows = ["time,f,succeeded,failed,info,p50_ms,p99_ms,max_ms"]
    for n in range(3600):
        times = f"{1 + n % 7}.123456,{9 + n % 91}.123456,{99 + n % 901}.123456"
        rows += [f"{1_795_581_000 + n},{f},{900 + n % 700},{n % 3},0,{times}" for f in ("get", "put", "txn", "total")]
    (folder / "series.csv").write_text("\n".join(rows) + "\n")
    polls = [(folder / "members.csv").read_text().splitlines()[0]]
    for n in range(14400):
        time = f"2026-11-25T04:{n // 240:02d}:{n // 4 % 60:02d}.{n % 4 * 250:03d}+00:00"
        indexes = [(n * 99, n * 99 - (n * 7 + m) % 37) for m in range(5)]
        polls += [f"{time},{n},m{m},1,follower,m0,7,{a},{b},{n},4096,1.5," for m, (a, b) in enumerate(indexes)]
    (folder / "members.csv").write_text("\n".join(polls) + "\n")
    assert report.write(folder).stat().st_size < 500_000


def of_many_names(data: rundata.RunData, count: int) -> rundata.RunData:
    """Return the run with so many request names, the n-th of n operations, of which one failed in a way of its own."""
    results, put = data.result["results"], data.result["results"]["put"]
    rows: dict[str, Any] = {
        f"/{n}<i>": {**put, "operations": n, "failed": 1, "throughput_ops_s": 0.5, "errors": {"&" * 5000 + f"{n}": 1}}  # type: ignore[dict-item]
        for n in range(1, count + 1)
    }
    result: Any = {**data.result, "results": {**rows, "total": results["total"]}, "problems": ["x" * 300] * 5}
    return dataclasses.replace(data, result=result)


def test_twenty_thousand_names_make_no_large_page(data: rundata.RunData) -> None:
    html = report.render(of_many_names(data, 20_000))
    assert len(html) < 2_000_000
    # The 300 names with the most operations are shown, and the row above the total is the sum of the others.
    rest = sum(range(1, 19_701))
    failed = '<span class="fail">19,700</span>'
    assert f"<td>19,700 more, in result.json</td><td>{rest:,}</td><td>{failed}</td><td>9,850</td>" in html
    assert "/20000&lt;i&gt;</td>" in html and "/19700&lt;i&gt;</td>" not in html
    assert '<span class="fail">19,900</span> of 19,900 more causes, in result.json' in html


def test_comparing_many_names_makes_no_large_page(data: rundata.RunData) -> None:
    many = of_many_names(data, 5000)
    html = compare.render(many, data)
    assert len(html) < 2_000_000 and "more figures, of names with fewer operations" in html
    assert "/5000&lt;i&gt;.p99_ms" in html and ">total.p99_ms<" in html
    assert compare.text(many, data, every=True).count("\n/") == 5000 * 10


def test_compared_names_may_hold_dots(data: rundata.RunData) -> None:
    results = data.result["results"]
    put, total = results["put"], results["total"]
    result: Any = {**data.result, "results": {"a": put, "a.latency.b": put, "a.b": put, "total": total}}
    dotted = dataclasses.replace(data, result=result)
    names = [row.name for row in compare.rows(result, result)]
    assert len(names) == len(set(names)) and {"a.p99_ms", "a.b.p99_ms", "a.latency.b.p99_ms"} <= {*names}
    lines = compare.text(dotted, dotted, every=True).splitlines()
    # A rule before each name, the total, the generator and the target.
    assert sum(set(line) == {"-"} for line in lines) == 6


def test_thinning_loses_no_peak_and_no_gap() -> None:
    points = [(float(n), 1.0 + n % 2) for n in range(20_000)]
    points[777] = (777.0, 99.0)
    line = charts._thinned(Line("x", "a", (*points[:5000], (5000.0, None), *points[5001:])))
    assert len(line.points) <= charts.MOST_POINTS + 2
    assert (777.0, 99.0) in line.points
    assert (5000.0, None) in line.points
    assert {y for _, y in line.points} <= {1.0, 2.0, 99.0, None}


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (charts.linear(0, 14), (0, 2, 4, 6, 8, 10, 12, 14)),
        (charts.up_to(873), (0, 500, 1000)),
        (charts.up_to(0), (0, 0.5, 1)),
        (charts.logarithmic([0.9, 230]), (0.1, 1, 10, 100, 1000)),
        (charts.counting(0), (0, 1, 10)),
        (charts.counting(740), (0, 1, 10, 100, 1000)),
    ],
)
def test_axes_have_round_ticks_that_hold_all_values(axis: Axis, ticks: tuple[float, ...]) -> None:
    assert [round(tick, 6) for tick in axis.ticks if tick <= axis.high] == pytest.approx(
        [tick for tick in ticks if tick <= axis.high]
    )


def test_a_line_is_broken_where_there_is_no_value() -> None:
    chart = Chart("x", "x", charts.linear(0, 4), charts.up_to(4), "y",
                  (Line("l", "a", ((0, 1.0), (1, 2.0), (2, None), (3, 1.0), (4, None))),))  # fmt: skip
    path = re.search(r'<path class="line a" d="([^"]*)"', charts.render(chart))
    assert path is not None
    assert path.group(1) == "M0.0 142.5L250.0 95.0M750.0 142.5L750.0 142.5"


def test_histogram_logs_are_read_as_they_were_written(tmp_path: Path) -> None:
    counts = {5: 1, 1023: 2, 4096: 3, hdr.bucket(1_234_567_890): 4}
    path = tmp_path / "put.hlog"
    path.write_text(hdr.log_head(1_795_581_000) + hdr.log_line(0, 1.0, 9, hdr.encode(counts))
                    + hdr.log_line(7, 1.0, 9, hdr.encode({5: 9})))  # fmt: skip
    (first, read), (second, _) = hlog.read(path)
    assert (first, second) == (1_795_581_000, 1_795_581_007)
    assert read == {hdr.middle(key): count for key, count in counts.items()}
    with pytest.raises(ValueError, match="HdrHistogram"):
        hlog.decode("SGVsbG8gd29ybGQ=")


def test_the_spectrum_ends_where_the_samples_do() -> None:
    points = hlog.spectrum({n * 1_000_000: 1 for n in range(1, 1001)}, most=4)
    assert points == [
        (1.0, 1.0),
        (pytest.approx(10), 900.0),
        (pytest.approx(100), 990.0),
        (pytest.approx(1000), 999.0),
        (1000.0, 1000.0),
    ]
    assert hlog.spectrum({}) == []
    assert hlog.percentile_ms({1_000_000: 99, 7_000_000: 1}, 0.99) == 1.0
    assert hlog.percentile_ms({}, 0.99) is None


def test_members_that_waited_for_a_cpu_are_named(data: rundata.RunData) -> None:
    assert "CONTENDED" not in compare.text(data, data) + compare.render(data, data)
    assert "waited for a CPU" not in report.render(data)
    wait: CpuWait = {
        "members": [{"name": "etcd-node1", "ran_s": 1.5, "waited_s": 4.25}],
        "share": 0.739, "contended": True, "contended_by": "etcd-node1 was ready and had no CPU", "nice": 10,
        "session_nice": 12,
    }  # fmt: skip
    target = data.result["target"]
    assert target is not None
    target["cpu_wait"] = wait
    html = report.render(data)
    assert "<b>The members waited for a CPU</b>" in html
    assert "<td>etcd-node1</td><td>1.5</td><td>4.25</td>" in html
    assert "up to 74% is such a wait. The members' nice value is 10, that of their sessions 12." in html
    why = "its latencies are partly the members' wait for a CPU"
    in_terminal, in_page = compare.text(data, data).splitlines(), compare.render(data, data)
    for name in "AB":
        assert f"{name}: CONTENDED, {why}" in in_terminal
        assert f'<p class="unknown"><b>{name}: CONTENDED</b>, {why}.</p>' in in_page
    wait["contended"], wait["session_nice"] = False, None
    html = report.render(data)
    assert "<b>The members waited for a CPU</b>" not in html
    assert "The members' nice value is 10.</p>" in html


def test_two_runs_stand_side_by_side(data: rundata.RunData, folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    run = json.loads((other / "run.json").read_text())
    run["users"], run["id"] = 400, "other"
    (other / "run.json").write_text(json.dumps(run))
    stats = (other / "locust_stats.csv").read_text()
    p99 = data.result["results"]["put"]["latency"]["p99_ms"]
    (other / "locust_stats.csv").write_text(stats.replace(f"{p99}", f"{2 * p99}"))
    there = rundata.load(other, results.build(other))
    rows = {row.field: row for row in compare.rows(data.result, there.result)}
    assert rows["results.put.latency.p99_ms"].ratio == 2.0
    assert rows["results.put.operations"].ratio == 1.0
    assert compare.differences(data.result, there.result) == {"users": (4, 400)}
    assert compare.document(data, there)["schema"] == "raftload.comparison/1"
    html = compare.render(data, there)
    assert html.count('class="line a"') == html.count('class="line b"') == 3


def _changed(data: rundata.RunData, **figures: float) -> rundata.RunData:
    """Return a run with other figures in its total; ``success_rate`` and the like, and those of the latency."""
    result = json.loads(json.dumps(data.result))
    total = result["results"]["total"]
    for name, value in figures.items():
        (total["latency"] if name.endswith("_ms") else total)[name] = value
    return dataclasses.replace(data, result=result)


def test_of_two_runs_what_differs_stands_first_and_the_rest_is_folded(data: rundata.RunData) -> None:
    total = data.result["results"]["total"]
    assert total is not None and total["latency"] is not None
    rate, p99 = total["throughput_ops_s"], total["latency"]["p99_ms"]
    other = _changed(data, throughput_ops_s=1.5 * rate, p99_ms=3 * p99, success_rate=total["success_rate"] - 0.01,
                     p50_ms=1.04 * total["latency"]["p50_ms"])  # fmt: skip
    lines = compare.text(data, other, color=True).splitlines()
    start = next(number for number, line in enumerate(lines) if "B / A" in line) + 1
    told = [re.sub(r"\x1b\[[0-9;]*m", "", line).split() for line in lines[start : start + 3]]
    assert [(each[0], each[-1]) for each in told] == [
        ("total.success_rate", "worse"), ("total.p99_ms", "worse"), ("total.throughput_ops_s", "better"),
    ]  # fmt: skip
    assert [line[:5] for line in lines[start : start + 3]] == ["\x1b[31m", "\x1b[31m", "\x1b[32m"]
    plain = compare.text(data, other)
    assert "\x1b" not in plain
    assert len(plain.splitlines()) < 25, "it was a table of forty rows"
    assert plain.endswith("\n".join(compare.NOISE))
    assert f"{len(compare.rows(data.result, other.result)) - 10} more figures: --all, --html FILE or --json" in plain
    html = compare.render(data, other)
    assert html.index("Largest differences") < html.index("<figure") < html.index("<details><summary>")
    assert html.index("One run each says nothing of noise") < html.index("<figure")
    first = html[html.index("Largest differences") : html.index("<figure")]
    assert first.count('<b class="pass">better</b>') == 1 and first.count('<b class="fail">worse</b>') == 2
    assert "total.p50_ms" not in first, "four per cent"
    back = compare.text(other, data)
    assert [line.split()[-1] for line in back.splitlines() if line.startswith(("total.p99_ms", "total.thr"))] == [
        "better", "worse",
    ]  # fmt: skip


def test_of_a_run_and_itself_no_figure_is_better(data: rundata.RunData) -> None:
    text = compare.text(data, data)
    assert "no telling figure differs by 10 %" in text
    assert "better" not in text.replace("better and worse", "") and "worse" not in text.replace("better and worse", "")
    assert "No telling figure differs by 10 % or more" in compare.render(data, data)


def test_of_another_load_better_and_worse_are_not_etcds_alone(data: rundata.RunData) -> None:
    result = json.loads(json.dumps(data.result))
    result["run"]["users"] = 400
    other = dataclasses.replace(data, result=result)
    for page in (compare.text(data, other), compare.render(data, other).replace("&#x27;", "'")):
        assert compare.OTHER_LOAD in page
    assert "users: A 4, B 400" in compare.text(data, other)
    assert compare.OTHER_LOAD not in compare.text(data, data)


# The command


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    return functools.partial(called, capsys, "report")


def test_the_command_writes_pages(run: Run, folder: Path, tmp_path: Path) -> None:
    assert run(folder, "--html").returncode == 0
    assert (folder / "report.html").is_file()
    done = run(folder, "--json", "--html", "here.html")
    assert (done.returncode, json.loads(done.stdout)["schema"]) == (0, "raftload.result/1")
    assert "wrote here.html" in done.stderr
    assert run(folder, folder, "--html").returncode == 0
    assert (tmp_path / "comparison.html").is_file()
    assert run(folder, folder, "--json").returncode == 0


def test_the_command_draws_plots_and_says_what_is_lacking(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "matplotlib", None)
        done = run(folder, "--plots", "plots")
    assert done.returncode == 4 and "pip install 'raftload[plots]'" in done.stderr
    pytest.importorskip("matplotlib")
    assert run(folder, "--plots", "plots", "--plot-format", "svg").returncode == 0
    made = {path.name for path in Path("plots").iterdir()}
    assert made == {"latency.svg", "p99.svg", "throughput.svg", "percentiles.svg", "lag.svg", "leadership.svg"}


@pytest.mark.parametrize(
    "words", [("a", "b", "c"), ("--csv", "x", "--html"), ("--csv", "nowhere/x"), ("RUN", "--html", "."),
              ("RUN", "--html", "no/where.html"), ("RUN", "RUN", "--plots", "x")],
)  # fmt: skip
def test_the_command_refuses_in_one_line(words: tuple[str, ...], run: Run, folder: Path) -> None:
    assert_refused(run(*(folder if word == "RUN" else word for word in words)))


def of_ticks(folder: Path, counts: list[int], first_s: float, last_s: float) -> rundata.RunData:
    """Return the run with so many puts in each tick, the first and the last of which had load for so long."""
    begin = 1_795_581_000.0
    rows = ["time,f,succeeded,failed,info,p50_ms,p99_ms,max_ms,length_s"]
    lines = [hdr.log_head(begin + 0.1 - first_s)]
    for n, count in enumerate(counts):
        at, length_s = begin + n / 10, 0.1
        if n == 0:
            at, length_s = begin + 0.1 - first_s, first_s
        elif n == len(counts) - 1:
            length_s = last_s
        times = "1.0,2.0,3.0" if count else ",,"
        rows += [f"{at:.3f},{f},{count},{count // 10},0,{times},{length_s}" for f in ("put", "total")]
        if count:
            ns = 2_000_000 if n % 2 else 1_000_000
            lines.append(hdr.log_line(at - begin - 0.1 + first_s, length_s, ns, hdr.encode({hdr.bucket(ns): count})))
    (folder / "series.csv").write_text("\n".join(rows) + "\n")
    (folder / "total.hlog").write_text("".join(lines))
    return rundata.load(folder)


def test_no_rate_falls_at_the_ends(folder: Path) -> None:
    data = of_ticks(folder, [60, *[100] * 8, 90], 0.06, 0.09)
    assert data.end - data.begin == pytest.approx(0.95)
    points = run_charts.succeeded(data)
    assert [y for _, y in points] == pytest.approx([1000] * 11)
    assert (points[0][0], points[1][0], points[-1][0]) == pytest.approx((0, 0.06, 0.95))
    # What is too short for a rate of its own counts with its neighbour: 5 in 4 ms would be 1,250/s, none 0.
    for first, last, starts in ((5, 100, 9), (0, 100, 9), (100, 3, 9)):
        data = of_ticks(folder, [first, *[100] * 8, last], 0.004 if first < 9 else 0.1, 0.002 if last < 9 else 0.1)
        points = run_charts.succeeded(data)
        assert len(points) == starts + 1
        assert [y for _, y in points] == pytest.approx([1000] * (starts + 1), rel=0.04)


def test_an_outage_of_part_of_a_second_is_seen(folder: Path) -> None:
    data = of_ticks(folder, [*[100] * 5, *[0] * 7, *[100] * 5], 0.1, 0.1)
    assert [y for _, y in run_charts.succeeded(data)] == pytest.approx([*[1000] * 5, *[0] * 7, *[1000] * 6])
    html = report.render(data)
    assert "<dd>0.7<small> s</small></dd><dt>longest time without a success</dt>" in html
    assert "p50 and maximum of every 100 ms" in html


def test_a_p99_over_time_is_of_as_many_intervals_as_it_takes(folder: Path) -> None:
    # Three ticks of 100 hold the 299 successes that it takes, whatever lies between them, but not a second of nothing.
    data = of_ticks(folder, [100, 0, 100, 100, *[300] * 3, 100, *[0] * 10, 100, 100, 100], 0.1, 0.1)
    points = run_charts.p99(data)
    assert [x for x, _ in points] == pytest.approx([0.2, 0.45, 0.55, 0.65, 1.7, 1.95], abs=0.001)
    assert [y for _, y in points] == [
        pytest.approx(2.0, 0.001), pytest.approx(1.0, 0.001), pytest.approx(2.0, 0.001), pytest.approx(1.0, 0.001),
        None, pytest.approx(2.0, 0.001),
    ]  # fmt: skip


def test_a_run_of_before_is_drawn_by_the_second(data: rundata.RunData) -> None:
    assert {each.length_s for each in data.series["total"]} == {1.0}
    assert run_charts.interval(data) == "second"
    assert data.result["run"]["series_interval_s"] is None
    at = [x for x, _ in run_charts.succeeded(data)]
    assert at == [float(n) for n in range(len(at))]


def test_compared_percentiles_of_too_few_samples_are_marked(data: rundata.RunData) -> None:
    figures = {each["field"]: each for each in compare.document(data, data)["figures"]}
    put = figures["results.put.latency.p99_9_ms"]
    assert (put["too_few_samples"], put["ratio"]) == (["a", "b"], None)
    assert put["a"] == data.result["results"]["put"]["latency"]["p99_9_ms"]  # type: ignore[index]
    assert figures["results.put.latency.p99_ms"]["too_few_samples"] == []
    shown = compare.text(data, data, every=True).splitlines()
    (line,) = (line for line in shown if line.startswith("put.p99_9_ms"))
    assert line.split() == ["put.p99_9_ms", "-", "-", "-"]


# What was slow


def with_diagnosis(data: rundata.RunData, word: str, **more: object) -> rundata.RunData:
    figure = {"name": "sync of the log, p90", "value": 61.04, "unit": "ms", "limit": 10.0}
    answer = {
        "word": word,
        "why": "its <disk>",
        "figures": [figure],
        "next": "network",
        "margin": 4.13,
        "advice": "Buy one.",
    }
    members = [{**answer, "name": "etcd-node2"}]
    found = {"cluster": {**answer, **more}, "members": members, "notes": []}
    return dataclasses.replace(data, result={**data.result, "diagnosis": found})  # type: ignore[typeddict-item]


def test_what_was_slow_stands_on_top(data: rundata.RunData) -> None:
    html = report.render(with_diagnosis(data, "disk"))
    assert '<p class="diagnosis"><b class="fail">disk</b>: its &lt;disk&gt;</p>' in html
    assert html.index('class="diagnosis"') < html.index('class="cards"')
    assert "<h2>Diagnosis</h2>" in html and "sync of the log, p90: 61.0 ms (10 ms are usual)" in html
    assert "<b>What to do</b>: Buy one." in html and "network, which explains 4.1 times less" in html


def test_commands_in_what_to_do_are_code(data: rundata.RunData) -> None:
    html = report.render(with_diagnosis(data, "disk", advice="Run `iostat -x 1` on <its> host."))
    assert "Run <code>iostat -x 1</code> on &lt;its&gt; host." in html
    assert "<code>raftload diagnose RUN</code> shows the evidence" in html


def test_of_a_healthy_run_the_line_is_all(data: rundata.RunData) -> None:
    html = report.render(with_diagnosis(data, "healthy", why="nothing is slow"))
    assert '<b class="pass">healthy</b>: nothing is slow' in html and "<h2>Diagnosis</h2>" not in html
    without = dataclasses.replace(data, result={k: v for k, v in data.result.items() if k != "diagnosis"})  # type: ignore[arg-type]
    assert 'class="diagnosis"' not in report.render(without)
