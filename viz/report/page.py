"""``report.html``: one run on one page that loads nothing, from the files of its run folder."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.base.files import write_bytes
from cluster.observe import samples
from viz.diagrams import elections, ladder, observed, palette
from viz.report import capacity_section, chaos_sections, diagnosis_section, run_charts, sections
from viz.report.rundata import RunData, RunError, load

if TYPE_CHECKING:
    from cluster.schema.run_documents import Result

NAME = "report.html"
MOST_ELECTIONS = 4

__all__ = ["NAME", "RunError", "page", "render", "write"]


def write(folder: Path, to: Path | None = None, result: Result | None = None) -> Path:
    """Write the report of a run folder and return its path.

    Takes where to, None for ``report.html`` in the folder, and the result where it was just made. Raises RunError
    where there is nothing to report, and OSError.
    """
    path = folder / NAME if to is None else to
    write_bytes(path, render(load(folder, result)).encode())
    return path


def try_write(folder: Path, result: Result) -> str | None:
    """Write ``report.html`` of a run that has just ended; return why not where it cannot be, which loses no run."""
    try:
        write(folder, result=result)
    except Exception as error:
        return f"{NAME} was not written: {error or type(error).__name__}"
    return None


def render(data: RunData) -> str:
    """Return the report as an HTML document."""
    parts = [
        sections.head(data, diagnosis_section.line(data.result)),
        sections.verdict(data.result),
        _section("Diagnosis", diagnosis_section.section(data.result), "what was slow, by what the members measured"),
        _section("Broken guarantees", chaos_sections.violations(data.result)),
        _section("Capacity", capacity_section.section(data.result), "the highest rate at which the thresholds hold"),
        _section("Results", sections.results(data.result), "latency of successful operations, in milliseconds"),
        _section(
            "Knee",
            sections.knee(data.result) + run_charts.knee(data),
            "where latency begins to grow faster than throughput",
        ),
        _section("Leadership", run_charts.leaders(data)),
        _section("Faults", chaos_sections.faults_in_short(data)),
        _section("Guarantees", chaos_sections.guarantees(data.result), "checked against the recorded history"),
        _section("Latency over time", run_charts.latency(data) + run_charts.latency_by_type(data), _of_latency(data)),
        _section("Throughput and failures", run_charts.throughput(data) + run_charts.failures(data)),
        _section("Latency by percentile", run_charts.percentiles(data), "over the whole run"),
        _section(
            "Replication lag",
            run_charts.lag(data),
            "entries between a member's applied index and the highest commit index that any member reported",
        ),
        _section("Cluster metrics", _cluster(data)),
        _section(
            "Elections", _elections(data), "from the members' logs; each member's times are those of its own clock"
        ),
        _section("Load generator", sections.generator(data.result)),
        _section("Repeat this run", sections.repeat(data.result)),
        _section("Not in this report", f"<ul>{run_charts.missing(data)}</ul>" if data.missing else ""),
    ]
    return page(data.id, parts)


def page(title: str, parts: Iterable[str]) -> str:
    """Return an HTML document of sections with its own style and script, and a policy that lets nothing else in."""
    style = palette.css("@media (prefers-color-scheme:dark)") + _asset("report.css")
    script = _asset("report.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} - raftload</title><style>{style}</style></head>\n<body><main>\n"
        + "\n".join(part for part in parts if part)
        + '\n<footer class="dim">raftload. <span class="screen" hidden>Over a chart: the pointer or the arrow keys '
        "show values; drag, or + and -, to zoom in time; double-click or Escape for all of it.</span></footer></main>"
        f"<script>{script}</script></body></html>\n"
    )


def _section(title: str, inside: str, what: str = "") -> str:
    """Return a section under its title; nothing where there is nothing in it."""
    if not inside:
        return ""
    note = f'<p class="dim">{escape(what)}</p>' if what else ""
    return f"<section><h2>{escape(title)}</h2>{note}\n{inside}</section>"


def _asset(name: str) -> str:
    return resources.files("viz").joinpath("assets", name).read_text(encoding="utf-8").strip()


def _hash(text: str) -> str:
    """Return what a content security policy knows an inline style or script by (CSP Level 3, section 2.3.1)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _of_latency(data: RunData) -> str:
    return (
        f"p50 and maximum of every {run_charts.interval(data)}, p99 of as many of these as hold the "
        f"{samples.needed(0.99)} samples that it takes; successful operations only"
    )


def _cluster(data: RunData) -> str:
    return (
        sections.members(data.result)
        + run_charts.disk(data, "wal_fsync", "WAL fsync", run_charts.FSYNC_MARK_MS)
        + run_charts.disk(data, "backend_commit", "backend commit", run_charts.COMMIT_MARK_MS)
    )


def _elections(data: RunData) -> str:
    found = elections.between(data.history.elections, data.begin - 1, data.end + 1)
    parts = []
    for number, election in enumerate(found[:MOST_ELECTIONS], 1):
        model = observed.sequence(data.history, [election], most=60)
        parts.append(f'<h3>{escape(model.title)}</h3><div class="scroll">{ladder.render(model, f"e{number}")}</div>')
    if len(found) > MOST_ELECTIONS:
        command = f"raftload viz --type leader-election --observed --logs {data.folder}/logs/*.log"
        parts.append(f"<p>and {len(found) - MOST_ELECTIONS} more: <code>{escape(command)}</code></p>")
    if not found and data.history.logs:
        parts.append("<p>None in the time of the run.</p>")
    return "".join(parts)
