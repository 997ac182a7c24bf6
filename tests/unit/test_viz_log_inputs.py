"""Logs as they come from the field: in any wrapper, encoding, order and zone; what cannot be placed is counted."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import re
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cluster.base.errors import UsageError
from cluster.observe import log_join
from cluster.observe.log_join import Logs, hint
from cluster.observe.log_times import find_stamp, in_a_year, parse_stamp, parse_time, parse_zone
from cluster.observe.raftlog import Log, read_log
from viz.cli.command import visualize_raft_state
from viz.diagrams import ascii as text_picture
from viz.diagrams import dot, elections, fit, mermaid, observed
from viz.diagrams.model import Chart, Note, Row, Span, human_seconds

FIELD = Path(__file__).parents[1] / "data" / "field"
RAFT_LOGS = Path(__file__).parents[1] / "data" / "raft-logs"
LABELS = json.loads((RAFT_LOGS / "labels.json").read_text())
WRAPPED = sorted(each.name for each in (FIELD / "wrapped").iterdir())
ID = "8e9e05c52164694d"


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


AT = seconds("2025-11-16T00:15:22.265101+00:00")
WON = [("became", "candidate", 3, AT), ("became", "leader", 3, AT + 1e-4), ("elected", "", 3, AT + 2e-4)]


def events(log: Log) -> list[tuple[str, str, int, float]]:
    return [(each.kind, each.detail, each.term, pytest.approx(each.at, abs=5e-7)) for each in log.events]


def read_lines(*lines: str) -> Logs:
    return log_join.read([("x.log", "x", lines)])


def viz(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    """Return the exit code, and what stands on stdout and stderr."""
    code = visualize_raft_state(["--logs", *args])
    said = capsys.readouterr()
    return code, said.out, said.err


# The files of the field


@pytest.mark.parametrize("name", ["console-format.log", *(f"wrapped/{each}" for each in WRAPPED)])
def test_each_wrapper_gives_what_the_plain_lines_give(name: str) -> None:
    found = log_join.read_files([FIELD / name])
    (log,) = found.logs
    assert (log.member, log.name, log.lines, log.garbage) == (ID, Path(name).stem, 3, 0)
    assert events(log) == WON
    assert (found.notes, log.coarse, log.yearless, log.zoned) == ((), False, False, True)


def test_all_wrappers_at_once_are_one_member_whose_lines_count_once() -> None:
    found = log_join.read_files(sorted((FIELD / "wrapped").iterdir())[::-1])
    (log,) = found.logs
    assert events(log) == WON


CAPNSLOG = [("higher", "", 4367), ("became", "follower", 4367), ("lost", "", 4366), ("elected", "", 4367)]


@pytest.mark.parametrize(("changed", "year"), [("2021-10-01", 2021), ("2021-09-11", 2021), ("2021-09-10", 2020)])
def test_times_without_a_year_are_of_the_last_one_before_the_file_was_changed(
    changed: str, year: int, tmp_path: Path
) -> None:
    path = tmp_path / "journald-capnslog.log"
    path.write_bytes((FIELD / path.name).read_bytes())
    os.utime(path, (0, seconds(f"{changed}T00:00:00+00:00")))
    found = log_join.read_files([path])
    (log,) = found.logs
    assert [each[:3] for each in events(log)] == CAPNSLOG
    assert [each.at for each in log.events] == [seconds(f"{year}-09-11T14:34:5{n}+00:00") for n in (0, 0, 0, 1)]
    assert (log.coarse, log.yearless, log.member) == (True, True, "a9a27992a4a4672")
    assert found.remarks == (f"{path}: its times have no year, {year} is assumed",)
    model = observed.sequence(elections.read_files([path]), ())
    assert isinstance(model.items[0], Note)


def test_times_without_a_year_are_of_the_time_that_others_name() -> None:
    found = log_join.read_files([FIELD / "journald-capnslog.log", FIELD / "utc-zap.log"])
    by_name = {log.name: log for log in found.logs}
    assert by_name["journald-capnslog"].first == seconds("2021-09-11T14:34:50+00:00")
    # As the same lines of journald with a year.
    (whole,) = log_join.read_files([FIELD / "journald-short-iso.log"]).logs
    assert events(by_name["journald-capnslog"]) == events(whole)
    assert (whole.coarse, whole.yearless) == (True, False)


@pytest.mark.parametrize(
    "month", ["Oct", "October", "Okt", "oct.", "ott", "out", "10月"], ids=["en", "long", "de", "fr", "it", "pt", "ja"]
)
def test_journald_writes_months_in_the_readers_language(month: str) -> None:
    (log,) = log_join.read([("x", "x", [f"{month}  9 14:34:50 etcd-1 etcd[7]: {BARE}", NEXT])]).logs
    assert log.events[0].at == seconds("2025-10-09T14:34:50+00:00")
    assert find_stamp("no month 9 14:34:50") is None


def test_a_year_is_found_around_its_end_and_for_a_leap_day() -> None:
    newyear = seconds("2026-01-01T00:10:00+00:00")
    for text, right in (("Dec 31 23:59:59", "2025-12-31T23:59:59"), ("Jan  1 00:00:01", "2026-01-01T00:00:01"),
                        ("Feb 29 12:00:00", "2024-02-29T12:00:00")):  # fmt: skip
        stamp = find_stamp(text)
        assert stamp is not None and stamp.yearless and stamp.coarse
        for past in (True, False):
            assert in_a_year(stamp.at, UTC, newyear, past=past) == seconds(f"{right}+00:00")


def test_several_members_in_one_file_are_each_their_own() -> None:
    found = elections.read_files([FIELD / "three-members-one-file.log"])
    assert found.names == {"aaaaaaaaaaaaaaa1": "one", "bbbbbbbbbbbbbbb2": "two"}
    assert found.notes == ()
    chart = observed.timeline(found)
    assert [(row.label, [(each.start, each.end, each.text) for each in row.spans]) for row in chart.rows] == [
        ("one", [(1.0, 1.1, "Candidate, term 2"), (1.1, 5.0, "Leader, term 2")]),
        ("two", [(1.2, 5.0, "Follower, term 2")]),
    ]
    assert (chart.started_at, chart.duration) == ("2026-01-01T00:00:00.000Z", 5.0)


def test_members_that_do_not_overlap_are_said_to_and_a_zone_mends_it(capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(FIELD / "local-time-3.4.log"), str(FIELD / "utc-zap.log")]
    code, out, err = viz(capsys, *files, "--type", "timeline", "--format", "ascii")
    says = "the members' logs do not overlap in time: local-time-3.4 at 2021-09-11T10:46:26Z, "
    assert code == 0 and f"! {says}" in " ".join(out.split()) + " " and says in err and "--log-timezone=-04:00" in err
    for zone in ("--log-timezone=-04:00", "--log-timezone=America/New_York"):
        code, out, err = viz(capsys, *files, zone, "--type", "timeline", "--format", "json")
        chart = json.loads(out)
        assert (code, err, chart["notes"]) == (0, "", [])
        assert (chart["started_at"], chart["duration"]) == ("2021-09-11T14:46:26.379Z", pytest.approx(0.010378))


@pytest.mark.parametrize(
    ("hours", "shared", "says"),
    [(5.5, True, "=+05:30"), (-9, True, "=-09:00"), (5.5, False, " ZONE"), (60, True, " ZONE")],
)
def test_the_zone_that_would_bring_members_together_is_told_by_their_terms(
    hours: float, shared: bool, says: str
) -> None:
    """Their logs begin and end at different times, so only what both tell of says how far apart they are."""
    local = [
        f"{datetime.fromtimestamp(AT + after + hours * 3600, UTC):%Y-%m-%d %H:%M:%S.%f} I | raft: {A} "
        f"became follower at term {term}"
        for after, term in ((-900, 1), (0.2, 2), (0.9, 3))
    ]
    zoned = [
        json.dumps({"level": "info", "ts": AT + after, "msg": f"{B} became leader at term {term + 7 * (not shared)}"})
        for after, term in ((0, 2), (1, 3), (4 * 3600, 9))
    ]
    found = log_join.read([("a", "a", local), ("b", "b", zoned)])
    assert found.remarks[0].endswith(f"; the times of a have no zone: say theirs with --log-timezone{says}")


@pytest.mark.parametrize(
    ("zone", "hours", "says"),
    [("UTC", -4, "-04:00"), ("+09:00", -4, "-04:00"), ("UTC", 0, ""), ("UTC", 0.1, ""), ("-04:00", -4, "")],
)
def test_members_that_overlap_but_are_hours_apart_are_said_to(zone: str, hours: float, says: str) -> None:
    local, zoned = [], []
    for term in range(2, 32):
        at = AT + 3600 * term
        when = f"{datetime.fromtimestamp(at + hours * 3600, UTC):%Y-%m-%d %H:%M:%S.%f}"
        local.append(f"{when} I | raft: {A} became follower at term {term}")
        zoned.append(json.dumps({"level": "info", "ts": at, "msg": f"{B} became leader at term {term}"}))
    found = log_join.read([("a", "a", local), ("b", "b", zoned)], parse_zone(zone))
    text = "the terms in the logs say that the times of a, which have no zone, are of"
    assert found.remarks == ((f"{text} {says}: say so with --log-timezone={says}",) if says else ())


def test_the_axis_is_as_long_as_the_logs_and_in_the_readers_zone(capsys: pytest.CaptureFixture[str]) -> None:
    name = str(FIELD / "long-timeline.log")
    code, out, _ = viz(capsys, name, "--type", "timeline")
    # In milliseconds since 1970, which Mermaid shows in the zone of who looks at it.
    assert code == 0 and "dateFormat x\n    axisFormat %H:%M\n" in out
    assert "Follower, term 2 :done, 1763251200000, 1763262000000\n" in out
    for since in ([], ["--since", "0"], ["--since", "1970-01-02T00:00:00Z", "--until", "2100-01-01T00:00:00Z"]):
        code, out, _ = viz(capsys, name, "--type", "timeline", "--format", "json", *since)
        chart = json.loads(out)
        assert (code, chart["started_at"], chart["duration"]) == (0, "2025-11-16T00:00:00.000Z", 46800.0)
    code, out, _ = viz(capsys, name, "--type", "timeline", "--format", "ascii", "--since", "2025-11-16T04:00:00Z")
    assert code == 0 and "from 2025-11-16T04:00:00.000Z" in out and "9 h\n" in out
    code, out, err = viz(capsys, name, "--type", "timeline", "--format", "ascii", "--since", "2026-01-01")
    assert code == 0 and "the logs are of another time: 2025-11-16T00:00:00.000Z to 2025-11-16T13:00:00.000Z" in err


def test_what_a_member_became_in_the_last_line_is_shown() -> None:
    """People paste the lines of an election alone; the last of them says who won."""
    candidate = JSON.replace("leader", "candidate").replace(".265101Z", ".165101Z")
    chart = observed.timeline(elections.read([("x", "x", [candidate, JSON])]))
    assert [(each.start, each.end, each.text) for each in chart.rows[0].spans] == [
        (0.0, 0.1, "Candidate, term 3"),
        (0.1, 0.1, "Leader, term 3"),
    ]
    (span,) = observed.timeline(elections.read([("x", "x", [JSON])])).rows[0].spans
    assert (span.start, span.end, span.text) == (0.0, 0.0, "Leader, term 3")


@pytest.mark.parametrize(
    ("duration", "axis", "length"),
    [(0.5, "%H:%M:%S.%L", "0.500 s"), (90.0, "%H:%M:%S", "90.000 s"), (5400.0, "%H:%M:%S", "90 min"),
     (46_800.0, "%H:%M", "13 h"), (46_860.0, "%H:%M", "13 h 1 min"), (3 * 86_400.0, "%m-%d %H:%M", "3 d"),
     (100 * 86_400.0 + 7200, "%Y-%m-%d", "100 d 2 h")],
)  # fmt: skip
def test_the_axis_by_length(duration: float, axis: str, length: str) -> None:
    chart = Chart("t", "2026-01-31T12:00:00.000Z", duration, (Row("a", (Span(0, duration, "leader", "L"),)),))
    assert f"axisFormat {axis}\n" in mermaid.render(chart)
    assert human_seconds(duration) == length and f"{length}\n" in text_picture.render(chart)
    assert f"{length} long" in dot.render(chart)


# Long pictures


def flapping(terms: int, member: str = ID) -> list[str]:
    """Return the log of a member that follows and leads in turn, longer each time."""
    lines, at = [], 1_763_251_200.0
    for term in range(2, terms + 2):
        for role in ("follower", "leader"):
            at += term / 100
            lines.append(json.dumps({"level": "info", "ts": at, "msg": f"{member} became {role} at term {term}"}))
    return lines


def test_a_long_timeline_is_cut_in_every_format_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "etcd.log"
    path.write_text("\n".join(flapping(1000)) + "\n")
    says = "1600 of 2000 periods are left out, none longer than 8.010 s"
    for name in ("mermaid", "graphviz", "ascii", "json"):
        code, out, _ = viz(capsys, str(path), "--type", "timeline", "--format", name)
        assert code == 0 and says in out.replace("\\n", " ")
        assert len(out) < 50_000 or name != "mermaid"
    chart = observed.timeline(elections.read_files([path]))
    assert sum(len(row.spans) for row in chart.rows) == fit.MOST_SPANS
    assert min(each.end - each.start for each in chart.rows[0].spans) == pytest.approx(8.02, abs=0.005)


@pytest.mark.parametrize("name", ["plain", 'end"; #\u202e\U0010ffff' * 6], ids=["plain", "hostile"])
def test_no_picture_is_longer_than_mermaid_takes(name: str) -> None:
    spans = tuple(Span(n, n + 1, "candidate", "Candidate, term 18446744073709551615") for n in range(100))
    rows = [Row(elections.clean_name(f"{name}{n}"), spans) for n in range(60)]
    made = fit.chart("t", "2026-01-31T12:00:00.000Z", 1000.0, rows, ["x" * 5000])
    assert len(mermaid.render(made)) <= mermaid.LONGEST
    assert "of 6000 periods are left out" in made.notes[0]
    logs = [(f"{n}", f"{n} {name}", flapping(100, f"{n + 1:x}" * 14)) for n in range(3)]
    found = elections.read(logs)
    assert len(mermaid.render(observed.sequence(found, found.elections))) <= mermaid.LONGEST


# What people paste


JSON = (
    f'{{"level":"info","ts":"2025-11-16T00:15:22.265101Z","logger":"raft","caller":"etcdserver/zap_raft.go:77",'
    f'"msg":"{ID} became leader at term 3"}}'
)
NEXT = JSON.replace("term 3", "term 4").replace(".265101Z", ".365101Z")
BARE = f"{ID} became leader at term 3"
CONSOLE = f"2025-11-16T00:15:22.265101Z\tinfo\traft\tetcdserver/zap_raft.go:77\t{BARE}"
TEXT = f"2025-11-16 00:15:22.265101 I | raft: {BARE}"
PRETTY = json.dumps(json.loads(JSON), indent=2)


def parts(make: Callable[[str, bool], str]) -> str:
    return "\n".join((make(JSON[:40], False), make(JSON[40:60], False), make(JSON[60:], True)))


# A value that has braces, as in the line that tells a member's name.
BRACED = JSON[:-1] + ',"local-member-attributes":"{Name:a ClientURLs:[http://127.0.0.1:2379]}"}'

PASTED = {
    "jq": PRETTY,
    "an array of jq": "[\n" + "\n".join(f"  {line}" for line in PRETTY.splitlines()) + "\n]",
    "journalctl -o json-pretty": json.dumps({"_HOSTNAME": "a", "MESSAGE": JSON}, indent="\t"),
    "journalctl -o export": f"__CURSOR=s=3;i=1\n__REALTIME_TIMESTAMP=1763252122265101\n_HOSTNAME=x\nMESSAGE={BARE}\n",
    "journalctl -o verbose": f"Sun 2025-11-16 00:15:22.265101 UTC [s=1a;i=2b]\n    _HOSTNAME=x\n    MESSAGE={BARE}",
    "journald json, bytes": json.dumps({"MESSAGE": list(JSON.encode())}),
    "journald json, bare": json.dumps({"MESSAGE": BARE, "__REALTIME_TIMESTAMP": "1763252122265101"}),
    "k3s": f"Nov 16 00:15:22 k3s-1 k3s[77]: {JSON}",
    "GCP": json.dumps({"insertId": "x", "jsonPayload": json.loads(JSON), "timestamp": "2025-11-16T00:15:23Z"}),
    "renamed keys": json.dumps(
        {"@timestamp": "2025-11-16T00:15:22.265101Z", "level": "info", "caller": "x.go:1", "message": BARE}
    ),
    "Fluent Bit": json.dumps({"stream": "stderr", "log": JSON, "kubernetes": {"pod_name": "etcd-0"}}),
    "OpenTelemetry": json.dumps({"body": {"stringValue": JSON}, "timeUnixNano": "1763252122265101000"}),
    "Splunk": json.dumps({"preview": False, "result": {"_raw": JSON, "host": "a"}}),
    "CloudWatch": json.dumps({"events": [{"timestamp": 1763252122265, "message": JSON}]}),
    "a spreadsheet": '"2025-11-16 00:15:22","' + JSON.replace('"', '""') + '"',
    "logfmt": f"time=2025-11-16T00:15:22Z log={json.dumps(JSON)}",
    "bytes of Python": f"b'{JSON}\\n'",
    "quotes of a word processor": JSON.replace('"', "\u201d"),
    "HTML": JSON.replace('"', "&quot;"),
    "blanks of HTML": JSON.replace(",", ",\u00a0"),
    "docker's raw stream": "\x02\x00\x00\x00\x00\x00\x00\x7b" + JSON,
    "a mark of UTF-8 read as another encoding": "\u00ef\u00bb\u00bf" + JSON,
    "colours of cat -v": f"^[[36metcd1-1  |^[[0m {JSON}",
    "colours without ESC": f"[36metcd1-1  |[0m {JSON}",
    "colours of grep": JSON.replace("became", "\x1b[01;31m\x1b[Kbecame\x1b[m\x1b[K"),
    "colours of grep without ESC": JSON.replace("became", "[01;31m[Kbecame[m[K"),
    "tabs of rsyslog": f"Nov 16 00:15:22 etcd-1 etcd[1]: {CONSOLE}".replace("\t", "#011"),
    "tabs as blanks": CONSOLE.expandtabs(8),
    "console in compose": f"etcd1-1  | {CONSOLE}",
    "text in GitHub Actions": f"2025-11-16T00:15:22.3651010Z {TEXT}",
    "CRI in parts": parts(lambda text, last: f"2025-11-16T00:15:22.2Z stderr {'F' if last else 'P'} {text}"),
    "json-file in parts": parts(lambda text, last: json.dumps({"log": text + "\n" * last, "stream": "stderr"})),
    "tail of files": f"==> /var/log/etcd.log <==\n{JSON}",
    "stern's own lines": f"+ etcd-0 \u203a etcd\netcd-0 etcd {JSON}\n- etcd-0 \u203a etcd",
    "the width of a terminal": "\n".join(JSON[start : start + 80] for start in range(0, len(JSON), 80)),
    "the width of a terminal, within braces": BRACED[: BRACED.index("{Name")] + "\n" + BRACED[BRACED.index("{Name") :],
    "Loki's answer": json.dumps(
        {"data": {"result": [{"stream": {"pod": "e"}, "values": [["1763252122265101000", TEXT]]}]}}
    ),
    "a list": f"\u2022 {JSON}",
    "another zone": JSON.replace("00:15:22.265101Z", "05:45:22.265101+0530"),
    "nanoseconds": JSON.replace(".265101Z", ".265101000Z"),
    "a comma": JSON.replace(".265101Z", ",265101Z"),
    "seconds since 1970": JSON.replace('"2025-11-16T00:15:22.265101Z"', "1763252122.265101"),
    "nanoseconds since 1970": JSON.replace('"2025-11-16T00:15:22.265101Z"', "1763252122265101000"),
    "console of zap's own": CONSOLE.replace("2025-11-16T00:15:22.265101Z", "1.763252122265101e+09"),
    "console in capitals": CONSOLE.replace("info", "INFO"),
    "console in milliseconds": CONSOLE.replace("2025-11-16T00:15:22.265101Z", "1763252122265.101"),
    "a word behind JSON": f"{JSON}  <-- here",
    "a word behind text": f"{TEXT}  <-- here",
    "a word behind console": f"{CONSOLE}  # here",
    "CRI, the last part empty": f"2025-11-16T00:15:22.2Z stderr P {JSON}\n2025-11-16T00:15:22.2Z stderr F",
    "a cell of a CSV": f'"2025-11-16T00:15:22.265101Z","{BARE}","etcd-1"',
    "Fluent Bit's stdout": f'[0] kube.etcd: [[1763252122.265101000, {{}}], {{"log"=>"{BARE}"}}]',
    "a sentence": f"2025-11-16T00:15:22.265101Z It said: {BARE}.",
    "blanks of HTML in text": TEXT.replace(" ", "\u00a0"),
    "characters of no width": TEXT.replace("became", "\u200bbecame"),
    "Loki, bare": json.dumps({"streams": [{"stream": {"pod": "e"}, "values": [["1763252122265101000", BARE]]}]}),
    "journald json, its own time later": json.dumps(
        {"MESSAGE": BARE, "__REALTIME_TIMESTAMP": "1763252123000000", "_SOURCE_REALTIME_TIMESTAMP": "1763252122265101"}
    ),
    "GELF": json.dumps({"host": "a", "short_message": BARE, "timestamp": 1763252122.265101}),
    "OTLP": json.dumps(
        {
            "resourceLogs": [
                {
                    "scopeLogs": [
                        {"logRecords": [{"timeUnixNano": "1763252122265101000", "body": {"stringValue": BARE}}]}
                    ]
                }
            ]
        }
    ),
    "what script records": JSON.replace("became", "becx\bame"),
    "half a day, the first hour": f"2025-11-16 12:15:22.265101 AM UTC etcd: {BARE}",
    "points": f"16.11.2025 00:15:22.265101 etcd: {BARE}",
    "mail": f"Sun, 16 Nov 2025 00:15:22.265101 +0000 {BARE}",
    "PD": f'[2025/11/16 00:15:22.265101 +00:00] [INFO] [raft.go:929] ["{BARE}"]',
}


@pytest.mark.parametrize("name", PASTED)
def test_what_people_paste(name: str) -> None:
    found = read_lines(*PASTED[name].splitlines())
    (log,) = found.logs
    assert (log.member, events(log)) == (ID, [("became", "leader", 3, AT)])
    assert found.notes == ()


@pytest.mark.parametrize(
    "text", [JSON + NEXT, f"[{JSON},\n{NEXT}]", json.dumps([JSON, NEXT]), json.dumps({"stdout": f"{JSON}\n{NEXT}"})]
)
def test_several_entries_in_one_line(text: str) -> None:
    (log,) = read_lines(*text.splitlines()).logs
    assert [(each.term, each.detail) for each in log.events] == [(3, "leader"), (4, "leader")]


@pytest.mark.parametrize("between", [" ", "", "  etcd-1 | "])
@pytest.mark.parametrize("text", [TEXT, CONSOLE, f"raft2025/11/16 00:15:22 INFO: {BARE}"])
def test_lines_of_text_that_lost_their_ends_are_lines_again(text: str, between: str) -> None:
    found = read_lines(between.join((text, text.replace("term 3", "term 12"), text.replace("term 3", "term 13"))))
    (log,) = found.logs
    assert ([each.term for each in log.events], log.lines, found.notes) == ([3, 12, 13], 3, ())
    assert [each.term for each in read_lines(json.dumps([text, text.replace("term 3", "term 4")])).logs[0].events] == [
        3,
        4,
    ]


def test_an_entry_within_another_one_is_read_and_the_torn_one_is_counted() -> None:
    found = read_lines(JSON, JSON[:110] + NEXT + JSON[110:])
    (log,) = found.logs
    assert ([each.term for each in log.events], log.lines, log.garbage) == ([3, 4], 3, 1)
    assert "left out 1 of 3 lines, which etcd did not write; the first is line 2: {" in found.notes[0]


@pytest.mark.parametrize("text", [TEXT, CONSOLE])
def test_a_term_that_may_be_cut_is_no_other_term(text: str) -> None:
    whole = text.replace("term 3", "term 12")
    cut = read_lines(f"{whole}\n", text.replace("term 3", "term 1"))
    assert ([each.term for each in cut.logs[0].events], cut.notes) == ([12], ())
    last = read_lines(f"{text}\n", whole)
    assert [each.term for each in last.logs[0].events] == [3, 12]
    assert last.notes == ("x.log: its last line has no end, so the term there may be cut",)
    assert read_lines(f"{text}\n", f"{whole}\n").notes == read_lines(f"{text}\n", JSON).notes == ()
    lost = "2025-11-16 00:15:22.265101 W | rafthttp: lost the TCP streaming connection with peer abcdefabcdef0123"
    assert [each.kind for each in read_lines(f"{text}\n", lost[:-3]).logs[0].events] == ["became"]


@pytest.mark.parametrize("make", [" ".join, lambda texts: json.dumps([json.loads(text) for text in texts])])
def test_a_whole_export_in_one_line_loses_nothing(make: Callable[[list[str]], str]) -> None:
    texts = flapping(1500)
    (log,) = read_lines(make(texts)).logs
    assert len(log.events) == len(texts) == 3000


@pytest.mark.parametrize("part", ["2025-11-16T", "2025-11-16T{"])
def test_a_line_that_is_four_times_as_long_takes_four_times_as_long(part: str) -> None:
    def took_s(parts: int) -> float:
        began = time.process_time()
        assert read_lines(part * parts).logs == ()
        return time.process_time() - began

    assert min(took_s(4000) for _ in range(3)) < 9 * min(took_s(1000) for _ in range(3))  # its square would be 16


def test_a_panic_is_etcds() -> None:
    panic = ("panic: runtime error", "goroutine 1 [running]:", "main.main()", "\t/go/src/etcd/main.go:12 +0x1d",
             "created by main.init", "exit status 2")  # fmt: skip
    found = read_lines(JSON, *panic, NEXT)
    assert (found.notes, [each.term for each in found.logs[0].events]) == ((), [3, 4])
    assert read_lines(JSON, "\t/go/src/etcd/main.go:12 +0x1d").logs[0].garbage == 1


def test_other_lines_of_a_member_whose_messages_are_bare_are_its_own() -> None:
    """journald has etcd 3.4's messages without their time, and those that say nothing about Raft too."""
    place = "etcd-1 etcd[77]: "
    found = read_lines(f"2025-11-16T00:15:22+0000 {place}{BARE}", f"2025-11-16T00:15:30+0000 {place}saved snapshot",
                       "2025-11-16T00:15:31+0000 etcd-1 systemd[1]: Stopped etcd.")  # fmt: skip
    (log,) = found.logs
    assert (log.first, log.last, log.garbage) == (float(int(AT)), int(AT) + 8.0, 1)
    assert "systemd[1]: Stopped etcd." in found.notes[0]


