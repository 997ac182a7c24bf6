"""The parts of a report that are text and tables. Every figure is that of ``result.json``, and says which one it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from cluster.base.console import short
from cluster.base.long_tables import largest
from cluster.base.verdict import NONE
from cluster.observe import samples
from cluster.observe.record import PHASES
from cluster.schema import repeat as again
from cluster.schema.run_documents import NO_GENERATOR, NO_TARGET, not_reachable, why_not_compared
from viz.diagrams.model import human_bytes
from viz.report.charts import number, significant
from viz.report.run_charts import COMMIT_MARK_MS, FSYNC_MARK_MS, UNITS
from viz.report.rundata import RunData, found_at

if TYPE_CHECKING:
    from cluster.schema.run_documents import CpuWait, Parameters, Phases, Result, ResultThreshold

_LATENCIES = {"min_ms": "min", "mean_ms": "mean", "p50_ms": "p50", "p90_ms": "p90", "p95_ms": "p95", "p99_ms": "p99",
              "p99_9_ms": "p99.9", "p99_99_ms": "p99.99", "max_ms": "max"}  # fmt: skip
MOST_NAMES, MOST_CAUSES, MOST_REASONS = 300, 100, 100
LONGEST_TEXT = 200
_PARAMETERS = {
    "started_at": "started", "ended_at": "ended", "loop": "kind of loop", "mix": "weights of operation types",
    "key_size": "length of a key, bytes", "value_size": "length of a value, bytes", "key_space": "different keys",
    "read_consistency": "consistency of reads", "connections": "connections per worker",
    "balance": "balancing over endpoints", "rate": "rate asked for, operations/s", "stages": "stages of the load",
    "step": "step of the load", "max_in_flight": "most operations in flight", "prefix": "prefix of keys",
    "allow_rate_miss": "the rate may be missed", "preloaded_keys": "keys written before the load",
    "warmup_s": "warm-up, s", "warmup": "operations in the warm-up", "timeout_s": "timeout of an operation, s",
    "requested_duration_s": "duration asked for, s", "duration_s": "duration, s", "scenario": "scenario",
}  # fmt: skip
_UNITS_OF_KEYS = {"_ops_s": "operations/s", "_ms": "ms", "_s": "s", "_bytes": "bytes"}
UNKNOWN = '<span class="dim">-</span>'
TOO_FEW = '<span class="dim" title="too few samples">-</span>'
_FRACTIONS = {"p50_ms": 0.5, "p90_ms": 0.9, "p95_ms": 0.95, "p99_ms": 0.99, "p99_9_ms": 0.999, "p99_99_ms": 0.9999}


def figure(document: Mapping[str, object], *path: str) -> str:
    """Return a number of a document at a path of keys, as HTML that names it; a dash where it is not known."""
    value = found_at(document, path)
    if value is None or isinstance(value, Mapping | list):
        return UNKNOWN
    text = significant(value) if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    field = ".".join(map(_short, path))
    is_failures = path[-1] == "failed" or "errors" in path[:-1]
    red = ' class="fail"' if is_failures and value else ""
    return f'<data value="{escape(str(value))}" data-field="{escape(field)}"{red}>{escape(text)}</data>'


def failures(count: float, unit: str = "") -> str:
    """Return how many operations failed as HTML, in red where any did. Takes also what is to stand behind it."""
    text = number(count) + unit
    return f'<span class="fail">{text}</span>' if count else text


def badge(verdict: object) -> str:
    """Return a verdict as HTML, in its colour."""
    text = escape(str(verdict))
    return f'<b class="{text}">{text.upper()}</b>'


def known(value: float | None) -> str:
    """Return a number as HTML; a dash where it is not known."""
    return UNKNOWN if value is None else number(value)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], text: Sequence[int] = (), sums: bool = False) -> str:
    """Return a table of cells that are HTML; takes which columns are words, and whether the last row is a sum."""
    classes = [' class="text"' if column in text else "" for column in range(len(head))]
    made = ["<tr>" + "".join(f"<th{c}>{h}</th>" for h, c in zip(head, classes, strict=True)) + "</tr>"]
    body = list(rows)
    for index, row in enumerate(body):
        last = ' class="sum"' if sums and index == len(body) - 1 else ""
        made.append(f"<tr{last}>" + "".join(f"<td{c}>{v}</td>" for v, c in zip(row, classes, strict=True)) + "</tr>")
    return f'<div class="scroll"><table><thead>{made[0]}</thead><tbody>{"".join(made[1:])}</tbody></table></div>'


def folded(summary: str, inside: str) -> str:
    """Return what is seen when a line is clicked, and on paper; takes the line as text."""
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return names and values, the values HTML; those that are empty left out."""
    inside = "".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in pairs if value)
    return f'<dl class="facts">{inside}</dl>' if inside else ""


