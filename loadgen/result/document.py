"""A run folder, or any Locust run's CSV files, made into the result document ``raftload.result/1``.

What was counted and how long it took comes from Locust's CSV files; what was run, against what, and between
which two moments comes from run.json. The two are held against each other: a difference is a problem of the
run, and a run with a problem cannot pass.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cluster.base.files import write_json
from cluster.observe import record
from cluster.schema.run_documents import NO_GENERATOR, NO_TARGET
from loadgen import schema
from loadgen.history.operation import IN_MIX
from loadgen.load.settings import PARAMETERS
from loadgen.result import gate, knee
from loadgen.result.locust_csv import AGGREGATED, FailureRow, ReportError, StatsRow, read_failures, read_stats
from loadgen.result.threshold import Threshold, ThresholdError

if TYPE_CHECKING:
    from cluster.schema.run_documents import (
        Knee,
        Latencies,
        Latency,
        Measured,
        Parameters,
        Result,
        ResultTarget,
        Row,
        Run,
        UnjudgedResult,
    )  # fmt: skip

__all__ = ["ReportError", "build", "find_run", "from_csv", "load", "write"]

RUN_FIELDS = (
    "id", "started_at", "ended_at", "command", "scenario", "loop", *(each.field for each in PARAMETERS),
    "allow_rate_miss", "workers", "users", "prefix", "versions", "warmup", "preloaded_keys",
)  # fmt: skip
_SUFFIX = "_stats.csv"
_NOT_MEASURED: Measured = {"operations": 0, "succeeded": 0, "failed": 0}


def build(run_dir: Path) -> Result:
    """Return the result document of a run folder, judged by the thresholds in its run.json.

    Reads files only and writes nothing. Raises ReportError where its run.json or one of its CSV files is missing or
    broken.
    """
    run = _read_run(run_dir / "run.json")
    rows = read_stats(run_dir / "locust_stats.csv")
    failures = read_failures(run_dir / "locust_failures.csv")
    measured = run["measured"]
    problems = [str(problem) for problem in run.get("problems") or []]
    problems += _row_problems(rows, failures)
    if run.get("ended_at"):
        problems += _count_problems(rows, measured)
    else:
        problems.append("the run did not end in order, so its counts are incomplete")
    results = _results(rows, failures, measured)
    try:
        thresholds = [Threshold.parse(text, results) for text in run.get("thresholds") or []]
    except ThresholdError as exc:
        raise ReportError(f"{run_dir / 'run.json'}: {exc}") from exc
    total = measured.get("total")
    target: ResultTarget = {**NO_TARGET, **(run.get("target") or NO_TARGET), **record.summary(run_dir)}
    result: UnjudgedResult = {
        "schema": "raftload.result/1",
        "run": _parameters(run, total.get("duration_s") if total else None),
        "target": target,
        "results": results,
        "generator": {**NO_GENERATOR, **(run.get("generator") or NO_GENERATOR)},
        "knee": _knee(run_dir, run, problems),
        "books": run.get("books"),
        "interrupted": run.get("interrupted"),
        "lost_workers": run.get("lost_workers") or [],
        "problems": problems,
        "notes": [str(note) for note in run.get("notes") or []],
    }
    # Of runs that had faults or were checked; other runs do not have these at all.
    if "chaos" in run:
        result["chaos"] = run["chaos"]
    if "check" in run:
        result["check"] = run["check"]
    return gate.apply(result, thresholds)


def _knee(run_dir: Path, run: Run, problems: list[str]) -> Knee | None:
    try:
        return knee.find(run_dir, run)
    except (OSError, ValueError) as exc:
        problems.append(f"no knee was computed: {exc}")
        return None


def from_csv(prefix: Path | str) -> Result:
    """Return the result document of a plain Locust run's ``PREFIX_stats.csv`` and ``PREFIX_failures.csv``.

    What the files do not say is None; throughput is Locust's Requests/s. Requests by other names than put,
    get and txn stand beside these under their own. Raises ReportError where there is no such file or one
    is broken.
    """
    base = str(prefix).removesuffix(_SUFFIX)
    stats_path = Path(base + _SUFFIX)
    if not stats_path.is_file():
        raise ReportError(f"{stats_path}: no such file; give the prefix that Locust was given as --csv")
    rows = read_stats(stats_path)
    failures_path = Path(base + "_failures.csv")
    failures = read_failures(failures_path) if failures_path.exists() else None
    notes = []
    if rows[-1].failures:
        notes.append("latencies may include failed requests: Locust counts every request that has a response time")
    if failures is None:
        notes.append(f"{failures_path.name} is missing, so failures are not told apart by cause")
    result: UnjudgedResult = {
        "schema": "raftload.result/1",
        "run": _parameters({}, None),
        "target": None,
        "results": _results(rows, failures, None),
        "generator": None,
        "knee": None,
        "books": None,
        "interrupted": None,
        "lost_workers": [],
        "problems": _row_problems(rows, failures),
        "notes": notes,
    }
    return gate.apply(result, [])


def write(run_dir: Path) -> Result:
    """Build a run folder's result, write it to its result.json in one step, and return it.

    Raises ReportError where it cannot be built, and OSError where it cannot be written; an older result.json
    is then left as it was.
    """
    result = build(run_dir)
    write_json(run_dir / "result.json", result)
    return result


def find_run(name: str, runs: Path = Path("runs")) -> Path:
    """Return the run folder that RUN means: ``latest`` is the newest one in ./runs, any other is itself.

    The newest is the one whose run.json was written last. A folder without one counts too: a run that broke
    must not be passed over for an older one that did not. Raises ReportError where there is no such folder.
    """
    path = Path(name)
    if path.is_dir():
        return path
    if name != "latest" or path.exists():
        raise ReportError(f"{name}: no such run folder")
    try:
        ages = {folder: _written_at(folder) for folder in runs.iterdir() if folder.is_dir()}
    except OSError:
        ages = {}
    if not ages:
        raise ReportError(f"no run in {runs.absolute()}; name a run folder, or run `raftload bench` first")
    return max(ages, key=lambda folder: (ages[folder], folder.name))


def _written_at(folder: Path) -> int:
    """Return when a run was recorded; for one that never came so far, when its folder was last changed."""
    record = folder / "run.json"
    return (record if record.is_file() else folder).stat().st_mtime_ns


def load(name: str) -> Result:
    """Return the judged result of a run folder, of ``latest``, or of a result.json.

    A folder's result is built anew from its files. Raises ReportError.
    """
    path = Path(name)
    if path.is_dir() or not path.exists():  # a result may come through a pipe
        return build(find_run(name))
    result = _read_json(path)
    if wrong := schema.problem(result, "result"):
        raise ReportError(f"{path}: not a result document: {wrong}")
    return cast("Result", result)


def _read_json(path: Path) -> object:
    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except OSError as exc:
        raise ReportError(f"{path}: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise ReportError(f"{path}: not JSON, or cut short ({exc})") from exc
    if not isinstance(document, dict):
        raise ReportError(f"{path}: not a JSON object")
    return document


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _read_run(path: Path) -> Run:
    if not path.exists():
        raise ReportError(f"{path}: No such file: this is not a run folder, or the run ended before its load began")
    run = _read_json(path)
    if wrong := schema.problem(run, "run"):
        raise ReportError(f"{path}: {wrong}")
    return cast("Run", run)


def _parameters(run: Mapping[str, object], duration_s: float | None) -> Parameters:
    """Return the parameters in run.json for a result, and how long the load took; None for what is not there."""
    parameters = {field: run.get(field) for field in RUN_FIELDS}
    times = {"duration_s": duration_s, "requested_duration_s": run.get("duration_s")}
    return cast("Parameters", parameters | times)


def _key(row: StatsRow | FailureRow, rows: list[StatsRow]) -> str:
    """Return a request's name in ``results``; its type is put before it where the name alone is taken."""
    shared = sum(other.name == row.name for other in rows[:-1]) > 1
    return f"{row.type} {row.name}".strip() if shared or row.name in ("total", AGGREGATED) else row.name