def test_lines_without_a_time_anywhere_are_counted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "cat.log"
    path.write_text(f"{BARE}\nraft.node: {ID} elected leader {ID} at term 3\nsaved snapshot\n")
    code = visualize_raft_state(["--type", "timeline", "--logs", str(path)])
    err = capsys.readouterr().err
    assert code == 4 and "left out 2 of 3 lines about Raft, which have no time" in err
    assert err.count("\n") == 3 and "no line about Raft with a time" in err


def test_a_document_over_several_lines_that_is_not_of_etcd_is_counted_by_its_lines() -> None:
    found = read_lines(JSON, *json.dumps({"a": 1, "b": 2}, indent=2).splitlines(), NEXT)
    assert (found.logs[0].lines, found.logs[0].garbage) == (6, 4)
    assert found.notes == (
        'x.log: left out 4 of 6 lines, which etcd did not write; the first is line 2: {   "a": 1,   "b": 2 }',
    )


# Which member


def member_lines(member: str, name: str, at: float = AT) -> list[str]:
    """Return the text log of etcd 3.4, most of whose lines do not say of whom they are."""

    def clock(after: float) -> str:
        return datetime.fromtimestamp(at + after, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")

    return [
        f"{clock(0)} I | embed: name = {name}",
        f"{clock(0.1)} I | etcdserver: starting member {member} in cluster 1",
        f"{clock(0.2)} I | raft: {member} became follower at term 2",
        f"{clock(0.3)} W | rafthttp: lost the TCP streaming connection with peer abcdefabcdef0123 (stream reader)",
        f"{clock(0.4)} N | pkg/osutil: received terminated signal, shutting down...",
    ]  # fmt: skip


KINDS = ["start", "became", "disconnected", "stop"]
A, B = "aaaaaaaaaaaaaaa1", "bbbbbbbbbbbbbbb2"


def kinds(found: Logs) -> dict[str, list[str]]:
    return {log.name: [each.kind for each in log.events] for log in found.logs}


@pytest.mark.parametrize("apart", [0.0, 0.05, -60.0, 60.0])
def test_lines_that_name_no_member_in_one_log_after_another(apart: float) -> None:
    found = read_lines(*member_lines(A, "one"), *member_lines(B, "two", AT + apart))
    assert kinds(found) == {"one": KINDS, "two": KINDS}


def test_lines_that_name_no_member_are_of_whom_the_wrapper_names() -> None:
    pairs = zip(member_lines(A, "one"), member_lines(B, "two"), strict=True)
    found = read_lines(*(line for one, two in pairs for line in (f"etcd1-1  | {one}", f"etcd2-1  | {two}")))
    assert kinds(found) == {"one": KINDS, "two": KINDS} and not found.notes


def test_members_that_never_say_their_names_are_called_as_their_pods() -> None:
    lines = (f"[pod/etcd-{n}/etcd] {JSON.replace(ID, member)}" for n, member in enumerate((A, B)))
    assert [log.name for log in read_lines(*lines).logs] == ["pod/etcd-0/etcd", "pod/etcd-1/etcd"]


def test_logs_of_several_clusters_are_said_to_be() -> None:
    def started(member: str, cluster: str, term: int) -> list[str]:
        return [
            json.dumps({"ts": AT, "msg": "starting local member", "local-member-id": member, "cluster-id": cluster}),
            json.dumps({"ts": AT + 1, "msg": f"{member} became leader at term {term}"}),
        ]

    found = read_lines(*started(A, "c1", 2), *started(B, "c2", 3))
    assert found.remarks == (f"the logs are of 2 clusters, which are drawn as one: c1: {A}; c2: {B}",)
    assert read_lines(*started(A, "c1", 2), *started(B, "c1", 3)).remarks == ()
    # A term has one leader, so these are of two clusters too.
    assert read_lines(*started(A, "c1", 2), *started(B, "c1", 2)).remarks == (
        f"{A} and {B} both became leader in term 2, so the logs are of several clusters, or of one that was made anew; "
        "they are drawn as one",
    )
    text = (line for n, member in enumerate((A, B)) for line in member_lines(member, f"m{n}"))
    assert read_lines(*(line.replace("cluster 1", "cluster 2") if B in line else line for line in text)).remarks == (
        "the logs are of 2 clusters, which are drawn as one: 1: m0; 2: m1",
    )


def test_lines_that_nobody_can_place_are_counted() -> None:
    pairs = zip(member_lines(A, "one"), member_lines(B, "two"), strict=True)
    found = read_lines(*(line for pair in pairs for line in pair))
    assert kinds(found) == {"x (aaaaaaaa)": KINDS[:2], "x (bbbbbbbb)": KINDS[:2]} or kinds(found) == {
        A: KINDS[:2], B: KINDS[:2],
    }  # fmt: skip
    assert found.notes == ("x.log: left out 6 of 10 lines, which name no member where lines of 2 members are mixed",)


def test_a_part_that_names_nobody_is_of_the_file_that_it_was_rotated_from(tmp_path: Path) -> None:
    for name, member in (("one", A), ("two", B)):
        lines = member_lines(member, name)
        (tmp_path / f"{name}.log.2.gz").write_bytes(gzip.compress("\n".join(lines[:3]).encode()))
        (tmp_path / f"{name}.log.1").write_text(lines[3])
        (tmp_path / f"{name}.log").write_text(lines[4])
    assert kinds(log_join.read_files(sorted(tmp_path.iterdir()))) == {"one": KINDS, "two": KINDS}


def test_members_of_one_name_keep_a_lane_each(tmp_path: Path) -> None:
    for member in (A, B):
        folder = tmp_path / member
        folder.mkdir()
        (folder / "etcd.log").write_text("\n".join(member_lines(member, "default")))
    found = elections.read_files([tmp_path])
    assert found.names == {A: "default (aaaaaaaa)", B: "default (bbbbbbbb)"}


@pytest.mark.parametrize(
    ("name", "member"),
    [("etcd-node1.log", "etcd-node1"), ("etcd-node1.log.2.gz", "etcd-node1"), ("n1.log-20251116.xz", "n1"),
     ("etcd-2025-11-16T00-15-22.265.log", "etcd"), ("local-time-3.4.log", "local-time-3.4"), ("etcd.1.txt", "etcd.1"),
     (".log", ".log"), ("etcd", "etcd"), ("n1.log.old", "n1")],
)  # fmt: skip
def test_what_a_file_says_of_its_member(name: str, member: str) -> None:
    assert hint(Path(name)) == member


# In order


def test_a_log_pasted_twice_or_in_a_wrong_order_is_the_log() -> None:
    lines = (RAFT_LOGS / "etcd-3.5.1-kill" / "etcd-node3.log").read_text().splitlines()
    right = read_lines(*lines).logs[0].events
    assert len(right) > 10
    for some in (lines + lines, lines[20:] + lines[:20], lines[::-1], lines[10:] + lines[:15]):
        assert read_lines(*some).logs[0].events == right


@pytest.mark.parametrize("name", [name for name in LABELS if "text" not in name])
def test_logs_that_were_sorted_as_texts_give_the_same_timeline(name: str) -> None:
    """`sort *.log`: lines of one time stand in the order of their texts, and all warnings after all others."""
    paths = sorted((RAFT_LOGS / name).glob("*.log"))
    right = elections.read_files(paths)
    found = elections.read([("x", "x", sorted(line for path in paths for line in path.read_text().splitlines()))])
    assert observed.timeline(found) == observed.timeline(right)
    assert [(each.winner, each.term) for each in found.elections] == [
        (each.winner, each.term) for each in right.elections
    ]


def test_lines_in_no_order_are_sorted_by_time_and_by_what_raft_does_first() -> None:
    lines = (RAFT_LOGS / "etcd-3.5.1-kill" / "etcd-node2.log").read_text().splitlines()
    right = read_lines(*lines).logs[0].events
    rng = random.Random(1)
    for _ in range(20):
        rng.shuffle(lines)
        found = read_lines(*lines).logs[0].events
        assert sorted(found, key=repr) == sorted(right, key=repr)
        telling = ("start", "became", "granted", "count", "elected", "lost")
        assert [each for each in found if each.kind in telling] == [each for each in right if each.kind in telling]


def test_a_clock_that_is_set_back_breaks_no_order() -> None:
    def line(at: float, text: str) -> str:
        return json.dumps({"level": "info", "ts": AT + at, "msg": f"{ID} {text}"})

    stepped = (line(0, "became candidate at term 2"), line(1, "became leader at term 2"),
               line(-300, "became follower at term 3"), line(-299, "became candidate at term 4"))  # fmt: skip
    assert [each.term for each in read_lines(*stepped).logs[0].events] == [2, 2, 3, 4]
    # The same lines from two files, of which each is in order.
    found = log_join.read([("1", "x", stepped[:2]), ("2", "x", stepped[2:])])
    assert [each.at for each in found.logs[0].events] == sorted(AT + at for at in (0, 1, -300, -299))


# Files


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


DATA = f"{JSON}\n{NEXT}\n".encode()


def archived(path: Path, data: bytes) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("logs/etcd.log", data)
        return path
    with tarfile.open(path, "w:xz" if path.suffix == ".xz" else "w") as archive:
        info = tarfile.TarInfo("logs/etcd.log.gz")
        info.size = len(gzip.compress(data))
        archive.addfile(info, io.BytesIO(gzip.compress(data)))
    return path


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: write(folder / "x.gz", gzip.compress(DATA)),
        lambda folder: write(folder / "no-suffix", gzip.compress(DATA[:50]) + gzip.compress(DATA[50:])),
        lambda folder: write(folder / "x.bz2", bz2.compress(DATA)),
        lambda folder: write(folder / "x.xz", lzma.compress(DATA)),
        lambda folder: write(folder / "x.lzma", lzma.compress(DATA, lzma.FORMAT_ALONE)),
        lambda folder: write(folder / "x.gz.xz", lzma.compress(gzip.compress(DATA))),
        lambda folder: archived(folder / "x.tar", DATA),
        lambda folder: archived(folder / "x.tar.xz", DATA),
        lambda folder: archived(folder / "x.zip", DATA),
        lambda folder: write(folder / "x.log", DATA.decode().encode("utf-16")),
        lambda folder: write(folder / "x.log", DATA.decode().encode("utf-16-be")),
        lambda folder: write(folder / "x.log", DATA.decode().encode("utf-32")),
        lambda folder: write(folder / "x.log", JSON.encode() + b"\n" + f"{NEXT}\r\n".encode("utf-16-le")),
        lambda folder: write(folder / "x.log", b"\0" * 100_001 + DATA),
        lambda folder: write(folder / "x.log", DATA.replace(b"\n", b"\r\n")),
        lambda folder: write(folder / "x.log", DATA.replace(b"\n", b"\r")),
        lambda folder: write(folder / "x.log", f"\ufeff{JSON}\n\ufeff{NEXT}\n".encode()),
    ],
)  # fmt: skip
def test_packed_and_recoded_files_are_read(make: Callable[[Path], Path], tmp_path: Path) -> None:
    found = log_join.read_files([make(tmp_path)])
    assert [(each.term, each.detail) for log in found.logs for each in log.events] == [(3, "leader"), (4, "leader")]
    assert found.notes == ()