def head(data: RunData, above: str = "") -> str:
    """Title, verdict, what was run, and the figures that one looks for first. Takes HTML to stand above these."""
    result = data.result
    run, target = result["run"], result.get("target") or NO_TARGET
    verdict = str(result.get("verdict") or "unknown")
    members, users, rate = target.get("members"), run.get("users"), run.get("rate")
    if result.get("capacity"):
        rate = None  # a search has many
    count = len(members) if isinstance(members, list) else members
    said = [
        f"{target.get('kind')} etcd {target.get('etcd_version')}" if target.get("etcd_version") else "",
        f"{count} member{'s' * (count != 1)}" if count else "",
        f"{number(users)} users in {run['workers']} workers" if users else "",
        f"{run['loop']} loop" + (f" at {number(rate)}/s" if rate else "") if run.get("loop") else "",
        f"{run['duration_s']:.1f} s" if run.get("duration_s") else "",
        str(run.get("started_at") or "").replace("T", " ").partition(".")[0] + " UTC" if run.get("started_at") else "",
    ]
    cards = [
        (figure(result, "results", "total", "succeeded"), "operations succeeded"),
        (figure(result, "results", "total", "failed"), _failed(result)),
        (figure(result, "results", "total", "throughput_ops_s"), "operations per second"),
        (f"{latency(result, 'total', 'p50_ms')} <small>/ {latency(result, 'total', 'p99_ms')}</small>",
         "p50 / p99 latency, ms"),
    ]  # fmt: skip
    if data.series:
        longest = number(round(longest_silence(data), 1))
        cards.append((f"{longest}<small> s</small>", "longest time without a success"))
    if target.get("leader_changes") is not None:
        cards.append((figure(result, "target", "leader_changes"), _leaderless(data)))
    boxes = "".join(f"<div><dd>{value}</dd><dt>{escape(name)}</dt></div>" for value, name in cards)
    title = escape(str(run.get("scenario") or data.id))
    return (f'<header><h1>{title}<span class="pill {escape(verdict)}">{escape(verdict.upper())}</span></h1>'
            f'<p class="sub">{escape(", ".join(filter(None, said)))}<br>run {escape(data.id)}</p>'
            f'{above}<dl class="cards">{boxes}</dl></header>')  # fmt: skip


def _failed(result: Result) -> str:
    total = result["results"].get("total")
    info = total and total.get("info")
    return f"failed, {number(info)} of them with unknown effect" if info else "failed"


def _leaderless(data: RunData) -> str:
    elections = [each for each in data.history.elections if each.won and data.begin <= each.won <= data.end]
    waits = [each.won - each.began for each in elections if each.won]
    return f"leader changes; longest time without a leader: {max(waits):.2f} s" if waits else "leader changes"


def longest_silence(data: RunData) -> float:
    """Return the length of the intervals in a row in which nothing succeeded, at most, in seconds."""
    longest = current = 0.0
    last: float | None = None
    for interval in data.series.get("total", ()):
        if last is not None:
            current += interval.at - last  # an idle time may have no row
        last = interval.end
        current = 0.0 if interval.succeeded else current + interval.length_s
        longest = max(longest, current)
    return longest


