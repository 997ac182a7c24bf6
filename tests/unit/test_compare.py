"""Whether NEW is slower than BASE: the words, the test of the runs, what a run knows of itself, and the commands."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from loadgen import schema
from loadgen.compare import alike, comparison, permutation, run_figures
from loadgen.compare.permutation import Values
from loadgen.compare.verdict import Figure, More, Overall, Word, overall, parse_share, words
from loadgen.load.settings import PARAMETERS
from loadgen.result import document as results
from loadgen.stats import hdr
from tests.support.command import assert_refused, called
from tests.support.scaled_runs import RECORDED, scaled_run
from tests.support.simulated_runs import Recorded, false_findings, gross_pairs, pilots


def figure(word: Word, more: More | None = None, likely: Word | None = None, name: str = "put.p99_ms") -> Figure:
    return Figure(name, (1.0,), (1.1,), 1.0, 1.2, 0.5, 0.1, word, more, likely=likely)


def values(base: list[float], new: list[float], **more: Any) -> Values:
    return Values(tuple(base), tuple(new), **more)


SAME, SLOWER, FASTER = (figure(word) for word in (Word.SAME, Word.SLOWER, Word.FASTER))
OPEN = figure(Word.CANNOT_TELL, More(4, 4), Word.SLOWER)


@pytest.mark.parametrize(
    ("figures", "word", "code"),
    [
        ([SAME, SAME], Word.SAME, 0),
        ([SAME, FASTER], Word.FASTER, 0),
        ([SAME, FASTER, SLOWER], Word.SLOWER, 1),
        ([OPEN, SLOWER], Word.SLOWER, 1),
        ([OPEN, FASTER, SAME], Word.CANNOT_TELL, 3),
        ([], Word.CANNOT_TELL, 3),
    ],
)
def test_one_figure_that_is_slower_decides_and_unknown_is_never_a_pass(
    figures: list[Figure], word: Word, code: int
) -> None:
    found = overall(figures)
    assert (found.word, found.word.exit_code) == (word, code)
    assert overall([*figures, SLOWER], ["BASE, run 1: a worker was lost"]).word is Word.CANNOT_TELL


def test_more_runs_are_those_of_the_first_figure_that_is_likely_slower_or_of_all() -> None:
    late = figure(Word.CANNOT_TELL, More(9, 9), Word.SAME)
    never = figure(Word.CANNOT_TELL)
    assert overall([OPEN, late]).more == More(4, 4)
    assert overall([figure(Word.CANNOT_TELL, More(4, 4), Word.FASTER), late]).more == More(9, 9)
    assert overall([OPEN, never]).more == More(4, 4)
    assert overall([late, never]).more is None
    assert overall([never]).words(0.05) == "cannot tell: the runs differ too much among themselves: put.p99_ms"


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (More(5, 5), "cannot tell: 5 more runs of each"),
        (More(0, 1), "cannot tell: 1 more run of NEW"),
        (More(2, 0), "cannot tell: 2 more runs of BASE"),
        (More(1, 3), "cannot tell: 1 more run of BASE and 3 of NEW"),
        (None, "cannot tell: the runs differ too much among themselves"),
    ],
)
def test_what_is_missing_in_words(more: More | None, text: str) -> None:
    assert words(Word.CANNOT_TELL, 0.05, more) == text
    assert Overall(Word.CANNOT_TELL, more, ()).words(0.05) == text


@pytest.mark.parametrize("text", ["", "x", "0", "100%", "-1%", "nan", "5%%"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(ValueError, match=r"share|number"):
        parse_share(text)


logs = st.lists(st.floats(-0.1, 0.1), min_size=3, max_size=3)


@settings(max_examples=25, deadline=None)
@given(st.lists(logs, min_size=9, max_size=9))
def test_p_is_the_share_of_arrangements_that_differ_as_much(table: list[list[float]]) -> None:
    runs = np.exp(np.array(table) + np.arange(9)[:, None] * 0.001)
    judged = permutation.judge({f"f{i}.p50_ms": values([*runs[:3, i]], [*runs[3:, i]]) for i in range(3)}, 0.05)
    # Three of nine: 84 arrangements, of which each is one in 84, more than ALPHA.
    assert all(each.p is None for each in judged.figures)
    judged = permutation.judge(
        {f"f{i}.p50_ms": values([*runs[:4, i]], [*runs[4:, i], runs[0, i] * 1.1]) for i in range(3)}, 0.05
    )
    data = np.log(np.array([[*each.base, *each.new] for each in judged.figures]))

    def largest(base: tuple[int, ...]) -> list[float]:
        new = [i for i in range(10) if i not in base]
        found = []
        for row in data:
            a, b = row[list(base)], row[new]
            pooled = math.sqrt((a.var() * len(a) + b.var() * len(b)) / 8)
            found.append(abs(a.mean() - b.mean()) / max(pooled, 0.001) / math.sqrt(1 / 4 + 1 / 6))
        return found

    null = [max(largest(base)) for base in itertools.combinations(range(10), 4)]
    for each, observed in zip(judged.figures, largest((0, 1, 2, 3)), strict=True):
        assert each.p == pytest.approx(np.mean([one >= observed * (1 - 1e-9) for one in null]), abs=2 / 210)
    assert judged.arrangements == 210


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-0.3, 0.3))
def test_exchanged_sides_give_the_contrary(seed: int, shift: float) -> None:
    runs = np.exp(np.random.default_rng(seed).normal(size=(12, 2)) * 0.02)
    runs[6:] *= math.exp(shift)
    names = ("put.p99_ms", "put.throughput_ops_s")
    there, back = (
        permutation.judge({name: values([*a[:, i]], [*b[:, i]]) for i, name in enumerate(names)}, 0.05).figures
        for a, b in ((runs[:6], runs[6:]), (runs[6:], runs[:6]))
    )
    contrary = {Word.SLOWER: Word.FASTER, Word.FASTER: Word.SLOWER}
    for one, other in zip(there, back, strict=True):
        assert one.low is not None and other.high is not None
        assert one.low * other.high == pytest.approx(1)
        # The band of what is the same is of ratios, and is not symmetric.
        if Word.SAME not in (one.word, other.word):
            assert contrary.get(one.word, one.word) is other.word


def test_a_single_figure_is_the_test_of_scipy() -> None:
    random = np.random.default_rng(4)
    base, new = np.exp(random.normal(size=6) * 0.05), np.exp(random.normal(size=6) * 0.05 + 0.1)
    (found,) = permutation.judge({"put.p99_ms": values([*base], [*new])}, 0.01).figures
    expected = stats.ttest_ind(np.log(new), np.log(base), method=stats.PermutationMethod(n_resamples=10_000))
    assert found.p == pytest.approx(expected.pvalue)
    interval = stats.ttest_ind(np.log(new), np.log(base)).confidence_interval(1 - permutation.ALPHA)
    assert (found.low, found.high) == pytest.approx((math.exp(interval.low), math.exp(interval.high)))


@pytest.mark.parametrize(("base", "new"), [(1, 1), (2, 2), (5, 5), (3, 4), (1, 30)])
def test_too_few_runs_never_find_a_difference_that_is_not_gross(base: int, new: int) -> None:
    random = np.random.default_rng(base)
    a, b = np.exp(random.normal(size=base) * 1e-3), 1.9 * np.exp(random.normal(size=new) * 1e-3)
    (found,) = permutation.judge({"put.p50_ms": values([*a], [*b], own=0.001)}, 0.05).figures
    assert (found.word, found.p) == (Word.CANNOT_TELL, None)
    assert found.more is not None
    assert permutation.least_p(base + found.more.base, new + found.more.new) <= permutation.ALPHA
    (gross,) = permutation.judge({"put.p50_ms": values([*a], [*b], own=0.001, apart=True)}, 0.05).figures
    assert gross.word is Word.SLOWER
    (tail,) = permutation.judge({"put.p99_ms": values([*a], [*b], own=0.001, apart=True)}, 0.05).figures
    assert tail.word is Word.CANNOT_TELL


def test_three_runs_have_no_interval_where_it_would_be_beyond_any_number() -> None:
    (found,) = permutation.judge({"put.p99_ms": values([1.0, 3.0], [2.0], own=0.9)}, 0.05).figures
    assert (found.low, found.high, found.word) == (None, None, Word.CANNOT_TELL)


def test_equal_runs_are_the_same_and_a_run_that_is_not_sure_of_itself_is_not() -> None:
    runs = [1.0, 1.001, 0.999, 1.0, 1.002, 1.0]
    (found,) = permutation.judge({"put.p99_ms": values(runs, runs)}, 0.05).figures
    assert found.word is Word.SAME
    (unsure,) = permutation.judge({"put.p99_ms": values(runs, runs, own=0.05)}, 0.05).figures
    assert unsure.word is Word.CANNOT_TELL
    (hopeless,) = permutation.judge({"put.p99_ms": values(runs, runs, own=0.9)}, 0.05).figures
    assert (hopeless.more, hopeless.reason) == (None, permutation.TOO_SHORT)


def test_a_throughput_is_better_where_it_is_higher() -> None:
    base = [100.0, 101, 99, 100, 102, 98]
    found = permutation.judge(
        {"put.throughput_ops_s": values(base, [2 * each for each in base]),
         "put.p99_ms": values(base, [2 * each for each in base])}, 0.05,
    )  # fmt: skip
    assert [each.word for each in found.figures] == [Word.FASTER, Word.SLOWER]


def test_one_new_run_is_judged_by_many_baselines() -> None:
    base = np.exp(np.random.default_rng(2).normal(size=220) * 0.02)
    (found,) = permutation.judge({"put.p99_ms": values([*base], [1.3])}, 0.05).figures
    assert (found.word, found.p) == (Word.SLOWER, pytest.approx(1 / 221))
    (back,) = permutation.judge({"put.p99_ms": values([1.3], [*base])}, 0.05).figures
    assert (back.word, back.p) == (Word.FASTER, pytest.approx(1 / 221))


def test_more_arrangements_than_can_be_gone_through_are_drawn() -> None:
    random = np.random.default_rng(1)
    base, new = np.exp(random.normal(size=(2, 20)) * 0.02)
    judged = permutation.judge({"put.p99_ms": values([*base], [*(new * 1.2)])}, 0.05)
    assert judged.arrangements == permutation.MOST_ARRANGEMENTS
    assert judged.figures[0].p == pytest.approx(1 / (permutation.MOST_ARRANGEMENTS + 1))
    assert judged.figures[0].word is Word.SLOWER


# Simulated runs that differ as recorded ones do; `python -m tests.soak.compare` makes thousands of these.


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return Recorded.read()


def test_recorded_runs_of_the_same_are_enough_and_never_grossly_different(recorded: Recorded) -> None:
    assert len(recorded.own) >= 30
    assert gross_pairs(recorded) == 0


def test_runs_of_the_same_are_rarely_found_different(recorded: Recorded) -> None:
    # One in 230 is expected at most; with this seed or another, 7 of 300 would be one chance in 5,000.
    assert false_findings(recorded, np.random.default_rng(17), (6, 6), 300) <= 6


def test_a_difference_is_found_with_as_many_more_runs_as_are_asked_for(recorded: Recorded) -> None:
    found = pilots(recorded.quieter(), np.random.default_rng(18), 25)
    assert sum(size is not None for size, _ in found) >= 20
    assert sum(done for size, done in found if size is not None) >= 15


# What a run knows of itself.


def slow_spells(random: np.random.Generator, seconds: int) -> list[tuple[float, float, dict[int, int]]]:
    """Return intervals of 100 ms whose latencies change by the second: neighbours are alike."""
    found = []
    for second in range(seconds):
        level = math.exp(random.normal() * 0.2)
        for tenth in range(10):
            counts: dict[int, int] = {}
            for value in random.lognormal(math.log(1e6 * level), 0.1, 60):
                hdr.merge(counts, {hdr.bucket(int(value)): 1})
            found.append((second + tenth / 10, 0.1, counts))
    return found


def test_a_run_is_as_sure_of_itself_as_other_runs_of_the_same_differ() -> None:
    random = np.random.default_rng(5)
    medians, own = [], []
    for _ in range(25):
        intervals = slow_spells(random, 20)
        whole: dict[int, int] = {}
        for _, _, counts in intervals:
            hdr.merge(whole, counts)
        medians.append(math.log(hdr.percentiles(whole, [0.5])[0]))
        rows = [(at, length, sum(counts.values())) for at, length, counts in intervals]
        own.append(run_figures._bootstrapped(rows, intervals, ["p50_ms"])["p50_ms"].deviation)
    true, said = float(np.std(medians, ddof=1)), float(np.median(own))
    assert 0.6 < said / true < 1.5
    # Were neighbours not alike, the median of 12,000 latencies would be known to 0.3 %.
    assert said > 0.02


def test_a_run_of_few_seconds_does_not_say_how_sure_it_is() -> None:
    intervals = slow_spells(np.random.default_rng(5), 4)
    rows = [(at, length, sum(counts.values())) for at, length, counts in intervals]
    assert run_figures._bootstrapped(rows, intervals, ["p50_ms"]) == {}


def test_a_run_of_operations_that_came_in_one_stretch_does_not_say_how_sure_it_is() -> None:
    """A mixture of its blocks may have none of them, and what is no number found differences where there are none."""
    rows = [(1000.0 + second, 1.0, 500 if second < 3 else 0) for second in range(30)]
    intervals = [(at, length, {100_000: count}) for at, length, count in rows if count]
    assert run_figures._bootstrapped(rows, intervals, ["p50_ms"]) == {}
    # Nor where there are no rows of the time between.
    assert run_figures._bootstrapped([*rows[:3], *rows[26:]], intervals, ["p50_ms"]) == {}


def test_the_figures_of_a_run_are_those_of_its_result() -> None:
    found, result = run_figures.read(str(RECORDED)), results.build(RECORDED)
    for name, value in found.values.items():
        f, _, field = name.rpartition(".")
        row: Any = result["results"][f]
        expected = row[field] if field in row else row["latency"][field]
        assert value == pytest.approx(expected, rel=0.02), name
    # Of so few samples they say nothing.
    assert "put.p99_9_ms" not in found.values and "total.p99_9_ms" in found.values


# The commands.


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six runs each of a base, of the same again, and of one that takes 1.6 times as long."""
    folder = tmp_path_factory.mktemp("runs")
    random = np.random.default_rng(3)
    for number in range(6):
        for at, (name, factor) in enumerate((("base", 1.0), ("again", 1.0), ("slow", 1.6))):
            scaled_run(folder / f"{name}{number}", factor * math.exp(random.normal() * 0.005), number=3 * number + at)
    scaled_run(folder / "gross", 3.2, number=40)
    return folder


