"""A run folder, or any Locust run's CSV files, made into the result document ``raftload.result/1``.

What was counted and how long it took comes from Locust's CSV files; what was run, against what, and between
which two moments comes from run.json. The two are held against each other: a difference is a problem of the
run, and a run with a problem cannot pass.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cluster.base.files import write_json
from cluster.observe import record
from cluster.schema.run_documents import NO_GENERATOR, NO_TARGET
from loadgen import schema
from loadgen.diagnose import finished
from loadgen.diagnose.answer import LEAST_OF_RUN_S
from loadgen.history.operation import IN_MIX
from loadgen.load.settings import PARAMETERS
from loadgen.result import gate, knee, known, latest, perf_marks
from loadgen.result.locust_csv import (
    AGGREGATED,
    FailureRow,
    Failures,
    ReportError,
    Stats,
    StatsRow,
    read_failures,
    read_stats,
)
from loadgen.result.threshold import TYPES, Threshold, ThresholdError

if TYPE_CHECKING:
    from cluster.observe.record import Record
    from cluster.schema.diagnose_documents import RunDiagnosisDocument
    from cluster.schema.run_documents import (
        Knee,
        Latency,
        Measured,
        Parameters,
        Result,
        ResultTarget,
        Row,
        Run,
        ServiceLatencies,
        UnjudgedResult,
    )  # fmt: skip

__all__ = ["LATEST", "ReportError", "build", "find_run", "from_csv", "load", "write"]

LATEST = "latest"

RUN_FIELDS = (
    "id", "started_at", "ended_at", "command", "environment", "scenario", "loop", *(each.field for each in PARAMETERS),
    "allow_rate_miss", "workers", "users", "prefix", "versions", "warmup", "preloaded_keys", "series_interval_s",
)  # fmt: skip
_SUFFIXES = ("_stats.csv", "_requests.csv", ".csv")
_KIND = re.compile(r"(?P<before>.*)(?:stats|requests)(?P<after>.*)", re.DOTALL)
_TIME = re.compile(r"_[0-9]+(\.[0-9]+)?( ?\([0-9]+\))?\.csv")
_MOST_PROBLEMS = 20
_NOT_MEASURED: Measured = {"operations": 0, "succeeded": 0, "failed": 0}


def build(run_dir: Path, run: Run | None = None, tables: Mapping[Path, bytes] | None = None) -> Result:
    """Return the result document of a run folder, judged by the thresholds in its run.json.

    Takes what that and the CSV files should say, of a folder that could not be written. Reads files only and writes
    nothing. Raises ReportError where its run.json or one of its CSV files is missing or broken.
    """
    run = run or _read_run(run_dir / "run.json")
    stats_path, failures_path = run_dir / "locust_stats.csv", run_dir / "locust_failures.csv"
    stats = read_stats(stats_path, ours=True, data=(tables or {}).get(stats_path))
    counted = _Counted(stats, read_failures(failures_path, ours=True, data=(tables or {}).get(failures_path)))
    measured = run["measured"]
    problems = [str(problem) for problem in run.get("problems") or []]
    problems += counted.problems()
    if run.get("ended_at"):
        problems += _capped(counted.differences(measured), "differences")
    else:
        problems.append("the run did not end in order, so its counts are incomplete")
    results = _results(counted, measured)
    try:
        # Of a type that the run has and that was never reached, the threshold is unknown.
        types = {*results, *TYPES, *(run.get("mix") or ())}
        thresholds = [Threshold.parse(text, types, lambda: None) for text in run.get("thresholds") or []]
    except ThresholdError as exc:
        raise ReportError(f"{run_dir / 'run.json'}: {exc}") from exc
    total = measured.get("total")
    watched = record.read(run_dir)
    target: ResultTarget = {**NO_TARGET, **(run.get("target") or NO_TARGET), **record.summary(watched)}
    result: UnjudgedResult = {
        "schema": "raftload.result/1",
        "run": _parameters(run, total.get("duration_s") if total else None),
        "target": target,
        "results": results,
        "generator": {**NO_GENERATOR, **(run.get("generator") or NO_GENERATOR)},
        "knee": _knee(run_dir, run, problems),
        "books": run.get("books"),
        "interrupted": run.get("interrupted"),
        "aborted": run.get("aborted"),
        "lost_workers": run.get("lost_workers") or [],
        "problems": problems,
        "notes": [str(note) for note in run.get("notes") or []],
    }
    # Of runs that had faults or were checked; other runs do not have these at all.
    if "chaos" in run:
        result["chaos"] = run["chaos"]
    if "check" in run:
        result["check"] = run["check"]
    if perf := run.get("perf"):
        result["perf"] = perf_marks.judged(
            run_dir, perf, results, measured, target, is_short=bool(result["lost_workers"])
        )
    if "capacity" in run:
        result["capacity"] = run["capacity"]
    if (diagnosis := _diagnosis(watched, result)) is not None:
        result["diagnosis"] = diagnosis
    return gate.apply(result, thresholds)


def _diagnosis(watched: Record, result: UnjudgedResult) -> RunDiagnosisDocument | None:
    """Return what was slow in a run; None where nobody watched its members, or not for long enough to say."""
    found = finished.diagnose(watched, cast("Result", result))  # it asks for no verdict
    if found is None or found.evidence.seconds < LEAST_OF_RUN_S:
        return None
    whole = found.to_json()
    return {"cluster": whole["cluster"], "members": whole["members"], "notes": whole["notes"]}


def _knee(run_dir: Path, run: Run, problems: list[str]) -> Knee | None:
    try:
        return knee.find(run_dir, run)
    except (OSError, ValueError) as exc:
        problems.append(f"no knee was computed: {exc}")
        return None


def from_csv(prefix: Path | str) -> Result:
    """Return the result document of a plain Locust run's CSV files.

    Takes the prefix of ``PREFIX_stats.csv`` and ``PREFIX_failures.csv``, or the file of requests itself, by whatever
    name. What the files do not say is None; throughput is Locust's Requests/s. Requests by other names than put, get
    and txn stand beside these under their own. Raises ReportError where there is no such file or it is broken.
    """
    path = _stats_file(str(prefix))
    stats = read_stats(path)
    failures, notes = _failures_beside(path)
    counted = _Counted(stats, failures)
    notes += counted.notes
    if stats.total.failures:
        notes.insert(0, "latencies may include failed requests: Locust counts every request that has a response time")
    result: UnjudgedResult = {
        "schema": "raftload.result/1",
        "run": _parameters({}, None),
        "target": None,
        "results": _results(counted, None),
        "generator": None,
        "knee": None,
        "books": None,
        "interrupted": None,
        "aborted": None,
        "lost_workers": [],
        "problems": counted.problems(),
        "notes": notes,
    }
    return gate.apply(result, [])


def _stats_file(prefix: str) -> Path:
    """Return the file of requests that a prefix means, or that it is. Raises ReportError where there is none."""
    if Path(prefix).exists() and not Path(prefix).is_dir():  # it may come through a pipe
        return Path(prefix)
    found = next((path for path in (Path(prefix + suffix) for suffix in _SUFFIXES) if path.is_file()), None)
    if found is None:
        raise ReportError(
            f"{prefix + _SUFFIXES[0]}: no such file; give the prefix that Locust was given as --csv, or a file of "
            "requests that its web page gave you"
        )
    return found


def _failures_beside(stats: Path) -> tuple[Failures | None, list[str]]:
    """Return the failures that belong to a file of requests, and why not where they cannot be read."""
    path = _failures_file(stats)
    if path is None or not path.exists():
        missing = (path or stats.with_name("*_failures.csv")).name
        return None, [f"{missing} is missing, so failures are not told apart by cause"]
    try:
        return read_failures(path), []
    except ReportError as exc:
        return None, [f"{exc}; failures are not told apart by cause"]


def _failures_file(stats: Path) -> Path | None:
    """Return the file of failures beside one of requests; None where its name does not say.

    Locust's web page put the time of the download into the name, ``requests_1600000000.12.csv``, until 2.31; of a
    single ``failures_….csv`` beside it that is enough.
    """
    found = _KIND.fullmatch(stats.name)
    if found is None:
        return None
    before, after = found["before"], found["after"]
    path = stats.with_name(f"{before}failures{after}")
    if not path.exists() and _TIME.fullmatch(after):
        others = [each for each in stats.parent.iterdir() if _is_download(each.name, before)]
        return others[0] if len(others) == 1 else path
    return path


def _is_download(name: str, before: str) -> bool:
    return bool(_TIME.fullmatch(name.removeprefix(f"{before}failures")))


def write(run_dir: Path) -> Result:
    """Build a run folder's result, write it to its result.json in one step, and return it.

    Raises ReportError where it cannot be built, and OSError where it cannot be written; an older result.json
    is then left as it was.
    """
    result = build(run_dir)
    write_json(run_dir / "result.json", result)
    return result


def find_run(name: str, runs: Path = Path("runs")) -> Path:
    """Return the run folder that RUN means: ``latest`` is the newest one that is known here, any other is itself.

    Known are the run that was started last from the current folder, wherever its run folder is, and those in ./runs,
    which others may have put there. The newest is the one whose run.json was written last. A folder without one counts
    too: a run that broke must not be passed over for an older one that did not, and neither must one whose folder is
    gone. Raises ReportError where there is no such folder.
    """
    path = Path(name)
    if path.is_dir():
        return path
    if name != LATEST or path.exists():
        raise ReportError(f"{name}: no such run folder")
    try:
        ages = {folder: _written_at(folder) for folder in runs.iterdir() if folder.is_dir()}
    except OSError:
        ages = {}
    last, started_at = latest.remembered() or (None, 0)
    if last is not None:
        last = _as_seen_from_here(last)
        if last.is_dir():
            ages[last] = max(started_at, _written_at(last))
        elif started_at > max(ages.values(), default=0):
            raise ReportError(
                f"{last}: the folder of the latest run is gone, or that run ended before its load began; "
                "name a run folder"
            )
    if not ages:
        raise ReportError(f"no run in {runs.absolute()}; name a run folder, or run `raftload bench` first")
    return max(ages, key=lambda folder: (ages[folder], folder == last, folder.name))


def _as_seen_from_here(folder: Path) -> Path:
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _written_at(folder: Path) -> int:
    """Return when a run was recorded; for one that never came so far, when its folder was last changed."""
    with contextlib.suppress(OSError):
        return (folder / "run.json").stat().st_mtime_ns
    return folder.stat().st_mtime_ns


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


class _Counted:
    """What Locust's files say, under the names that the requests have in ``results``.

    Attributes:
        rows: by name, each row of Locust's.
        total: the row over all requests.
        causes: the failures of each row; None where there are none to be had.
        all_causes: all failures; None where there is no file of them.
        notes: what was left out of the files.
    """

    def __init__(self, stats: Stats, failures: Failures | None) -> None:
        self.rows = dict(zip(_names(stats.rows), stats.rows, strict=True))
        self.total = stats.total
        self.all_causes = None if failures is None else failures.rows
        self.notes = [*stats.notes, *(failures.notes if failures is not None else ())]
        causes = defaultdict(list)
        for cause in self.all_causes or ():
            causes[cause.type, cause.name].append(cause)
        # Of rows that Locust would not tell apart, which have failed how?
        same = Counter((row.type, row.name) for row in stats.rows)
        self.causes = {
            name: None if failures is None or same[row.type, row.name] > 1 else causes[row.type, row.name]
            for name, row in self.rows.items()
        }

    def problems(self) -> list[str]:
        """Return in what ways the files contradict themselves and each other."""
        problems = []
        for what, counted, total in (
            ("requests", sum(row.requests for row in self.rows.values()), self.total.requests),
            ("failures", sum(row.failures for row in self.rows.values()), self.total.failures),
        ):
            if counted != total:
                problems.append(f"Locust's rows add up to {counted} {what}, but its {AGGREGATED} row says {total}")
        if self.all_causes is None:
            return problems
        caused = sum(cause.occurrences for cause in self.all_causes)
        if caused != self.total.failures:
            problems.append(f"Locust counted {self.total.failures} failures, but its causes add up to {caused}")
        return problems + _capped(self._odd_causes(), "names")

    def _odd_causes(self) -> list[str]:
        odd = []
        for name, causes in self.causes.items():
            if causes is not None and (caused := sum(each.occurrences for each in causes)) != self.rows[name].failures:
                failed = self.rows[name].failures
                odd.append(f"{name}: Locust counted {failed} failures, but its causes add up to {caused}")
        return odd

    def differences(self, measured: Mapping[str, Measured | None]) -> list[str]:
        """Return where Locust counted other operations than the workers did."""
        counted = self.rows | {"total": self.total}
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


def _names(rows: Sequence[StatsRow]) -> list[str]:
    """Return the name of each row in ``results``, all of them different and none the total's.

    That is the request's name, with its type before it where the name does not tell it apart, and a number behind it
    where that does not either.
    """
    shared = Counter(row.name for row in rows)
    apart = [f"{row.type} {row.name}".strip() or "(no name)" for row in rows]
    names = [
        longer if shared[row.name] > 1 or row.name in ("", "total", AGGREGATED) else row.name
        for row, longer in zip(rows, apart, strict=True)
    ]
    taken = Counter(names)
    names = [longer if taken[name] > 1 else name for name, longer in zip(names, apart, strict=True)]
    given, last = {"total"}, Counter[str]()
    for at, name in enumerate(names):
        while names[at] in given:
            last[name] += 1
            names[at] = f"{name} ({last[name] + 1})"
        given.add(names[at])
    return names


def _capped(lines: list[str], what: str) -> list[str]:
    """Return the first lines, and how many more there are."""
    rest = len(lines) - _MOST_PROBLEMS
    return lines if rest <= 0 else [*lines[:_MOST_PROBLEMS], f"{rest:,} more {what} of this kind"]


def _results(counted: _Counted, measured: Mapping[str, Measured | None] | None) -> dict[str, Row | None]:
    """Return ``results``: a row per request name, then the total. ``measured`` is run.json's, or None."""
    results: dict[str, Row | None] = dict.fromkeys(IN_MIX)
    for name, row in counted.rows.items():
        results[name] = _row(
            row, counted.causes[name], None if measured is None else measured.get(name) or _NOT_MEASURED
        )
    # The total of no requests is a run of nothing, not a run that was not.
    total = None if measured is None else measured.get("total") or _NOT_MEASURED
    results["total"] = _row(counted.total, counted.all_causes, total)
    return {name: row if row and (name == "total" or row["operations"]) else None for name, row in results.items()}