def verdict(result: Result) -> str:
    """Return the thresholds with their verdicts, and the reasons to doubt the figures, as HTML."""
    parts = []
    generator = result.get("generator") or NO_GENERATOR
    reasons = [str(each) for each in (*(result.get("verdict_reasons") or ()), *(result.get("problems") or ()))]
    if reasons:
        listed = _listed(reasons)
        parts.append(f'<div class="warn {escape(str(result.get("verdict")))}"><ul>{listed}</ul></div>')
    if generator.get("saturated"):
        parts.append('<div class="warn"><p><b>The load generator was saturated</b>: latencies are partly its own. '
                     f"{escape(str(generator.get('saturated_by') or ''))}</p></div>")  # fmt: skip
    wait = (result.get("target") or NO_TARGET).get("cpu_wait")
    if wait and wait["contended"]:
        parts.append('<div class="warn"><p><b>The members waited for a CPU</b>: latencies are partly that wait. '
                     f"{escape(str(wait['contended_by'] or ''))}.</p></div>")  # fmt: skip
    if result.get("verdict") == NONE:
        parts.append('<p class="dim">Nothing was judged: there was no threshold and no check.</p>')
    rows = [
        (f"<code>{escape(str(each['expression']))}</code>", f"{each['value']:,.9g}" if each.get("value") is not None
         else UNKNOWN, badge(each["verdict"]), escape("; ".join(_reasons(result, each))))
        for each in result.get("thresholds") or ()
    ]  # fmt: skip
    if rows:
        parts.append(f"<h2>Thresholds</h2>{table(('threshold', 'measured', 'verdict', ''), rows, (2, 3))}")
    notes = [*not_reachable(result), *(str(each) for each in result.get("notes") or ())]
    if notes:
        parts.append(f'<ul class="dim">{_listed(notes)}</ul>')
    return "\n".join(parts)


def _reasons(result: Result, threshold: ResultThreshold) -> list[str]:
    """Return why a threshold has its verdict, and that it was judged by too few samples, where it was."""
    type_, _, field = threshold["expression"].rpartition(" ")[0].rstrip(" <>=").partition(".")
    few = "of too few samples" if field.removeprefix("service.") in too_few(result, type_) else ""
    return [*filter(None, (threshold.get("reason"), few))]


def _listed(lines: Sequence[str]) -> str:
    """Return different lines as items of a list, as many as a page should have."""
    different = [*dict.fromkeys(lines)]
    more = len(different) - MOST_REASONS
    shown = [*different[:MOST_REASONS], *([f"{more:,} more, in result.json"] if more > 0 else ())]
    return "".join(f"<li>{escape(each)}</li>" for each in shown)


def results(result: Result) -> str:
    """Return a row for each operation type that was run, then the total; failures by cause.

    A Locust run of one's own may have thousands of names: what is not shown is summed up, and stands in result.json.
    """
    shown, rest = largest(result["results"], MOST_NAMES)
    total = result["results"].get("total")
    rows = [_result(result, name) for name in shown]
    if rest is not None:
        sums = (number(rest.operations), failures(rest.failed), known(rest.throughput_ops_s))
        rows.append((f"{rest.names:,} more, in result.json", *sums, *[UNKNOWN] * len(_LATENCIES)))
    if total is not None:
        rows.append(_result(result, "total"))
    causes = [
        (count, name, cause)
        for name, row in result["results"].items()
        if row is not None and name != "total"
        for cause, count in (row["errors"] or {}).items()
    ]
    causes.sort(key=lambda each: -each[0])
    listed = [
        f"{figure(result, 'results', name, 'errors', cause)} {escape(_short(name))} {escape(_short(cause))}"
        + (f" ({escape(_short(text))})" if (text := _first_text(result, name, cause)) else "")
        for _, name, cause in causes[:MOST_CAUSES]
    ]
    if left := causes[MOST_CAUSES:]:
        listed.append(f"{failures(sum(count for count, _, _ in left))} of {len(left):,} more causes, in result.json")
    by_cause = f"<p>Failures by cause: {'; '.join(listed)}.</p>" if listed else ""
    made = table(("", "operations", "failed", "ops/s", *_LATENCIES.values()), rows, sums=True)
    return made + (_few(result) if TOO_FEW in made else "") + by_cause


def _few(result: Result) -> str:
    """Return what percentiles take that some row has too few samples for, as HTML."""
    missing = {key for name in result["results"] for key in too_few(result, name)}
    takes = ", ".join(
        f"{_LATENCIES[key]} takes {samples.needed(fraction):,}"
        for key, fraction in _FRACTIONS.items()
        if key in missing
    )
    return (
        f'<p class="dim">A dash for a percentile: of so few samples it would be little but the largest; {takes}. '
        "result.json has what was measured.</p>"
    )


