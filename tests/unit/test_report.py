"""Run folders and Locust's CSV files to result documents; the CSV files in tests/data were written by Locust."""

from __future__ import annotations

import copy
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.base import files
from loadgen import schema
from loadgen.result import document as report
from loadgen.result import latest
from loadgen.run import run_folder
from tests.support.command import assert_refused, called

DATA = Path(__file__).parent.parent / "data" / "report"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Return a run of 1,000 operations of which four failed."""
    return Path(shutil.copytree(DATA / "precise", tmp_path / "20260102T030405Z-kv"))


def edit(run_dir: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = run_dir / "run.json"
    run = json.loads(path.read_text())
    change(run)
    path.write_text(json.dumps(run))


def test_a_run_folder_becomes_a_result() -> None:
    result = report.build(DATA / "precise")
    put = result["results"]["put"]
    assert (put["operations"], put["succeeded"], put["failed"], put["info"]) == (334, 331, 3, 3)
    assert put["success_rate"] == 331 / 334
    assert put["throughput_ops_s"] == round(334 / 0.8125, 3)
    assert put["errors"] == {"DEADLINE_EXCEEDED": 3}
    assert put["latency"] == {
        "min_ms": 0.9, "mean_ms": 1.612, "median_ms": 1.29, "p50_ms": 1.29, "p90_ms": 2.318, "p95_ms": 2.777,
        "p99_ms": 3.662, "p99_9_ms": 41.535, "p99_99_ms": 41.535, "max_ms": 41.535, "service": None,
        "too_few_samples": ["p99_9_ms", "p99_99_ms"],
    }  # fmt: skip
    assert result["results"]["txn"]["branches"] == {"success": 330, "failure": 2}
    assert result["results"]["total"]["errors"] == {"DEADLINE_EXCEEDED": 3, "UNAVAILABLE": 1}
    assert result["run"]["duration_s"] == 0.8125
    assert result["run"]["requested_duration_s"] is None
    assert result["problems"] == []
    assert [t["verdict"] for t in result["thresholds"]] == ["pass", "fail"]
    assert result["verdict"] == "fail"


def test_a_type_that_was_not_run_is_null_and_one_without_success_has_no_latency() -> None:
    results = report.build(DATA / "failing")["results"]
    assert results["get"] is None
    assert results["txn"] is None
    assert results["put"]["latency"] is None
    assert results["put"]["success_rate"] == 0
    assert results["put"]["errors"] == {"connection refused": 20}


def test_plain_locust_csv() -> None:
    result = report.from_csv(DATA / "plain" / "locust")
    assert list(result["results"]) == [
        "put", "get", "txn", "GET /v1.2/items", "POST /v1.2/items", 'say "hi", all', "total",
    ]  # fmt: skip
    post = result["results"]["POST /v1.2/items"]
    assert post["throughput_ops_s"] == 47923.949  # Locust's own Requests/s
    assert post["errors"] == {"ConnectionResetError(104, 'Connection reset by peer')": 5}
    assert post["info"] is None
    # Locust's whole-millisecond percentiles are 0 and 150 here; its minimum and maximum are exact.
    assert result["results"]['say "hi", all']["latency"]["p99_ms"] == 0.4
    assert post["latency"]["p99_ms"] == post["latency"]["max_ms"] == 147.823
    assert result["target"] is None
    assert result["run"]["seed"] is None
    assert result["notes"]
    assert result["verdict"] == "none"
    assert report.from_csv(f"{DATA}/plain/locust_stats.csv") == result


def test_plain_locust_csv_without_failures_file(tmp_path: Path) -> None:
    shutil.copy(DATA / "plain" / "locust_stats.csv", tmp_path / "x_stats.csv")
    result = report.from_csv(tmp_path / "x")
    assert result["results"]["total"]["errors"] is None
    assert any("x_failures.csv" in note for note in result["notes"])


@pytest.mark.parametrize("name", ["result", "run"])
def test_schemas_are_valid(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema.load(name))


def test_results_and_runs_are_as_their_schemas_say() -> None:
    for folder in ("precise", "failing"):
        result = report.build(DATA / folder)
        jsonschema.validate(result, schema.load("result"))
        assert schema.problem(result, "result") is None
        jsonschema.validate(json.loads((DATA / folder / "run.json").read_text()), schema.load("run"))
    jsonschema.validate(report.from_csv(DATA / "plain" / "locust"), schema.load("result"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-1, 2) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def replace_somewhere(draw: st.DrawFn, document: Any, value: Any) -> Any:
    """Return a copy of a document in which one part, drawn at random, is another value or gone."""
    document = copy.deepcopy(document)
    part = document
    while True:
        keys = list(part) if isinstance(part, dict) else list(range(len(part)))
        key = draw(st.sampled_from(keys))
        if isinstance(part[key], dict | list) and part[key] and draw(st.booleans()):
            part = part[key]
            continue
        if draw(st.booleans()):
            part[key] = value
        else:
            del part[key]
        return document


RESULT = jsonschema.Draft202012Validator(schema.load("result"))


@functools.cache
def precise() -> dict[str, Any]:
    """Return the result of a run, not to be changed."""
    return report.build(DATA / "precise")


@given(st.data(), JSON)
def test_our_schema_check_agrees_with_jsonschema(data: st.DataObject, value: Any) -> None:
    @st.composite
    def changed(draw: st.DrawFn) -> Any:
        return replace_somewhere(draw, precise(), value)

    document = data.draw(changed())
    valid = RESULT.is_valid(document)
    assert (schema.problem(document, "result") is None) == valid


def test_a_changed_run_json_gives_a_result_or_one_line(tmp_path: Path) -> None:
    whole = json.loads((DATA / "precise" / "run.json").read_text())
    run_dir = Path(shutil.copytree(DATA / "precise", tmp_path / "run"))
    seen = set()

    @given(st.data(), JSON)
    def check(data: st.DataObject, value: Any) -> None:
        @st.composite
        def changed(draw: st.DrawFn) -> Any:
            return replace_somewhere(draw, whole, value)

        (run_dir / "run.json").write_text(json.dumps(data.draw(changed())))
        try:
            result = report.build(run_dir)
        except report.ReportError as exc:
            seen.add("line")
            assert "\n" not in str(exc)
        else:
            seen.add("result")
            RESULT.validate(result)

    check()
    assert seen == {"line", "result"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda m: m["put"].update(operations=335), "put: the workers counted 335 operations, but Locust 334"),
        (lambda m: m["txn"].update(failed=0), "txn: the workers counted 0 failures, but Locust 1"),
        (lambda m: m.update(get=None), "get: the workers counted 0 operations, but Locust 333"),
        (lambda m: m.pop("total"), "total: the workers counted 0 operations, but Locust 1000"),
        (
            lambda m: m.update(delete={"operations": 2, "succeeded": 2, "failed": 0}),
            "delete: the workers counted 2 operations, but Locust 0",
        ),
    ],
)  # fmt: skip
def test_counts_that_differ_are_a_problem(
    run_dir: Path, change: Callable[[dict[str, Any]], Any], expected: str
) -> None:
    edit(run_dir, lambda run: (run.update(thresholds=[]), change(run["measured"])))
    result = report.build(run_dir)
    assert expected in result["problems"]
    assert result["verdict"] == "unknown"


def test_a_lost_row_is_a_problem(run_dir: Path) -> None:
    path = run_dir / "locust_stats.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("etcd,get")))
    problems = report.build(run_dir)["problems"]
    assert "Locust's rows add up to 667 requests, but its Aggregated row says 1000" in problems


def test_a_lost_failure_is_a_problem(run_dir: Path) -> None:
    path = run_dir / "locust_failures.csv"
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    assert "Locust counted 4 failures, but its causes add up to 0" in report.build(run_dir)["problems"]


def test_a_run_that_never_ended_is_unknown(run_dir: Path) -> None:
    edit(run_dir, lambda run: run.update(ended_at=None, measured={}, thresholds=["put.p99_ms < 50"]))
    result = report.build(run_dir)
    assert result["verdict"] == "unknown"
    assert result["problems"] == ["the run did not end in order, so its counts are incomplete"]


def test_open_loop_has_service_latency(run_dir: Path) -> None:
    service = {"min_ms": 0.1, "p99_ms": 2.5}
    edit(run_dir, lambda run: run["measured"]["put"].update(service=service))
    result = report.build(run_dir)
    assert result["results"]["put"]["latency"]["service"]["p99_ms"] == 2.5
    jsonschema.validate(result, schema.load("result"))


STATS = (DATA / "precise" / "locust_stats.csv").read_bytes().decode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the file is empty"),
        ("\n", "the file is empty"),
        (STATS.splitlines(keepends=True)[0], "no Aggregated row at the end"),
        ("".join(STATS.splitlines(keepends=True)[:-1]), "no Aggregated row at the end"),
        (STATS.rstrip(), "ends in the middle of a row"),
        (STATS[:-100] + "\n", "fields, not 22"),
        (STATS.replace("Request Count", "Requests"), "no column 'Request Count'"),
        (STATS.replace("etcd,get,333", "etcd,get,3x3"), "row 1: Request Count is '3x3', not a count"),
        (STATS.replace("etcd,put,334,3", "etcd,put,3,334"), "row 2: more failures (334) than requests (3)"),
        (STATS.replace("0.441344", "nan"), "row 1: Median Response Time is 'nan', not a number"),
        (STATS.replace("0.441344", "-1"), "row 1: Median Response Time is '-1', not a number"),
        (STATS.replace("0.441344", "0.44,1344"), "row 1 has 23 fields, not 22"),
        ("\0" * 512 + "\n", "not a CSV file as Locust writes them"),
        ("<html></html>\n", "not a CSV file as Locust writes them (no column 'Type')"),
        ('Type,"Name\n', "not a CSV file as Locust writes them"),
    ],
)
def test_a_broken_stats_file_is_one_clear_line(run_dir: Path, text: str, expected: str) -> None:
    (run_dir / "locust_stats.csv").write_bytes(text.encode())
    with pytest.raises(report.ReportError) as caught:
        report.build(run_dir)
    assert expected in str(caught.value)
    assert "locust_stats.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_cut_anywhere_never_gives_another_number(run_dir: Path) -> None:
    whole = report.build(run_dir)
    for size in range(len(STATS)):
        (run_dir / "locust_stats.csv").write_bytes(STATS.encode()[:size])
        try:
            assert report.build(run_dir) == whole
        except report.ReportError:
            continue


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "not JSON, or cut short"),
        ('{"schema": "raftload.run/1", "meas', "not JSON, or cut short"),
        ("[]", "not a JSON object"),
        ('{"schema": "raftload.run/2", "measured": {}}', "schema is 'raftload.run/2', not 'raftload.run/1'"),
        ('{"schema": "raftload.run/1"}', "the document has no 'measured'"),
        ('{"schema": "raftload.run/1", "measured": {"put": 3}}', "measured.put is not object or null"),
        ('{"schema": "raftload.run/1", "measured": {}, "rate": NaN}', "NaN is not a JSON number"),
        ('{"schema": "raftload.run/1", "measured": {}, "thresholds": ["put.p98 < 1"]}', "'p98'"),
    ],
)
def test_a_broken_run_json_is_one_clear_line(run_dir: Path, text: str, expected: str) -> None:
    (run_dir / "run.json").write_text(text)
    with pytest.raises(report.ReportError) as caught:
        report.build(run_dir)
    assert expected in str(caught.value)
    assert "run.json" in str(caught.value)


@pytest.mark.parametrize("name", ["run.json", "locust_stats.csv", "locust_failures.csv"])
def test_a_missing_file_is_named(run_dir: Path, name: str) -> None:
    (run_dir / name).unlink()
    with pytest.raises(report.ReportError, match=f"{name}: No such file"):
        report.build(run_dir)


def test_write_is_in_one_step(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = report.write(run_dir)
    path = run_dir / "result.json"
    assert json.loads(path.read_text()) == result
    assert path.stat().st_mode & 0o777 == (run_dir / "run.json").stat().st_mode & 0o777

    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    before = sorted(run_dir.iterdir())
    monkeypatch.setattr(files, "to_json", full)
    with pytest.raises(OSError, match="No space"):
        report.write(run_dir)
    assert json.loads(path.read_text()) == result
    assert sorted(run_dir.iterdir()) == before


def test_latest_is_the_run_recorded_last(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run_dir.parent)
    runs = run_dir.parent / "runs"
    with pytest.raises(report.ReportError, match="no run in"):
        report.find_run("latest")
    for age, name in enumerate(("20260102T030405Z-kv", "20260102T030405Z-kv-10", "20260102T030405Z-kv-9")):
        shutil.copytree(run_dir, runs / name)
        os.utime(runs / name / "run.json", ns=(0, 10**9 * (10 - age)))
    assert report.find_run("latest").name == "20260102T030405Z-kv"
    (runs / "broken").mkdir()
    assert report.find_run("latest").name == "broken"
    assert report.find_run("runs/broken") == Path("runs/broken")


@pytest.fixture
def elsewhere(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a run that was started last, outside of ./runs, where an older and whole one is."""
    here = run_dir.parent / "here"
    shutil.copytree(run_dir, here / "runs" / "older")
    os.utime(here / "runs" / "older" / "run.json", ns=(0, 10**9))
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_STATE_HOME", str(run_dir.parent / "state"))
    return run_folder.create(run_dir.parent / "out" / "run", exact=True, say=pytest.fail)