def _results(
    rows: list[StatsRow], failures: list[FailureRow] | None, measured: Mapping[str, Measured | None] | None
) -> dict[str, Row | None]:
    """Return ``results``: a row per request name, then the total. ``measured`` is run.json's, or None."""
    by_key = {_key(row, rows): row for row in rows[:-1]}
    results: dict[str, Row | None] = dict.fromkeys(IN_MIX)
    for key, row in by_key.items():
        causes = None if failures is None else [failure for failure in failures if _key(failure, rows) == key]
        results[key] = _row(row, causes, None if measured is None else measured.get(key) or _NOT_MEASURED)
    # The total of no requests is a run of nothing, not a run that was not.
    total = None if measured is None else measured.get("total") or _NOT_MEASURED
    results["total"] = _row(rows[-1], failures, total)
    return {key: row if row and (key == "total" or row["operations"]) else None for key, row in results.items()}


def _row(row: StatsRow, failures: list[FailureRow] | None, measured: Measured | None) -> Row:
    succeeded = row.requests - row.failures
    errors: dict[str, int] | None = None
    if failures is not None:
        errors = {}
        for failure in sorted(failures, key=lambda failure: (-failure.occurrences, failure.error)):
            errors[failure.error] = errors.get(failure.error, 0) + failure.occurrences
    throughput: float | None = row.rate
    info: int | None = None
    service: Latencies | None = None
    if measured is not None:
        duration = measured.get("duration_s")
        throughput = round(row.requests / duration, 3) if duration else None
        info, service = measured.get("info"), measured.get("service")
    document: Row = {
        "operations": row.requests,
        "succeeded": succeeded,
        "failed": row.failures,
        "info": info,
        "success_rate": succeeded / row.requests if row.requests else None,
        "throughput_ops_s": throughput,
        "latency": cast("Latency", {**row.latency, "service": service}) if succeeded else None,
        "errors": errors,
    }
    if measured and measured.get("branches") is not None:
        document["branches"] = measured["branches"]
    return document


def _row_problems(rows: list[StatsRow], failures: list[FailureRow] | None) -> list[str]:
    """Return in what ways Locust's files contradict each other."""
    problems = []
    counted, total = sum(row.requests for row in rows[:-1]), rows[-1].requests
    if counted != total:
        problems.append(f"Locust's rows add up to {counted} requests, but its {AGGREGATED} row says {total}")
    caused = None if failures is None else sum(failure.occurrences for failure in failures)
    if caused is not None and caused != rows[-1].failures:
        problems.append(f"Locust counted {rows[-1].failures} failures, but its causes add up to {caused}")
    return problems


def _count_problems(rows: list[StatsRow], measured: Mapping[str, Measured | None]) -> list[str]:
    """Return where Locust counted other operations than the workers did."""
    counted = {_key(row, rows): row for row in rows[:-1]} | {"total": rows[-1]}
    problems = []
    for name in dict.fromkeys([*IN_MIX, *measured, *counted]):
        ours, theirs = measured.get(name) or _NOT_MEASURED, counted.get(name)
        for field, here, there in (
            ("operations", ours["operations"], theirs.requests if theirs else 0),
            ("failures", ours["failed"], theirs.failures if theirs else 0),
        ):
            if here != there:
                problems.append(f"{name}: the workers counted {here} {field}, but Locust {there}")
    return problems