def test_a_folder_is_the_files_in_it(tmp_path: Path) -> None:
    (tmp_path / "pods" / ".hidden").mkdir(parents=True)
    write(tmp_path / "pods" / "0.log", DATA)
    write(tmp_path / "pods" / ".hidden" / "not.log", b"not a log\n")
    found = log_join.read_files([tmp_path])
    assert [log.name for log in found.logs] == [ID] and not found.notes


@pytest.mark.parametrize("pack", [gzip.compress, lambda data: bz2.compress(data, 1), lzma.compress])
def test_of_a_file_that_is_cut_short_the_rest_is_read(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    rng = random.Random(1)
    lines = [JSON, *(rng.randbytes(60).hex() for _ in range(5000))]
    whole = pack("\n".join(lines).encode())
    found = log_join.read_files([write(tmp_path / "x.log", whole[:-2000])])
    assert [each.term for each in found.logs[0].events] == [3]
    assert "it is damaged or cut short" in found.notes[0]


@pytest.mark.parametrize(
    ("begin", "says"),
    [(b"\x28\xb5\x2f\xfd", "Zstandard"), (b"\x04\x22\x4d\x18", "LZ4"), (b"7z\xbc\xaf\x27\x1c", "7-Zip")],
)
def test_a_compression_that_cannot_be_read_is_one_true_line(
    begin: bytes, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "x.log", begin + b"x" * 100)
    code, _, err = viz(capsys, str(path), "--type", "timeline")
    if says == "Zstandard" and _has_zstd():
        assert code == 4 and "damaged" in err
        return
    assert (code, err.count("\n")) == (2, 1)
    assert f"{path} is compressed with {says}, which" in err and "unpack it" in err
    with pytest.raises(UsageError):
        log_join.read_files([path])


def _has_zstd() -> bool:
    try:
        import compression.zstd  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no line about Raft; it is empty"),
        (b"<!DOCTYPE html>\n<h1>404</h1>\n", "none of etcd's among 2; the first is: <!DOCTYPE html>"),
        (struct.pack("<QHHII", 0, 4, 0, 0, 0xED0CDAED) + b"\0" * 400, "it is a database of etcd"),
        (b"LPKSHHRH" + b"\0" * 400, "it is a journal of systemd"),
        (b"2026/01/01 00:00:00 [error] 7#7: *1 open() failed\n", "none of etcd's among 1; the first is: 2026/01/01"),
        (b"member,at,role\netcd-node1,1,leader\n", "the first is: member,at,role"),
        (JSON.replace(BARE, "ready to serve client requests").encode(), "no line about Raft among 1"),
    ],
)
def test_what_is_really_not_a_log_of_etcd_says_what_it_is(
    data: bytes, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = viz(capsys, str(write(tmp_path / "x", data)), "--type", "timeline")
    assert (code, out) == (4, "") and says in err and err.count("\n") == 2


def test_what_is_left_out_is_named() -> None:
    found = read_lines("Attaching to etcd1-1", JSON, "\x1b[31mnot of etcd\x07" + "x" * 200, "nor this", NEXT)
    shown = "x.log: left out 2 of 5 lines, which etcd did not write; the first is line 3: "
    assert re.fullmatch(re.escape(shown) + r"(\[31m)?\W*(\[31m)?not of etcd x{80,}\u2026", found.notes[0])


def test_polls_are_read_from_what_powershell_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = [{"name": "a", "role": "leader", "term": 2}]
    lines = "".join(json.dumps({"at": f"2026-01-01T00:00:0{n}Z", "members": members}) + "\r\n" for n in range(3))
    path = write(tmp_path / "polls.json", lines.encode("utf-16"))
    code = visualize_raft_state(["--polls", str(path), "--type", "timeline", "--format", "json"])
    assert code == 0 and json.loads(capsys.readouterr().out)["duration"] == 2.0


# Zones


@pytest.mark.parametrize(
    ("zone", "hours"),
    [
        ("UTC", 0),
        ("+02:00", 2),
        ("-0430", -4.5),
        ("UTC+8", 8),
        ("Europe/Berlin", 1),
        ("cest", 2),
        ("Asia/Kolkata", 5.5),
    ],
)
def test_zones(zone: str, hours: float) -> None:
    noon = seconds("2026-01-01T12:00:00+00:00")
    for text in ("2026-01-01T12:00:00", "2026/01/01 12:00:00", "Jan  1 2026 12:00:00"):
        assert parse_time(text, parse_zone(zone)) == noon - hours * 3600
    assert parse_time("2026-01-01T12:00:00Z", parse_zone(zone)) == noon  # it says its own


def test_the_zone_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        zone = parse_zone("local")
        assert parse_time("2026-01-01T12:00:00", zone) == seconds("2026-01-01T06:30:00+00:00")
        lines = [f"Nov 16 05:45:2{n} etcd-1 etcd[1]: {BARE}" for n in (2, 3)]
        found = log_join.read([("x", "x", [NEXT, *lines])], zone)
        assert [each.at for each in found.logs[0].events][1:] == [
            parse_time("2025-11-16T00:15:22.365101Z"),
            int(AT) + 1,
        ]  # not before the line above it
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("zone", ["Europe/Berlin", "+01:00"])
def test_the_hour_that_a_clock_shows_twice(zone: str) -> None:
    """Summer ends in Berlin on 25 October 2026 at 01:00 UTC: after 02:59:59 it is 02:00:00 again."""
    texts = ("02:10:00.5", "02:50:00.5", "02:00:00.5", "02:49:00.5", "03:00:01.5")
    lines = [f"2026-10-25 {clock} I | raft: {ID} became follower at term {n}" for n, clock in enumerate(texts, 2)]
    found = log_join.read([("x", "x", lines)], parse_zone(zone))
    after = [each.at - seconds("2026-10-25T00:00:00+00:00") for each in found.logs[0].events]
    right = {
        "Europe/Berlin": [600.5, 3000.5, 3600.5, 6540.5, 7201.5],
        "+01:00": [4200.5, 6600.5, 3600.5, 6540.5, 7201.5],
    }
    assert after == right[zone]


@pytest.mark.parametrize("since", ["2021-09-11 10:46:26", "2021-09-11T14:46:26Z", "1631371586"])
def test_the_begin_may_be_said_as_the_logs_say_it(since: str, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(FIELD / "local-time-3.4.log"), str(FIELD / "utc-zap.log")]
    how = ["--log-timezone=-04:00", "--since", since, "--type", "timeline", "--format", "json"]
    code, out, _ = viz(capsys, *files, *how)
    assert code == 0 and json.loads(out)["started_at"] == "2021-09-11T14:46:26.379Z"


@pytest.mark.parametrize(
    ("args", "says"),
    [(["--log-timezone", "Mars/Base", "--logs", "x.log"], "'Mars/Base' is no time zone"),
     (["--log-timezone=+99:00", "--logs", "x.log"], "is no time zone"),
     (["--log-timezone", "UTC"], "--log-timezone needs --observed"),
     (["--log-timezone", "UTC", "--polls", "x.json"], "--log-timezone is for logs")],
)  # fmt: skip
def test_zones_that_cannot_be_meant(args: Sequence[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.support.command import assert_refused, called

    assert_refused(called(capsys, "viz", "--type", "timeline", *args), says)


@pytest.mark.parametrize(
    ("text", "right", "coarse", "zoned"),
    [("2021-09-11 14:34:50 -0400", "2021-09-11T18:34:50", True, True),
     ("Sat Sep 11 14:34:50 CEST 2021", "2021-09-11T12:34:50", True, True),
     ("11/Sep/2021:14:34:50 +0000", "2021-09-11T14:34:50", True, True),
     ("Sep 11, 2021 @ 14:34:50.123", "2021-09-11T14:34:50.123", False, False),
     ("2021-09-11_14:34:50.12", "2021-09-11T14:34:50.12", False, False),
     ("1631370890123", "2021-09-11T14:34:50.123", False, True),
     ("1631370890", "2021-09-11T14:34:50", True, True),
     ("2021-09-11 02:34:50.5 PM", "2021-09-11T14:34:50.5", False, False),
     ("Sep 11, 2021 12:34:50 AM UTC", "2021-09-11T00:34:50", True, True),
     ("Sep 11, 2021, 2:34:50\u202fp.m.", "2021-09-11T14:34:50", True, False),
     ("Sat, 11 Sep 2021 14:34:50 +0000", "2021-09-11T14:34:50", True, True),
     ("11.9.2021, 14:34:50", "2021-09-11T14:34:50", True, False),
     ("1.63137089012e+09", "2021-09-11T14:34:50.12", False, True),
     ("2021-09-11t14:34:50z", "2021-09-11T14:34:50", True, True)],
)  # fmt: skip
def test_times_of_any_kind(text: str, right: str, coarse: bool, zoned: bool) -> None:
    stamp = parse_stamp(text.upper() if "t" in text and "z" in text else text)
    assert (stamp.at, stamp.coarse, stamp.zoned) == (pytest.approx(seconds(f"{right}+00:00")), coarse, zoned)


def test_a_log_of_one_member_is_read_in_its_order() -> None:
    log = read_log([NEXT, JSON], "x")
    assert [each.term for each in log.events] == [4, 3]