def too_few(document: Mapping[str, object], name: str) -> Sequence[str]:
    """Return the percentiles of an operation type that are of too few samples, as a result marks them."""
    found = found_at(document, ("results", name, "latency", "too_few_samples"))
    return found if isinstance(found, list) else ()


def latency(result: Result, name: str, key: str) -> str:
    """Return a latency of an operation type as HTML; a dash for a percentile of too few samples."""
    return TOO_FEW if key in too_few(result, name) else figure(result, "results", name, "latency", key)


def _result(result: Result, name: str) -> tuple[str, ...]:
    return (
        escape(_short(name)),
        *(figure(result, "results", name, key) for key in ("operations", "failed", "throughput_ops_s")),
        *(latency(result, name, key) for key in _LATENCIES),
    )


def _first_text(result: Result, name: str, cause: str) -> str | None:
    """Return what the first failure of an unknown cause said; None for the causes that etcd has names for."""
    row = result["results"][name]
    return (row.get("error_texts") or {}).get(cause) if row is not None else None


def _short(text: str) -> str:
    """Return a name or a cause that may be of any length, such as a whole page that a server answered with."""
    return short(text, LONGEST_TEXT)


def knee(result: Result) -> str:
    """Return the steps of the load, and where the knee is."""
    found = result.get("knee")
    if not found:
        return ""
    best, caution = found["knee"], found.get("caution")
    said = f"<p>No knee: {escape(str(found.get('reason')))}.</p>"
    if best:
        said = (f"<p><b>The knee is at {number(best['load'])} {UNITS[found['axis']]}</b>: "
                f"{number(best['throughput_ops_s'])} operations/s, p50 {number(best['p50_ms'])} ms, p99 "
                f"{number(best['p99_ms'])} ms. Beyond it, more load raises latency, not throughput.</p>")  # fmt: skip
    if caution:
        said += f'<p class="unknown">{escape(caution).capitalize()}.</p>'
    rows = []
    for row in found.get("steps") or ():
        figures = (row["load"], row["throughput_ops_s"], row["mean_ms"], row["p50_ms"], row["p99_ms"], row["power"])
        rows.append(tuple(f"<b>{number(each)}</b>" if row == best else number(each) for each in figures))
    head_row = (UNITS[found["axis"]], "succeeded/s", "mean, ms", "p50, ms", "p99, ms", "power")
    return said + table(head_row, rows) + f'<p class="dim">Method: {escape(str(found["method"]))}.</p>'


def members(result: Result) -> str:
    """Return what each member counted: fsync and commit before, during and after the load, elections, size."""
    target = result.get("target") or NO_TARGET
    rows = []
    for each in target.get("observed") or ():
        silent = f"{each['unanswered']} of {each['polls']}"
        rows.append((
            escape(each["name"]), *_phases(each.get("wal_fsync_p99_ms"), FSYNC_MARK_MS),
            *_phases(each.get("backend_commit_p99_ms"), COMMIT_MARK_MS), human_bytes(each.get("db_size_last")),
            *map(known, (each.get("proposals_failed"), each.get("proposals_pending_max"), each.get("slow_applies"))),
            silent,
        ))  # fmt: skip
    wait = _cpu_wait(target.get("cpu_wait"))
    if not rows:
        return wait
    head_row = ("member", "fsync p99<br>before", "<br>during", "<br>after", "commit p99<br>before", "<br>during",
                "<br>after", "DB size", "proposals<br>failed", "most<br>pending", "slow<br>applies",
                "polls<br>unanswered")  # fmt: skip
    worst = table(head_row, rows)
    return worst + (
        f"<p class=\"dim\">Milliseconds. Before: from the member's start to the load. After: while the run's "
        f"keys are removed. "
        f"Red: above etcd's recommended {FSYNC_MARK_MS:g} ms for fsync and {COMMIT_MARK_MS:g} ms for commit. "
        f"Leader changes: {figure(result, 'target', 'leader_changes')}. Slowest member during the load: fsync "
        f"{figure(result, 'target', 'wal_fsync_p99_ms', 'during')} ms, commit "
        f"{figure(result, 'target', 'backend_commit_p99_ms', 'during')} ms.</p>" + wait
    )