def names(folder: Path, name: str, count: int = 6) -> list[str]:
    return [str(folder / f"{name}{number}") for number in range(count)]


P50 = ("--figure", "*.p50_ms")


@pytest.fixture(autouse=True)
def read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read each run folder once in this file; none is changed after it was read.

    By fewer mixtures than commands take, which are most of their time here and tell the same to a tenth.
    """
    monkeypatch.setattr(run_figures, "read", read_and_kept)
    monkeypatch.setattr(run_figures, "_MIXTURES", 99)


read_and_kept = functools.cache(run_figures.read)


def test_slower_runs_are_found_and_told_in_all_forms(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    xml, html = tmp_path / "compare.xml", tmp_path / "compared.html"
    sides = ("--base", *names(runs, "base"), "--new", *names(runs, "slow"))
    done = called(capsys, "compare", *sides, *P50, "--json", "--junit", xml, "--html", html)
    assert (done.returncode, done.stderr) == (1, f"raftload: wrote {html}\n")
    document = json.loads(done.stdout)
    jsonschema.validate(document, schema.load("compare"))
    assert schema.problem(document, "compare") is None
    assert document["verdict"] == document["words"] == "slower"
    assert [row["name"] for row in document["figures"]] == [f"{f}.p50_ms" for f in ("put", "get", "txn", "total")]
    for row in document["figures"]:
        low, high = row["interval"]
        assert row["verdict"] == "slower" and low < row["ratio"] < high and 1 < low < 1.6 < high
        assert row["p"] == pytest.approx(2 / math.comb(12, 6), rel=1e-4)
    assert document["method"]["arrangements"] == math.comb(12, 6)
    assert document["warnings"] == []

    suite = ElementTree.parse(xml).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("5", "5", "0")
    summary = (tmp_path / "summary.md").read_text()
    assert summary.startswith("### raftload compare: NEW is slower\n") and "| put.p50_ms |" in summary
    page = html.read_text()
    assert "NEW is" in page and 'id="intervals"' in page and 'id="percentiles-total"' in page
    # An interval, and a mark for each run of both sides and for the difference itself, of each figure.
    assert page.count("<rect ") == 4 * (1 + 1 + 12)

    table = called(capsys, "compare", *sides, *P50)
    assert "\nNEW is slower\n" in table.stdout and "total.p50_ms" in table.stdout


def test_the_same_runs_again_are_the_same(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sides = ("--base", *names(runs, "base"), "--new", *names(runs, "again"))
    done = called(capsys, "compare", *sides, *P50, "--within", "30%")
    assert (done.returncode, "\nNEW is same within 30 %\n" in done.stdout) == (0, True), done.stdout
    done = called(capsys, "compare", *sides, *P50, "--within", "0.001")
    assert (done.returncode, "\ncannot tell: " in done.stdout) == (3, True)


def test_gate_takes_a_baseline(runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    xml = tmp_path / "gate.xml"
    new, base = names(runs, "slow", 4), names(runs, "base")
    done = called(capsys, "gate", *new, "--baseline", *base, "--figure", "total.p50_ms", "--junit", xml)
    assert (done.returncode, "\nNEW is slower\n" in done.stdout) == (1, True), done.stdout
    assert 'name="total.p50_ms is not slower"' in xml.read_text()
    done = called(capsys, "gate", new[0], "--baseline", *base, "--figure", "total.p50_ms")
    assert done.returncode == 3 and "cannot tell: 3 more runs of NEW" in done.stdout


def test_one_run_each_shows_a_gross_difference_only(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = str(runs / "base0")
    done = called(capsys, "compare", base, runs / "slow0")
    assert (done.returncode, "cannot tell: 5 more runs of each" in done.stdout) == (3, True)
    assert "were not run by turns" in done.stdout
    done = called(capsys, "compare", base, runs / "gross")
    assert (done.returncode, "\nNEW is slower\n" in done.stdout) == (1, True)
    assert "too few runs for the test" in done.stdout
    done = called(capsys, "compare", runs / "gross", base)
    assert done.returncode == 3 and re.search(r"\ntotal\.p50_ms .* faster\n", done.stdout)


def test_a_result_without_its_series_is_compared_too(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(results.build(runs / "again0")))
    done = called(capsys, "compare", runs / "base0", path)
    assert done.returncode == 3 and "how sure a run is by itself is not known of again0" in done.stdout


@pytest.mark.parametrize(
    ("change", "doubt"),
    [
        ({"generator": "saturated"}, "SATURATED"),
        ({"interrupted": "SIGINT"}, "interrupted by SIGINT"),
        ({"lost_workers": [{"name": "worker 2", "reason": "killed"}]}, "worker 2 was lost"),
    ],
)
def test_a_run_that_is_no_evidence_leaves_all_open(
    change: dict[str, Any], doubt: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = scaled_run(tmp_path / "bad", 3.2, number=50)
    document = json.loads((bad / "run.json").read_text())
    if "generator" in change:
        document["generator"]["saturated"] = True
    else:
        document |= change
    (bad / "run.json").write_text(json.dumps(document))
    done = called(capsys, "compare", runs / "base0", bad)
    assert done.returncode == 3 and "cannot tell: NEW, bad: " in done.stdout and doubt in done.stdout
    assert ("hint: --allow-contended" in done.stderr) == (doubt == "SATURATED")
    done = called(capsys, "compare", runs / "base0", bad, "--allow-contended")
    assert done.returncode == (1 if doubt == "SATURATED" else 3)


def test_a_figure_that_some_runs_lack_is_told_and_a_type_of_which_all_failed_is_unknown(runs: Path) -> None:
    read = [run_figures.read(str(runs / f"{side}{number}")) for side in ("base", "again") for number in range(6)]
    values = {name: value for name, value in read[0].values.items() if name != "put.p99_ms"}
    few = [dataclasses.replace(read[0], values=values), *read[1:]]
    document = comparison.compare(few[:6], few[6:], within=0.3, figures=["put.p??_ms"])
    assert document["verdict"] == "same"
    assert "not judged: put.p99_ms, which is not known of 1 of 12 runs" in document["warnings"]

    result: Any = json.loads(json.dumps(read[0].result))
    result["results"]["put"]["succeeded"] = 0
    values = {name: value for name, value in read[0].values.items() if not name.startswith("put.")}
    failing = [dataclasses.replace(read[0], result=result, values=values), *read[1:]]
    for base, new in ((failing[:6], failing[6:]), (failing[6:], failing[:6])):
        document = comparison.compare(base, new, within=0.3, figures=["*.p50_ms"])
        assert document["words"] == "cannot tell: all operations of put failed in 1 of 12 runs"


def test_throughput_is_not_compared_in_an_open_loop(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = (
        scaled_run(tmp_path / name, number=number, loop="open", rate=600.0) for number, name in ((50, "a"), (51, "b"))
    )
    done = called(capsys, "compare", a, b, "--json")
    found = [row["name"] for row in json.loads(done.stdout)["figures"]]
    assert found and not any(name.endswith("throughput_ops_s") for name in found)


@pytest.mark.parametrize("key", [each.field for each in PARAMETERS if each.field != "seed"])
def test_runs_of_another_load_are_refused(key: str) -> None:
    base = results.build(RECORDED)
    new: Any = json.loads(json.dumps(base))
    new["run"][key] = {"put": 1.0} if key == "mix" else 4711
    late = key in ("connections", "balance", "engine", "arrivals") and base["run"].get(key) is None
    if late:
        alike.require_same_load([base], [new])
        return
    with pytest.raises(alike.OtherLoadError, match=key):
        alike.require_same_load([base], [new])
    with pytest.raises(alike.OtherLoadError, match="runs of BASE did not run the same load"):
        alike.require_same_load([base, new], [base])
    assert key in alike.differences([base], [new])


def test_another_etcd_is_no_other_load_but_is_told(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = json.loads((RECORDED / "run.json").read_text())["target"] | {"etcd_version": "3.6.14"}
    new = scaled_run(tmp_path / "new", number=50, target=target)
    done = called(capsys, "compare", runs / "base0", new)
    assert (done.returncode, "differs: etcd_version: BASE 3.5.1, NEW 3.6.14" in done.stdout) == (3, True)
    done = called(capsys, "compare", "--base", runs / "base0", new, "--new", runs / "base1")
    assert "warning: runs of BASE have several values of etcd_version: 3.5.1, 3.6.14" in done.stdout


def test_what_cannot_be_compared_is_refused(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, new = str(runs / "base0"), str(runs / "base1")
    other = scaled_run(tmp_path / "other", number=50, users=5)
    broken = scaled_run(tmp_path / "broken", number=51)
    (broken / "put.hlog").write_text("#[StartTime: 1.0 (seconds since epoch)]\nnot,a,histogram,log\n")
    cut = scaled_run(tmp_path / "cut", number=52)
    (cut / "series.csv").write_text("time,f,succeeded,failed\n1,put,x,0\n")
    short = scaled_run(tmp_path / "short", number=53)
    (short / "series.csv").write_text("time,f,succeeded,failed\n1,put,5")
    endless = scaled_run(tmp_path / "endless", number=54)
    (endless / "series.csv").write_text("time,f,succeeded,failed,length_s\n1,put,5,0,inf\n")
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "locust_stats.csv").write_text((RECORDED / "locust_stats.csv").read_text())
    for arguments, text in (
        ((), "give BASE and NEW"),
        ((base,), "give two runs, BASE and NEW, not 1"),
        ((base, new, new), "not 3"),
        (("--base", base), "--new"),
        ((base, new, "--base", base), "either as BASE NEW, or with --base and --new"),
        ((base, base), "base0 is there twice, in BASE and in NEW"),
        ((base, str(tmp_path / "none")), "no such run folder"),
        ((base, str(plain)), "this is not a run folder"),
        ((base, str(plain / "locust_stats.csv")), "not JSON"),
        ((base, str(broken)), str(broken)),
        ((base, str(cut)), str(cut)),
        ((base, str(short)), str(short)),
        ((base, str(endless)), str(endless)),
        ((base, str(other)), "did not run the same load: users (4 and 5)"),
        ((base, new, "--figure", "put.p98_ms"), "no figure that all runs have is called 'put.p98_ms'"),
        ((base, new, "--within", "x"), "--within: 'x' is not a number"),
        ((base, new, "--html", str(tmp_path)), "is a folder"),
        ((base, new, "--junit", str(tmp_path / "no" / "x.xml")), "there is no folder"),
    ):
        assert_refused(called(capsys, "compare", *arguments), text)
    for arguments, text in (
        ((base, new), "give one run to judge by thresholds, or --baseline"),
        ((base, "--within", "2%"), "--within goes with --baseline"),
        # The last one was taken as a baseline, too, and whatever was latest was judged.
        (("--baseline", base, base, new), f"raftload gate latest --baseline {base} ..."),
        (("--baseline", base, "--baseline", base), "which RUN is judged?"),
        ((base, "--baseline", new, "--threshold", "put.p99_ms < 5"), "two questions"),
    ):
        assert_refused(called(capsys, "gate", *arguments), text)
    done = called(capsys, "compare", base, other, "--allow-other-load")
    assert (done.returncode, "differs: users: BASE 4, NEW 5" in done.stdout) == (3, True)


def test_the_log_of_a_type_is_found_whatever_it_is_called(tmp_path: Path) -> None:
    """Logs have other names where those of types cannot be files'."""
    run = scaled_run(tmp_path / "run", number=60)
    (run / "put.hlog").rename(run / "a_b_c.hlog")
    series = run / "series.csv"
    series.write_text(series.read_text().replace(",put,", ",a/b c,"))
    values: dict[str, float] = {}
    own: dict[str, run_figures.Own] = {}
    run_figures._from_series(run, {"a/b c": {}}, values, own)
    assert {name.rpartition(".")[0] for name in values} == {name.rpartition(".")[0] for name in own} == {"a/b c"}
    from viz.report import rundata

    found = rundata._latencies(run, ["a/b c", "get"], [])
    assert [*found][:2] == ["a/b c", "get"]


def test_a_name_with_control_characters_does_not_reach_the_terminal(runs: Path, tmp_path: Path) -> None:
    new = scaled_run(tmp_path / "new", number=50, id="a\x1b[31m<b>", scenario="kv")
    read = [run_figures.read(str(each)) for each in (runs / "base0", new)]
    document = comparison.compare(read[:1], read[1:])
    from loadgen.compare import figure_table
    from viz.report import verdict_page

    assert "\x1b" not in figure_table.render(document, color=False)
    assert "<b>" not in re.sub(r"<b class", "", verdict_page.render(document))