def _row(row: StatsRow, failures: list[FailureRow] | None, measured: Measured | None) -> Row:
    succeeded = row.requests - row.failures
    errors: dict[str, int] | None = None
    if failures is not None:
        errors = {}
        for failure in sorted(failures, key=lambda failure: (-failure.occurrences, failure.error)):
            errors[failure.error] = errors.get(failure.error, 0) + failure.occurrences
    throughput: float | None = row.rate
    info: int | None = None
    # Plain Locust times failed requests too.
    few = known.too_few_samples(row.requests if measured is None else succeeded)
    service: ServiceLatencies | None = None
    if measured is not None:
        duration = measured.get("duration_s")
        throughput = round(row.requests / duration, 3) if duration else None
        info, times = measured.get("info"), measured.get("service")
        service = None if times is None else {**times, "too_few_samples": few}
    document: Row = {
        "operations": row.requests,
        "succeeded": succeeded,
        "failed": row.failures,
        "info": info,
        "success_rate": succeeded / row.requests if row.requests else None,
        "throughput_ops_s": throughput,
        "latency": cast("Latency", {**row.latency, "too_few_samples": few, "service": service}) if succeeded else None,
        "errors": errors,
    }
    if measured and (texts := measured.get("error_texts")):
        document["error_texts"] = texts
    if measured and measured.get("branches") is not None:
        document["branches"] = measured["branches"]
    return document