def _cpu_wait(wait: CpuWait | None) -> str:
    """Return how long each member's threads had a CPU of this machine and waited for one."""
    if not wait:
        return ""
    rows = [(escape(each["name"]), number(each["ran_s"]), number(each["waited_s"])) for each in wait["members"]]
    share = (
        "" if wait["share"] is None else f"Of the time that operations took, up to {wait['share']:.0%} is such a wait. "
    )
    nice = "" if wait["nice"] is None else f"The members' nice value is {wait['nice']}"
    if nice:
        nice += "." if wait["session_nice"] is None else f", that of their sessions {wait['session_nice']}."
    return (
        table(("member", "had a CPU, s", "waited for a CPU, s"), rows)
        + f'<p class="dim">During the measured time, all threads of a member together. {share}{nice}</p>'
    )


def _phases(figures: Phases | None, mark: float) -> list[str]:
    values = [figures and figures[phase] for phase in PHASES]
    return [
        f'<span class="over">{number(value)}</span>' if value and value > mark else known(value) for value in values
    ]


def generator(result: Result) -> str:
    """Return the figures of the load generator itself, as HTML."""
    found = result.get("generator")
    if not found:
        return ""
    words: dict[bool | None, str] = {
        True: '<b class="unknown">yes</b>: latencies are partly the generator\'s own',
        False: "no",
        None: "",
    }
    observer = (result.get("target") or NO_TARGET).get("observer") or {}
    balanced: dict[bool | None, str] = {
        True: "agree with the store's revision",
        False: '<b class="fail">do not agree with the store\'s revision</b>',
    }
    books, why = result.get("books"), why_not_compared(result)
    not_compared = f"not compared with the store's revision: {escape(why)}"
    fields = {"engine": "engine of the load path", "engine_reason": "why not the compiled one",
              "cpu_us_per_op": "CPU per operation, us", "loop_lag_p99_ms": "event loop lag p99, ms",
              "start_lag_p99_ms": "start lag p99, ms", "in_flight_max": "most operations in flight",
              "dropped": "scheduled but not sent", "resent": "sent again", "workers_started": "workers started",
              "workers_lost": "workers lost"}  # fmt: skip
    return facts((
        ("saturated", words.get(found.get("saturated"), "")),
        *((name, figure(result, "generator", key)) for key, name in fields.items()),
        ("acknowledged writes", balanced.get(books["balanced"], not_compared) if books else ""),
        ("observer of the members", f"{observer['polls']} polls and {observer['scrapes']} scrapes for "
                                 f"{observer['cpu_s']} s of CPU" if observer.get("polls") else ""),
    ))  # fmt: skip


def repeat(result: Result) -> str:
    """Return the command line that runs it again, and every parameter."""
    run = result["run"]
    if not run.get("command"):
        return ""
    apart = ("command", "environment", "id")
    shown = {key: value for key, value in run.items() if value not in (None, {}, []) and key not in apart}
    rows = [(parameter(key), escape(_words(value))) for key, value in shown.items()]
    button = '<button class="copy screen" type="button" hidden>Copy</button>'
    return f"<div><pre>{escape(command(run))}</pre>{button}</div>{facts(rows)}"


def parameter(key: str) -> str:
    """Return a run's parameter by a name as people say it, with its unit."""
    if key in _PARAMETERS:
        return _PARAMETERS[key]
    for suffix, unit in _UNITS_OF_KEYS.items():
        if key.endswith(suffix):
            return f"{key.removesuffix(suffix).replace('_', ' ')}, {unit}"
    return key.replace("_", " ")


def command(run: Parameters) -> str:
    """Return the command line that repeats a run, with the environment that mattered, see `cluster.schema.repeat`."""
    words = again.words(run.get("command") or (), run.get("seed"))
    return again.line(words, run.get("environment") or {}) if words else ""


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {number(each) if isinstance(each, float) else each}" for key, each in value.items())
    return number(value) if isinstance(value, float) else str(value)