def test_latest_is_the_run_started_last_wherever_it_is(
    elsewhere: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run_dir, elsewhere, dirs_exist_ok=True)
    for command in ("gate", "report"):
        done = called(capsys, command, "latest")
        assert done.stderr.splitlines()[0] == f"raftload: latest is {elsewhere}"
        assert done.returncode == {"gate": 1, "report": 0}[command]
    # Who names a run is not told which one it is; who names none means the latest.
    assert "latest is" not in called(capsys, "gate", elsewhere).stderr
    assert f"latest is {elsewhere}" in called(capsys, "gate").stderr
    # What somebody else recorded later, such as a container with a home of its own, is newer.
    shutil.copytree(run_dir, "runs/newer")
    os.utime("runs/newer/run.json")
    assert report.find_run("latest") == Path("runs/newer")
    # In another folder this run is not the last one.
    monkeypatch.chdir(run_dir.parent)
    with pytest.raises(report.ReportError, match="no run in"):
        report.find_run("latest")


def test_a_latest_run_that_broke_is_not_passed_over(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.find_run("runs/older") == Path("runs/older")
    for command in ("gate", "report", "check"):
        done = called(capsys, command, "latest")
        assert (done.returncode, done.stdout) == (2, "")
        error = "no history in " if command == "check" else ""
        assert done.stderr.startswith(f"raftload: latest is {elsewhere}\nraftload: error: {error}{elsewhere}")
    (elsewhere / "run.json").write_text("{")
    assert f"error: {elsewhere}/run.json: not JSON, or cut short" in called(capsys, "gate").stderr
    shutil.rmtree(elsewhere)
    for command in ("gate", "report", "check"):
        assert_refused(called(capsys, command), f"{elsewhere}: the folder of the latest run is gone, or that run ended")


def test_a_run_that_cannot_be_remembered_says_so(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run_dir.parent)
    monkeypatch.setenv("XDG_STATE_HOME", str(run_dir / "run.json"))  # no folder
    said: list[str] = []
    run_folder.create(Path("out"), exact=True, say=said.append)
    assert said == [
        "warning: `latest` will not be this run, which cannot be remembered (Not a directory): set XDG_STATE_HOME"
    ]
    # In ./runs it is found all the same.
    made = run_folder.create(Path("runs/a"), exact=False, say=pytest.fail)
    assert report.find_run("latest") == made


def test_folders_of_long_ago_are_forgotten(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(run_dir))
    monkeypatch.setattr(latest, "_MOST", 3)
    for number in range(5):
        here = run_dir / f"{number}\udcff"
        here.mkdir()
        monkeypatch.chdir(here)
        assert latest.remember(Path("out")) is None
        found = latest.remembered()
        assert found is not None and found[0] == here / "out"
    assert len([*(run_dir / "raftload" / "latest").iterdir()]) == 3


def test_main_prints_a_table_or_a_document(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = called(capsys, "report", run_dir)
    assert done.returncode == 0 and "latency of successes, ms" in done.stdout
    done = called(capsys, "report", run_dir, "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, json.loads((run_dir / "result.json").read_text()))
    done = called(capsys, "report", "--csv", f"{DATA}/plain/locust", "--json")
    assert (done.returncode, json.loads(done.stdout)["results"]["total"]["operations"]) == (0, 255)
    assert done.stderr.startswith("raftload: hint: ")


@pytest.mark.parametrize("command", [("report",), ("report", "{run}"), ("check",), ("gate",)])
@pytest.mark.parametrize(
    ("name", "says"),
    [("nowhere", "nowhere: no such run folder"), ("latest", "no run in {here}/runs; name a run folder")],
)
def test_every_command_words_a_missing_run_alike(
    command: tuple[str, ...], name: str, says: str, run_dir: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(run_dir.parent)
    done = called(capsys, *(word.format(run=run_dir) for word in command), name)
    assert_refused(done, f"error: {says.format(here=run_dir.parent)}")


@pytest.mark.parametrize("command", ["report", "check"])
def test_a_file_is_no_run_folder(command: str, run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run_dir / "run.json"
    assert_refused(called(capsys, command, path), f"error: {path}: no such run folder")


def test_what_cannot_be_written_is_named(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run_dir / "result.json"
    path.mkdir()
    done = called(capsys, "report", run_dir)
    assert (done.returncode, done.stdout, done.stderr) == (
        4, "", f"raftload: error: cannot write {path}: Is a directory\n"
    )  # fmt: skip


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("words", [("report", "--json"), ("report",), ("gate",), ("report", "--csv", "{plain}")])
def test_a_full_stdout_is_named(words: tuple[str, ...], unbuffered: str, run_dir: Path) -> None:
    given = [word.format(plain=DATA / "plain" / "locust") for word in words]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "loadgen.cli", *given, *([] if "--csv" in words else [str(run_dir)])],
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered}, stdout=full, stderr=subprocess.PIPE, text=True,
            cwd=DATA.parents[2], check=False,
        )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if not line.startswith("raftload: hint: ")]
    assert (done.returncode, said) == (4, ["raftload: error: cannot write to stdout: No space left on device"])


def test_importing_is_cheap() -> None:
    code = (
        "import sys, loadgen.cli.report, viz.report.page, viz.report.compare, loadgen.cli.gate, loadgen.result.table;"
        "import loadgen.result.junit;"
        "print([name for name in ('locust', 'gevent', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def fields(part: dict[str, Any]) -> set[str]:
    """Return every property that a schema, or a part of one, names."""
    found = set(part.get("properties", {}))
    for inner in (*part.get("properties", {}).values(), *part.get("$defs", {}).values(), part.get("items")):
        if isinstance(inner, dict):
            found |= fields(inner)
    return found


@pytest.mark.parametrize("name", ["result", "run"])
def test_every_field_is_documented(name: str) -> None:
    text = (DATA.parents[2] / "docs" / "formats.md").read_text()
    assert sorted(field for field in fields(schema.load(name)) if f"`{field}`" not in text) == []


def test_every_column_is_documented() -> None:
    text = (DATA.parents[2] / "docs" / "formats.md").read_text()
    for path in (DATA / "precise").glob("*.csv"):
        for column in path.read_text().splitlines()[0].split(","):
            assert f"`{column}`" in text or column.startswith("Total "), f"{path.name}: {column}"
